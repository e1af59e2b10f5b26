//! Transitions one by one, then the deadline under any order of events.

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

fn at(ms: u64) -> Instant {
    Instant::from_boot(Duration::from_millis(1_000_000 + ms))
}

fn deadlines(kill: u64) -> Deadlines {
    Deadlines { soft: at(kill - 1_000), kill: at(kill), hard: at(kill + 500) }
}

fn waiting(shared: bool) -> Machine {
    Machine::new("/x", if shared { Group::Shared } else { Group::Own }, false, at(0))
}

fn running(shared: bool) -> Machine {
    let mut machine = waiting(shared);
    let _ = machine.on(Event::Message(FromKeeper::Lease("1f".into())), at(0));
    let actions = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(10_000))), at(0));
    assert_eq!(actions, [Action::Post(FromSupervisor::Acknowledged(deadlines(10_000)))]);
    let actions = machine.on(Event::Message(FromKeeper::Notice(Notice::Started)), at(1));
    assert_eq!(actions, [Action::CloseStreams, Action::Show(Notice::Started)]);
    machine
}

fn done(code: i32) -> FromKeeper {
    FromKeeper::Done { verdict: Verdict::Exited(code), lingers: false }
}

fn sent(signal: Signal) -> Event {
    Event::Signal { signal, keyboard: false }
}

fn forwarded(signal: Signal) -> Action {
    Action::Post(FromSupervisor::Signal(signal))
}

fn kind(actions: &[Action]) -> Option<Kind> {
    match actions.last() {
        Some(Action::Finish(Verdict::Failed(failure))) => Some(failure.kind),
        _ => None,
    }
}

#[test]
fn the_verdict_waits_for_the_keeper_to_be_gone_but_not_for_ever() {
    let mut machine = running(false);
    assert_eq!(machine.on(Event::Message(done(7)), at(50)), []);
    assert_eq!(machine.on(Event::KeeperEnded, at(51)), [Action::Finish(Verdict::Exited(7))]);

    let mut machine = running(false);
    let _ = machine.on(Event::Message(done(7)), at(50));
    assert_eq!(machine.wake(), Some(at(1_050)));
    assert_eq!(machine.on(Event::Tick, at(1_050)), [Action::KillKeeper, Action::Finish(Verdict::Exited(7))]);
}

#[test]
fn a_keeper_that_hangs_in_the_release_is_killed_and_the_lease_is_given_up() {
    let mut machine = running(false);
    assert_eq!(machine.on(Event::Message(FromKeeper::Ended(Verdict::Exited(7))), at(50)), []);
    assert_eq!(machine.wake(), Some(at(6_050)));
    assert_eq!(machine.on(Event::Tick, at(6_050)), [Action::KillKeeper]);
    let end = [Action::Release, Action::Finish(Verdict::Exited(7))];
    assert_eq!(machine.on(Event::KeeperEnded, at(6_051)), end);
}

#[test]
fn a_keeper_that_hangs_in_the_queue_does_not_keep_the_user_there() {
    let mut machine = waiting(false);
    assert_eq!(machine.on(sent(Signal::SIGINT), at(100)), [forwarded(Signal::SIGINT)]);
    assert_eq!(machine.on(Event::Tick, at(6_100)), [Action::KillKeeper]);
    assert_eq!(machine.on(Event::KeeperEnded, at(6_101)), [Action::KillAll]);
    assert_eq!(kind(&machine.on(Event::Empty, at(6_101))), Some(Kind::Interrupted(Signal::SIGINT)));
}

#[test]
fn a_signal_that_comes_with_the_lock_is_the_command_s() {
    let mut machine = waiting(false);
    let _ = machine.on(sent(Signal::SIGTERM), at(100));
    let _ = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(20_000))), at(101));
    let _ = machine.on(Event::Message(FromKeeper::Notice(Notice::Started)), at(102));
    assert_eq!(machine.on(Event::Tick, at(10_000)), []);
}

