//! The kill deadline: kept without the keeper, moved by its messages, and respected under any order of events.

use proptest::prelude::*;

use super::*;

#[test]
fn deadline_kills_the_tree_and_a_silent_keeper() {
    let mut machine = running(Group::Own);
    assert_eq!(machine.wake(), Some(at(10_000)));
    assert_eq!(machine.on(Event::Tick, at(10_000)), [Action::KillTree]);
    assert_eq!(machine.on(Event::Tick, at(10_249)), [Action::KillTree]);
    assert!(machine.on(Event::Tick, at(10_252)).contains(&Action::KillAll));
    assert_eq!(machine.on(Event::KeeperExited, at(10_255)), [Action::KillAll]);
    let actions = machine.on(Event::TreeEmpty, at(10_260));
    assert_eq!(failure_kind(&actions), Some(Kind::Lost));
    assert!(format!("{actions:?}").contains("did not respond"), "{actions:?}");
}

#[test]
fn reporting_keeper_survives_the_deadline() {
    let mut machine = running(Group::Own);
    let _ = machine.on(Event::Tick, at(10_000));
    for ms in (10_100..12_000).step_by(100) {
        let report = if ms < 10_500 { FromKeeper::Killing } else { FromKeeper::Notice(Notice::Stuck(Vec::new())) };
        let actions = machine.on(Event::Message(report), at(ms));
        assert!(!actions.contains(&Action::KillAll), "{actions:?} at {ms}");
    }
    let _ = machine.on(done(0), at(12_000));
    assert_eq!(machine.on(Event::KeeperExited, at(12_001)), [Action::Finish(Verdict::Exited(0))]);
}

#[test]
fn unread_deadlines_count_before_an_expired_one() {
    let mut machine = running(Group::Own);
    for kill in [20_000, 40_000] {
        assert_eq!(machine.on(deadlines(kill), at(35_000)), []);
    }
    assert_eq!(machine.on(Event::Tick, at(35_000)), []);
    assert_eq!(machine.wake(), Some(at(40_000)));
}

#[test]
fn resumed_supervisor_waits_briefly_for_new_deadlines() {
    let mut machine = running(Group::Shared);
    let _ = machine.on(deadlines(20_000), at(60_000));
    assert_eq!(machine.on(Event::Tick, at(60_000)), []);
    let _ = machine.on(deadlines(65_000), at(60_001));
    assert_eq!(machine.on(Event::Tick, at(60_100)), []);
    assert_eq!(machine.wake(), Some(at(65_000)));

    let mut machine = running(Group::Shared);
    assert_eq!(machine.on(Event::Tick, at(60_000)), []);
    assert_eq!(machine.wake(), Some(at(60_100)), "100 ms at most");
    assert_eq!(machine.on(Event::Tick, at(60_100)), [Action::KillTree]);
}

#[test]
fn loss_before_the_start_voids_the_deadlines() {
    let mut machine = waiting(Group::Own);
    let _ = machine.on(deadlines(10_000), at(0));
    let _ = machine.on(notice(Notice::Rejoining("gone".into())), at(100));
    assert_eq!(machine.wake(), None);
    assert_eq!(machine.on(Event::Tick, at(20_000)), []);
    assert_eq!(machine.on(deadlines(40_000), at(20_001)), [acknowledged(40_000)]);
}

#[test]
fn keeper_that_ignores_a_second_signal_is_killed() {
    let mut machine = running(Group::Own);
    let _ = machine.on(sent(Signal::SIGTERM), at(100));
    assert_eq!(machine.on(sent(Signal::SIGTERM), at(2_000)), [kill_requested()]);
    assert_eq!(machine.wake(), Some(at(2_500)));
    assert!(machine.on(Event::Tick, at(2_500)).contains(&Action::KillAll));
    let _ = machine.on(Event::KeeperExited, at(2_510));
    assert_eq!(failure_kind(&machine.on(Event::TreeEmpty, at(2_520))), Some(Kind::Lost));

    let mut machine = running(Group::Own);
    let _ = machine.on(sent(Signal::SIGTERM), at(100));
    let _ = machine.on(sent(Signal::SIGTERM), at(2_000));
    let _ = machine.on(notice(Notice::Ending("killed".into())), at(2_001));
    assert_eq!(machine.on(Event::Tick, at(2_600)), [], "the keeper has answered");
}

proptest! {
    #[test]
    fn no_order_of_events_outlives_the_kill_deadline(
        events in prop::collection::vec((0..6_u8, 0..700_u64), 1..60)
    ) {
        let (mut machine, mut now, mut kill) = (running(Group::Own), 1, 10_000);
        for (kind, elapsed) in events {
            now += elapsed;
            let event = match kind {
                0 => {
                    kill = kill.max(now + 3_000);
                    deadlines(kill)
                }
                1 => sent(Signal::SIGTERM),
                2 => Event::Message(FromKeeper::Stopped(Signal::SIGSTOP)),
                3 => notice(Notice::Note(String::new())),
                4 => sent(Signal::SIGUSR1),
                _ => Event::Tick,
            };
            let deadline_passed = now >= kill;
            let actions = machine.on(event, at(now));
            let kills = actions.iter().any(|action| matches!(action, Action::KillTree | Action::KillAll));
            let wakes_soon = machine.wake().is_some_and(|wake| wake <= at(now + 100));
            prop_assert!(!deadline_passed || kills || wakes_soon);
            prop_assert!(machine.wake().is_some_and(|wake| wake <= at(kill.max(now + 100))));
        }
    }
}
