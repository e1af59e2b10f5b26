//! The command: its start, its signals, its leftovers, and the release after it.

use super::*;

#[test]
fn exit_code_follows_the_release() {
    let mut machine = running(OnLost::Kill);
    let actions = machine.on(exited(7, true), at(100));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
    let actions = machine.on(Event::Released(Ok(())), at(101));
    assert_eq!(verdict(&actions), Some(&Verdict::Exited(7)));
}

#[test]
fn release_of_a_lost_lock_is_a_loss() {
    let mut machine = running(OnLost::Kill);
    let _ = machine.on(exited(0, true), at(100));
    let actions = machine.on(Event::Released(Err(lost("gone"))), at(101));
    assert_eq!(failure_kind(&actions), Some(Kind::Lost));
}

#[test]
fn unanswered_release_keeps_the_exit_code() {
    let mut machine = running(OnLost::Kill);
    let mut actions = machine.on(exited(3, true), at(100));
    let mut now = 100;
    while verdict(&actions).is_none() {
        now += 100;
        let event = if actions.contains(&Action::Begin(Request::Release)) {
            Event::Released(Err(no_answer()))
        } else {
            Event::Tick
        };
        actions = machine.on(event, at(now));
        assert!(now < 6_000, "a release takes at most five seconds");
    }
    assert_eq!(verdict(&actions), Some(&Verdict::Exited(3)));
}

#[test]
fn leftovers_are_terminated_before_the_release() {
    let mut machine = running(OnLost::Kill);
    let actions = machine.on(exited(0, false), at(100));
    assert_eq!(without_notes(actions), [Action::TerminateTree]);
    assert_eq!(machine.wake().map(|wake| wake <= at(5_100)), Some(true));
    let actions = machine.on(Event::Tick, at(5_100));
    assert!(kills(&actions), "{actions:?}");
    let actions = machine.on(Event::Reaped { command: None, empty: true }, at(5_102));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn leftover_wait_holds_the_lock_until_a_signal() {
    let mut machine = running(OnLost::Kill);
    machine.plan.leftover = Leftover::Wait;
    assert_eq!(without_notes(machine.on(exited(0, false), at(100))), []);
    assert_eq!(machine.on(Event::Signal(Signal::SIGWINCH), at(150)), []);
    assert_eq!(machine.on(Event::Signal(Signal::SIGTERM), at(200)), [Action::TerminateTree]);
    let actions = machine.on(Event::Reaped { command: None, empty: true }, at(300));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn leftover_leave_reports_processes_and_releases() {
    let mut machine = running(OnLost::Kill);
    machine.plan.leftover = Leftover::Leave;
    let actions = machine.on(exited(0, false), at(100));
    assert!(
        actions.contains(&Action::ReportLeftovers) && actions.contains(&Action::Begin(Request::Release)),
        "{actions:?}"
    );
}

#[test]
fn harmless_signals_end_neither_wait_nor_leftovers() {
    for signal in [Signal::SIGCONT, Signal::SIGWINCH, Signal::SIGUSR1, Signal::SIGTSTP] {
        assert_eq!(holding().on(Event::Signal(signal), at(6)), [], "{signal}");
        let mut machine = running(OnLost::Kill);
        machine.plan.leftover = Leftover::Wait;
        let _ = machine.on(exited(0, false), at(100));
        assert_eq!(machine.on(Event::Signal(signal), at(200)), [], "{signal}");
    }
}

#[test]
fn supervisor_learns_that_no_command_will_run() {
    let ended = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Send(FromKeeper::Ended(_))));
    assert!(ended(&holding().on(Event::Signal(Signal::SIGTERM), at(6))), "interrupted");
    let mut machine = holding();
    let _ = machine.on(Event::Acknowledged(newest_deadlines()), at(6));
    let failure = Failure::new(Kind::NotExecutable, "gone");
    assert!(!ended(&machine.on(Event::NotStarted(failure), at(7))), "the forked process has not exited yet");
    assert!(ended(&machine.on(Event::Reaped { command: None, empty: true }, at(8))), "not started");
}

#[test]
fn group_signal_ends_leftovers_but_not_the_command() {
    let mut machine = running(OnLost::Kill);
    machine.plan.leftover = Leftover::Wait;
    assert_eq!(machine.on(Event::GroupSignal(Signal::SIGINT), at(50)), [], "the command has received it");
    let _ = machine.on(exited(0, false), at(100));
    assert_eq!(machine.on(Event::GroupSignal(Signal::SIGINT), at(200)), [Action::TerminateTree]);
}

#[test]
fn group_signal_ends_the_wait() {
    let mut machine = holding();
    let _ = machine.on(Event::GroupSignal(Signal::SIGINT), at(6));
    let actions = machine.on(Event::Released(Ok(())), at(7));
    assert_eq!(failure_kind(&actions), Some(Kind::Interrupted(Signal::SIGINT)));
}

#[test]
fn group_signal_prevents_a_restart() {
    for signal in [true, false] {
        let mut machine = running(OnLost::Restart);
        if signal {
            assert_eq!(machine.on(Event::GroupSignal(Signal::SIGINT), at(50)), [], "the command has received it");
        }
        let _ = machine.on(Event::WatchFailed(lost("gone")), at(100));
        let actions = machine.on(exited(130, true), at(110));
        assert_eq!(actions.contains(&Action::AbandonContender), !signal, "{actions:?}");
    }
}

#[test]
fn loss_outweighs_a_failed_start() {
    let mut machine = holding();
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(6)).contains(&Action::Start));
    let actions = machine.on(Event::WatchFailed(lost("gone")), at(7));
    assert!(kills(&actions), "the forked process is killed: {actions:?}");
    let _ = machine.on(Event::NotStarted(Failure::new(Kind::NotFound, "no such file")), at(8));
    let _ = machine.on(Event::Reaped { command: None, empty: true }, at(8));
    assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(9))), Some(Kind::Lost));
}

#[test]
fn second_signal_kills_during_the_grace() {
    let mut machine = running(OnLost::Kill);
    let _ = machine.on(Event::WatchFailed(broken()), at(100));
    assert!(kills(&machine.on(Event::Kill, at(1_500))));
    let _ = machine.on(killed(), at(1_502));
    let actions = machine.on(Event::Released(Ok(())), at(1_510));
    assert_eq!(failure_kind(&actions), Some(Kind::Broken));
}

#[test]
fn dead_supervisor_kills_the_tree_then_releases() {
    let mut machine = running(OnLost::Kill);
    assert!(kills(&machine.on(Event::Orphaned, at(100))));
    let actions = machine.on(killed(), at(103));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn acknowledgement_of_void_deadlines_starts_nothing() {
    let mut machine = holding();
    let actions = machine.on(Event::WatchFailed(lost("gone")), at(6));
    assert!(actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let _ = machine.on(held(7), at(10));
    assert!(!machine.on(Event::Acknowledged(deadlines(0)), at(11)).contains(&Action::Start));
    assert!(machine.on(Event::Acknowledged(deadlines(7)), at(12)).contains(&Action::Start));
}