#[test]
fn a_duplicate_is_not_a_second_signal_and_a_later_one_kills() {
    let mut machine = running(false);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(100)), [forwarded(Signal::SIGTERM)]);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(500)), []);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(1_100)), [Action::Post(FromSupervisor::Kill)]);
}

#[test]
fn other_signals_are_forwarded_as_they_come() {
    let mut machine = running(false);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGQUIT]
    {
        assert_eq!(machine.on(sent(signal), at(100)), [forwarded(signal)]);
    }
}

#[test]
fn what_the_keyboard_sent_reaches_the_command_without_help() {
    let mut machine = running(true);
    for n in 0..3 {
        let signal = Event::Signal { signal: Signal::SIGINT, keyboard: true };
        let told = Action::Post(FromSupervisor::GroupSignal(Signal::SIGINT));
        assert_eq!(machine.on(signal, at(100 + n * 2_000)), [told]);
    }
    assert_eq!(machine.on(sent(Signal::SIGINT), at(5_000)), [forwarded(Signal::SIGINT)], "Ctrl-C is no first signal");
}

#[test]
fn a_signal_to_the_whole_group_reaches_the_command_without_help() {
    let told = Action::Post(FromSupervisor::GroupSignal(Signal::SIGTERM));
    for witness_first in [true, false] {
        let mut machine = running(true);
        machine.group = Group::Witnessed;
        let mut events = [sent(Signal::SIGTERM), Event::Group(Signal::SIGTERM)];
        if witness_first {
            events.reverse();
        }
        let [first, second] = events.map(|event| machine.on(event, at(100)));
        assert_eq!((first, second), (vec![], vec![told.clone()]), "the keeper knows, and sends nothing");
        assert_eq!(machine.on(Event::Tick, at(1_000)), [], "the command has it");
        assert_eq!(machine.wake(), Some(at(10_000)));
        let _ = machine.on(Event::Group(Signal::SIGTERM), at(2_000));
        assert_eq!(
            machine.on(sent(Signal::SIGTERM), at(2_000)),
            [Action::Post(FromSupervisor::Kill)],
            "the second kills"
        );
    }
}

#[test]
fn a_signal_that_the_witness_did_not_get_is_forwarded() {
    let mut machine = running(true);
    machine.group = Group::Witnessed;
    assert_eq!(machine.on(sent(Signal::SIGUSR1), at(100)), []);
    assert_eq!(machine.wake(), Some(at(105)), "the others of a group get it in the same moment");
    assert_eq!(machine.on(Event::Tick, at(105)), [Action::AskWitness]);
    assert_eq!(machine.on(sent(Signal::SIGUSR2), at(105)), []);
    assert_eq!(machine.on(Event::AllTold, at(106)), [forwarded(Signal::SIGUSR1)], "what came later was not asked for");
    assert_eq!(machine.on(Event::Tick, at(110)), [Action::AskWitness]);
    assert_eq!(machine.wake(), Some(at(1_105)), "a witness that is stopped does not answer");
    assert_eq!(machine.on(Event::Tick, at(1_105)), [forwarded(Signal::SIGUSR2)]);
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(1_200)), []);
    assert_eq!(machine.on(Event::WitnessGone, at(1_201)), [forwarded(Signal::SIGTERM)]);
}

#[test]
fn a_terminal_that_hangs_up_tells_the_session_s_leader_alone() {
    let mut machine = running(true);
    machine.group = Group::Witnessed;
    assert_eq!(machine.on(Event::Signal { signal: Signal::SIGHUP, keyboard: true }, at(100)), []);
    assert_eq!(machine.on(Event::Tick, at(105)), [Action::AskWitness]);
    assert_eq!(machine.on(Event::AllTold, at(106)), [forwarded(Signal::SIGHUP)]);
}

