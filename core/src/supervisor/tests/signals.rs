//! Signals: forwarding, counting, the witness, suspended jobs.

use super::*;

/// Sends a message and then the tick that follows all messages.
fn read_message(machine: &mut Machine, message: FromKeeper, now: Instant) -> Vec<Action> {
    [machine.on(Event::Message(message), now), machine.on(Event::Tick, now)].concat()
}

#[test]
fn signal_before_the_start_does_not_kill_the_keeper_later() {
    let mut machine = waiting(Group::Own);
    let _ = machine.on(sent(Signal::SIGTERM), at(100));
    let _ = machine.on(deadlines(20_000), at(101));
    let _ = machine.on(notice(Notice::Started), at(102));
    assert_eq!(machine.on(Event::Tick, at(10_000)), []);
}

#[test]
fn repeated_signal_is_dropped_and_a_later_one_kills() {
    let mut machine = running(Group::Own);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(100)), [forwarded(Signal::SIGTERM)]);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(500)), []);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(1_100)), [kill_requested()]);
}

#[test]
fn other_signals_are_forwarded() {
    let mut machine = running(Group::Own);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGQUIT]
    {
        assert_eq!(machine.on(sent(signal), at(100)), [forwarded(signal)]);
    }
}

#[test]
fn typed_signals_are_reported_but_not_forwarded() {
    let mut machine = running(Group::Shared);
    for n in 0..3 {
        assert_eq!(machine.on(typed(Signal::SIGINT), at(100 + n * 2_000)), [group_signal(Signal::SIGINT)]);
    }
    let actions = machine.on(sent(Signal::SIGINT), at(5_000));
    assert_eq!(actions, [forwarded(Signal::SIGINT)], "Ctrl-C does not count as the first signal");
}

#[test]
fn typed_signal_during_the_start_is_reported_as_typed() {
    let mut machine = waiting(Group::Shared);
    let _ = machine.on(deadlines(10_000), at(10));
    assert_eq!(machine.on(typed(Signal::SIGINT), at(11)), [group_signal(Signal::SIGINT)]);
}

#[test]
fn witnessed_signals_are_reported_but_not_forwarded() {
    for witness_first in [true, false] {
        let mut machine = running(Group::Witnessed);
        let mut events = [sent(Signal::SIGTERM), Event::GroupSignal(Signal::SIGTERM)];
        if witness_first {
            events.reverse();
        }
        let [first, second] = events.map(|event| machine.on(event, at(100)));
        assert_eq!((first, second), (vec![], vec![group_signal(Signal::SIGTERM)]));
        assert_eq!(machine.on(Event::Tick, at(1_000)), [], "the command has received it");
        assert_eq!(machine.wake(), Some(at(10_000)));
        let _ = machine.on(Event::GroupSignal(Signal::SIGTERM), at(2_000));
        assert_eq!(machine.on(sent(Signal::SIGTERM), at(2_000)), [kill_requested()], "the second kills");
    }
}

#[test]
fn signals_unknown_to_the_witness_are_forwarded() {
    let mut machine = running(Group::Witnessed);
    assert_eq!(machine.on(sent(Signal::SIGUSR1), at(100)), []);
    assert_eq!(machine.wake(), Some(at(105)), "the witness may receive it a moment later");
    assert_eq!(machine.on(Event::Tick, at(105)), [Action::AskWitness]);
    assert_eq!(machine.on(sent(Signal::SIGUSR2), at(105)), []);
    let actions = machine.on(Event::WitnessAnswered, at(106));
    assert_eq!(actions, [forwarded(Signal::SIGUSR1)], "the request did not include the later signal");
    assert_eq!(machine.on(Event::Tick, at(110)), [Action::AskWitness]);
    assert_eq!(machine.wake(), Some(at(1_105)), "a stopped witness does not answer");
    assert_eq!(machine.on(Event::Tick, at(1_105)), [forwarded(Signal::SIGUSR2)]);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(1_200)), []);
    assert_eq!(machine.on(Event::WitnessGone, at(1_201)), [forwarded(Signal::SIGTERM)]);
}

#[test]
fn hangup_of_the_terminal_is_forwarded() {
    let mut machine = running(Group::Witnessed);
    assert_eq!(machine.on(typed(Signal::SIGHUP), at(100)), []);
    assert_eq!(machine.on(Event::Tick, at(105)), [Action::AskWitness]);
    assert_eq!(machine.on(Event::WitnessAnswered, at(106)), [forwarded(Signal::SIGHUP)]);
}

#[test]
fn supervisor_stops_with_its_command() {
    let stop = |signal: Signal| [Action::StopSelf(signal)];
    let stopped = FromKeeper::Stopped;
    let actions = read_message(&mut running(Group::Shared), stopped(Signal::SIGSTOP), at(10));
    assert_eq!(actions, stop(Signal::SIGSTOP));
    let actions = read_message(&mut running(Group::Own), stopped(Signal::SIGTSTP), at(10));
    assert_eq!(actions, [], "no shell waits for the stop");
    assert_eq!(waiting(Group::Shared).on(sent(Signal::SIGTSTP), at(10)), stop(Signal::SIGTSTP));
    let mut machine = running(Group::Shared);
    let _ = machine.on(Event::Message(stopped(Signal::SIGSTOP)), at(10));
    assert_eq!(read_message(&mut machine, FromKeeper::Continued, at(10)), [], "the command has continued");
}

#[test]
fn woken_supervisor_stops_again_unless_it_must_kill() {
    let mut machine = running(Group::Shared);
    let stop = [Action::StopSelf(Signal::SIGTSTP)];
    assert_eq!(read_message(&mut machine, FromKeeper::Stopped(Signal::SIGTSTP), at(10)), stop);
    assert_eq!(machine.on(Event::WokenByWitness, at(5_000)), stop);
    assert_eq!(machine.on(Event::WokenByWitness, at(10_000)), [Action::KillTree], "the deadline has passed");
    let mut machine = running(Group::Shared);
    let _ = read_message(&mut machine, FromKeeper::Stopped(Signal::SIGTSTP), at(10));
    let actions = machine.on(Event::KeeperExited, at(20));
    assert!(actions.contains(&Action::KillAll) && !actions.contains(&stop[0]), "{actions:?}");
    assert!(!machine.on(Event::WokenByWitness, at(21)).contains(&stop[0]));
}
