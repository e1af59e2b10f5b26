//! The keeper: its verdict, its hangs and its death.

use super::*;

#[test]
fn verdict_waits_one_second_for_the_keeper_to_exit() {
    let mut machine = running(Group::Own);
    assert_eq!(machine.on(done(7), at(50)), []);
    assert_eq!(machine.on(Event::KeeperExited, at(51)), [Action::Finish(Verdict::Exited(7))]);

    let mut machine = running(Group::Own);
    let _ = machine.on(done(7), at(50));
    assert_eq!(machine.wake(), Some(at(1_050)));
    assert_eq!(machine.on(Event::Tick, at(1_050)), [Action::KillKeeper, Action::Finish(Verdict::Exited(7))]);
}

#[test]
fn keeper_that_hangs_in_the_release_is_killed() {
    let mut machine = running(Group::Own);
    assert_eq!(machine.on(ended(7), at(50)), []);
    assert_eq!(machine.wake(), Some(at(6_050)));
    assert_eq!(machine.on(Event::Tick, at(6_050)), [Action::KillKeeper]);
    let actions = machine.on(Event::KeeperExited, at(6_051));
    assert_eq!(actions, [Action::Release, Action::Finish(Verdict::Exited(7))]);
}

#[test]
fn keeper_that_hangs_after_a_signal_in_the_queue_is_killed() {
    let mut machine = waiting(Group::Own);
    assert_eq!(machine.on(sent(Signal::SIGINT), at(100)), [forwarded(Signal::SIGINT)]);
    assert_eq!(machine.on(Event::Tick, at(6_100)), [Action::KillKeeper]);
    assert_eq!(machine.on(Event::KeeperExited, at(6_101)), [Action::KillAll]);
    let actions = machine.on(Event::TreeEmpty, at(6_101));
    assert_eq!(failure_kind(&actions), Some(Kind::Interrupted(Signal::SIGINT)));
}

#[test]
fn dead_keeper_kills_the_tree_then_releases_the_lease() {
    let mut machine = running(Group::Own);
    let actions = machine.on(Event::KeeperExited, at(100));
    assert!(actions.contains(&Action::KillAll), "{actions:?}");
    assert!(machine.wake().is_some_and(|wake| wake <= at(102)));
    let actions = machine.on(Event::TreeEmpty, at(103));
    assert_eq!(actions[0], Action::Release);
    assert_eq!(failure_kind(&actions), Some(Kind::Lost));
}

#[test]
fn dead_keeper_in_the_queue_is_a_fault() {
    let mut machine = waiting(Group::Own);
    let _ = machine.on(Event::Message(FromKeeper::Lease("1f".into())), at(0));
    // A precaution: no command may run without an acknowledgement (rule 5).
    assert_eq!(machine.on(Event::KeeperExited, at(100)), [Action::KillAll]);
    // The keeper's pid may belong to another process now.
    assert_eq!(machine.on(sent(Signal::SIGINT), at(100)), []);
    assert!(!machine.on(Event::Tick, at(10_000)).contains(&Action::KillKeeper));
    let actions = machine.on(Event::TreeEmpty, at(101));
    assert_eq!(actions[0], Action::Release);
    assert_eq!(failure_kind(&actions), Some(Kind::Fault));
}

#[test]
fn death_during_the_release_keeps_the_exit_code() {
    let mut machine = running(Group::Own);
    let _ = machine.on(ended(3), at(100));
    assert_eq!(machine.wake(), Some(at(6_100)), "no kill deadline applies to an empty tree");
    let actions = machine.on(Event::KeeperExited, at(101));
    assert_eq!(actions, [Action::Release, Action::Finish(Verdict::Exited(3))]);
}

#[test]
fn lock_without_a_lease_is_acknowledged_too() {
    let mut machine = waiting(Group::Shared);
    let actions = machine.on(notice(Notice::Acquired { token: 1 }), at(10));
    assert!(!actions.iter().any(|action| matches!(action, Action::Send(_))), "{actions:?}");
    let acknowledged = Action::Send(FromSupervisor::Acknowledged(Deadlines::NEVER));
    let never = Event::Message(FromKeeper::Deadlines(Deadlines::NEVER));
    assert_eq!(machine.on(never, at(11)), [acknowledged]);
    let actions = machine.on(typed(Signal::SIGTSTP), at(12));
    assert!(!actions.contains(&Action::StopSelf(Signal::SIGTSTP)), "the command stops first");
}

#[test]
fn stuck_processes_are_shown_once() {
    let mut machine = running(Group::Own);
    let stuck = vec![Process { pid: 7, name: "dd".into() }];
    let mut report = |processes: &[Process]| machine.on(notice(Notice::Stuck(processes.into())), at(10));
    assert_eq!(report(&stuck), [Action::Show(Notice::Stuck(stuck.clone()))]);
    assert_eq!(report(&stuck), []);
    assert_eq!(report(&[]), []);
}

#[test]
fn processes_that_outlive_keeper_and_kill_are_shown() {
    let mut machine = running(Group::Own);
    let _ = machine.on(Event::KeeperExited, at(100));
    assert!(!machine.on(Event::Tick, at(400)).contains(&Action::ShowStuck));
    assert!(machine.on(Event::Tick, at(700)).contains(&Action::ShowStuck));
}