/// What comes of a message, once all have been read.
fn heard(machine: &mut Machine, message: FromKeeper, at: Instant) -> Vec<Action> {
    [machine.on(Event::Message(message), at), machine.on(Event::Tick, at)].concat()
}

#[test]
fn the_job_stops_with_its_command() {
    let stopped = |signal: Signal| FromKeeper::Stopped(signal);
    let stop = |signal: Signal| [Action::StopSelf(signal)];
    assert_eq!(heard(&mut running(true), stopped(Signal::SIGSTOP), at(10)), stop(Signal::SIGSTOP));
    assert_eq!(heard(&mut running(false), stopped(Signal::SIGTSTP), at(10)), [], "no shell waits for that");
    assert_eq!(waiting(true).on(sent(Signal::SIGTSTP), at(10)), stop(Signal::SIGTSTP));
    let mut machine = running(true);
    let _ = machine.on(Event::Message(stopped(Signal::SIGSTOP)), at(10));
    assert_eq!(heard(&mut machine, FromKeeper::Continued, at(10)), [], "it went on meanwhile");
}

#[test]
fn a_suspended_job_that_is_woken_stops_again_unless_there_is_something_to_do() {
    let mut machine = running(true);
    let stop = [Action::StopSelf(Signal::SIGTSTP)];
    assert_eq!(heard(&mut machine, FromKeeper::Stopped(Signal::SIGTSTP), at(10)), stop);
    assert_eq!(machine.on(Event::Woken, at(5_000)), stop);
    assert_eq!(machine.on(Event::Woken, at(10_000)), [Action::KillTree], "the deadline has come");
    let mut machine = running(true);
    let _ = heard(&mut machine, FromKeeper::Stopped(Signal::SIGTSTP), at(10));
    let actions = machine.on(Event::KeeperEnded, at(20));
    assert!(actions.contains(&Action::KillAll) && !actions.contains(&stop[0]), "{actions:?}");
    assert!(!machine.on(Event::Woken, at(21)).contains(&stop[0]));
}

#[test]
fn a_keeper_that_dies_takes_the_command_along_and_the_lease_is_given_up() {
    let mut machine = running(false);
    let actions = machine.on(Event::KeeperEnded, at(100));
    assert!(actions.contains(&Action::KillAll), "{actions:?}");
    assert!(machine.wake().is_some_and(|wake| wake <= at(102)));
    let actions = machine.on(Event::Empty, at(103));
    assert_eq!(actions[0], Action::Release);
    assert_eq!(kind(&actions), Some(Kind::Lost));
}

#[test]
fn a_keeper_that_dies_in_the_queue_is_a_fault() {
    let mut machine = waiting(false);
    let _ = machine.on(Event::Message(FromKeeper::Lease("1f".into())), at(0));
    // A lock without a lease needs no word from here, so the command may have started a moment before.
    assert_eq!(machine.on(Event::KeeperEnded, at(100)), [Action::KillAll]);
    // By now its pid may be somebody else's.
    assert_eq!(machine.on(sent(Signal::SIGINT), at(100)), []);
    assert!(!machine.on(Event::Tick, at(10_000)).contains(&Action::KillKeeper));
    let actions = machine.on(Event::Empty, at(101));
    assert_eq!(actions[0], Action::Release);
    assert_eq!(kind(&actions), Some(Kind::Fault));
}

#[test]
fn a_keeper_that_dies_while_it_releases_leaves_the_command_s_status() {
    let mut machine = running(false);
    let _ = machine.on(Event::Message(FromKeeper::Ended(Verdict::Exited(3))), at(100));
    assert_eq!(machine.wake(), Some(at(6_100)), "nothing runs, so only the time of a release counts");
    let actions = machine.on(Event::KeeperEnded, at(101));
    assert_eq!(actions, [Action::Release, Action::Finish(Verdict::Exited(3))]);
}

#[test]
fn at_the_deadline_the_tree_is_killed_and_a_silent_keeper_too() {
    let mut machine = running(false);
    assert_eq!(machine.wake(), Some(at(10_000)));
    assert_eq!(machine.on(Event::Tick, at(10_000)), [Action::KillTree]);
    assert_eq!(machine.on(Event::Tick, at(10_249)), [Action::KillTree]);
    assert!(machine.on(Event::Tick, at(10_252)).contains(&Action::KillAll));
    assert_eq!(machine.on(Event::KeeperEnded, at(10_255)), [Action::KillAll]);
    let actions = machine.on(Event::Empty, at(10_260));
    assert_eq!(kind(&actions), Some(Kind::Lost));
    assert!(format!("{actions:?}").contains("did not answer"), "{actions:?}");
}

#[test]
fn what_the_keeper_said_while_this_process_was_stopped_counts_before_a_deadline_that_passed() {
    let mut machine = running(false);
    for kill in [20_000, 40_000] {
        assert_eq!(machine.on(Event::Message(FromKeeper::Deadlines(deadlines(kill))), at(35_000)), []);
    }
    assert_eq!(machine.on(Event::Tick, at(35_000)), []);
    assert_eq!(machine.wake(), Some(at(40_000)));
}

#[test]
fn after_a_long_stop_the_news_that_the_link_had_no_room_for_count() {
    let mut machine = running(true);
    let _ = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(20_000))), at(60_000));
    assert_eq!(machine.on(Event::Tick, at(60_000)), []);
    let _ = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(65_000))), at(60_001));
    assert_eq!(machine.on(Event::Tick, at(60_100)), []);
    assert_eq!(machine.wake(), Some(at(65_000)));

    let mut machine = running(true);
    assert_eq!(machine.on(Event::Tick, at(60_000)), []);
    assert_eq!(machine.wake(), Some(at(60_100)), "but not for long");
    assert_eq!(machine.on(Event::Tick, at(60_100)), [Action::KillTree]);
}

#[test]
fn a_lock_without_a_lease_has_its_command_started_by_an_acknowledgement_too() {
    let mut machine = waiting(true);
    assert!(
        !machine
            .on(Event::Message(FromKeeper::Notice(Notice::Acquired { token: 1 })), at(10))
            .iter()
            .any(|a| matches!(a, Action::Post(_)))
    );
    let acknowledged = Action::Post(FromSupervisor::Acknowledged(Deadlines::NEVER));
    assert_eq!(machine.on(Event::Message(FromKeeper::Deadlines(Deadlines::NEVER)), at(11)), [acknowledged]);
    let stop = Event::Signal { signal: Signal::SIGTSTP, keyboard: true };
    assert!(!machine.on(stop, at(12)).contains(&Action::StopSelf(Signal::SIGTSTP)), "the command stops first");
}

#[test]
fn a_key_while_the_command_starts_is_marked_as_one() {
    let mut machine = waiting(true);
    let _ = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(10_000))), at(10));
    let key = Event::Signal { signal: Signal::SIGINT, keyboard: true };
    let keyboard = Action::Post(FromSupervisor::GroupSignal(Signal::SIGINT));
    assert_eq!(machine.on(key, at(11)), [keyboard]);
}

#[test]
fn a_keeper_that_reports_is_left_to_finish() {
    let mut machine = running(false);
    let _ = machine.on(Event::Tick, at(10_000));
    for ms in (10_100..12_000).step_by(100) {
        let report = if ms < 10_500 { FromKeeper::Killing } else { FromKeeper::Notice(Notice::Stuck(Vec::new())) };
        let actions = machine.on(Event::Message(report), at(ms));
        assert!(!actions.contains(&Action::KillAll), "{actions:?} at {ms}");
    }
    let _ = machine.on(Event::Message(done(0)), at(12_000));
    assert_eq!(machine.on(Event::KeeperEnded, at(12_001)), [Action::Finish(Verdict::Exited(0))]);
}

#[test]
fn what_cannot_be_killed_is_told_once_and_nobody_is_not() {
    let mut machine = running(false);
    let stuck = vec![Process { pid: 7, name: "dd".into() }];
    let mut told =
        |processes: &[Process]| machine.on(Event::Message(FromKeeper::Notice(Notice::Stuck(processes.into()))), at(10));
    assert_eq!(told(&stuck), [Action::Show(Notice::Stuck(stuck.clone()))]);
    assert_eq!(told(&stuck), []);
    assert_eq!(told(&[]), []);
}

#[test]
fn deadlines_of_a_lock_that_was_lost_before_the_command_ran_are_void() {
    let mut machine = waiting(false);
    let _ = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(10_000))), at(0));
    let _ = machine.on(Event::Message(FromKeeper::Notice(Notice::Rejoining("gone".into()))), at(100));
    assert_eq!(machine.wake(), None);
    assert_eq!(machine.on(Event::Tick, at(20_000)), []);
    let actions = machine.on(Event::Message(FromKeeper::Deadlines(deadlines(40_000))), at(20_001));
    assert_eq!(actions, [Action::Post(FromSupervisor::Acknowledged(deadlines(40_000)))]);
}

proptest! {
    #[test]
    fn nothing_keeps_the_command_alive_past_its_deadline(
        events in prop::collection::vec((0..6_u8, 0..700_u64), 1..60)
    ) {
        let (mut machine, mut now, mut kill) = (running(false), 1, 10_000);
        for (what, pass) in events {
            now += pass;
            let event = match what {
                0 => {
                    kill = kill.max(now + 3_000);
                    Event::Message(FromKeeper::Deadlines(deadlines(kill)))
                }
                1 => sent(Signal::SIGTERM),
                2 => Event::Message(FromKeeper::Stopped(Signal::SIGSTOP)),
                3 => Event::Message(FromKeeper::Notice(Notice::Note(String::new()))),
                4 => sent(Signal::SIGUSR1),
                _ => Event::Tick,
            };
            let late = now >= kill;
            let actions = machine.on(event, at(now));
            let kills = actions.iter().any(|action| matches!(action, Action::KillTree | Action::KillAll));
            let soon = machine.wake().is_some_and(|wake| wake <= at(now + 100));
            prop_assert!(!late || kills || soon);
            prop_assert!(machine.wake().is_some_and(|wake| wake <= at(kill.max(now + 100))));
        }
    }
}

#[test]
fn a_keeper_that_does_not_answer_a_second_signal_is_killed_with_everything() {
    let mut machine = running(false);
    let _ = machine.on(sent(Signal::SIGTERM), at(100));
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(2_000)), [Action::Post(FromSupervisor::Kill)]);
    assert_eq!(machine.wake(), Some(at(2_500)));
    assert!(machine.on(Event::Tick, at(2_500)).contains(&Action::KillAll));
    let _ = machine.on(Event::KeeperEnded, at(2_510));
    assert_eq!(kind(&machine.on(Event::Empty, at(2_520))), Some(Kind::Lost));

    let mut machine = running(false);
    let _ = machine.on(sent(Signal::SIGTERM), at(100));
    let _ = machine.on(sent(Signal::SIGTERM), at(2_000));
    let _ = machine.on(Event::Message(FromKeeper::Notice(Notice::Ending("killed".into()))), at(2_001));
    assert_eq!(machine.on(Event::Tick, at(2_600)), [], "it answered");
}

#[test]
fn what_outlives_the_keeper_and_its_killing_is_shown() {
    let mut machine = running(false);
    let _ = machine.on(Event::KeeperEnded, at(100));
    assert!(!machine.on(Event::Tick, at(400)).contains(&Action::ShowStuck));
    assert!(machine.on(Event::Tick, at(700)).contains(&Action::ShowStuck));
}
