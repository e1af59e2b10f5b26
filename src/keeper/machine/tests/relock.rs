//! `--on-lost restart` and `--on-lost relock`.

use super::*;

/// A machine whose command is frozen, since its lease was revoked at 100.
fn frozen() -> Machine {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    let actions = machine.on(Event::News(Trouble::Lost("revoked".into())), at(100));
    assert!(actions.contains(&Action::Freeze) && actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let actions = machine.on(Event::Froze, at(105));
    assert!(actions.contains(&Action::Tell(FromKeeper::Relock(Step::Frozen))), "{actions:?}");
    machine
}

fn offered(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Tell(FromKeeper::Deadlines(_))))
}

#[test]
fn a_new_lease_alone_thaws_nothing() {
    let mut machine = frozen();
    let delayed = Place::Queued(Queue { lock_delay: true, ..Queue::default() });
    let granted = Granted { s: at(106), cover: Some(TTL) };
    let actions = machine.on(Event::Entered(Ok((granted, delayed))), at(110));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
    assert!(machine.on(Event::Tick, at(5_106)).contains(&Action::Begin(Request::Renew)));
    let actions = machine.on(Event::Renewed(Ok(at(5_106))), at(5_110));
    assert!(!offered(&actions), "the lock is not held: {actions:?}");
    let actions = machine.on(Event::Moved(Ok(Place::Held { token: 9, key: String::new() })), at(6_000));
    assert!(actions.contains(&Action::Begin(Request::Prove)) && !offered(&actions), "{actions:?}");
    let actions = machine.on(Event::Proved(Ok(true)), at(6_005));
    assert!(offered(&actions), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest()), at(6_006)).contains(&Action::Thaw));
}

#[test]
fn somebody_in_between_kills_what_is_frozen() {
    for answers in [vec![held(106), Event::Proved(Ok(false))], vec![queued(106)]] {
        let mut machine = frozen();
        let actions: Vec<Action> = answers.into_iter().flat_map(|event| machine.on(event, at(110))).collect();
        assert!(
            actions.contains(&Action::KillTree { overdue: false }) && !actions.contains(&Action::Thaw),
            "{actions:?}"
        );
    }
}

#[test]
fn a_lease_that_was_alive_all_the_while_thaws() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(5_000));
    let actions = machine.on(Event::Tick, at(9_250));
    assert!(actions.contains(&Action::Freeze) && !actions.contains(&Action::EndTree), "{actions:?}");
    let _ = machine.on(Event::Froze, at(9_255));
    // The supervisor's deadline is void by now, and so is this one.
    assert!(!machine.on(Event::Tick, at(14_300)).contains(&Action::KillTree { overdue: false }));
    let actions = machine.on(Event::Renewed(Ok(at(14_000))), at(14_350));
    assert!(offered(&actions), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest()), at(14_351)).contains(&Action::Thaw));
}

#[test]
fn what_does_not_stand_still_in_time_is_killed() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    assert!(machine.on(Event::Tick, at(14_250)).contains(&Action::KillTree { overdue: false }));
}

#[test]
fn what_is_known_lost_has_no_grace_to_stand_still_in() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::Freeze));
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(9_300));
    let actions = machine.on(Event::Tick, at(9_800));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
}

#[test]
fn a_supervisor_that_is_stopped_finds_the_newest_deadlines_of_an_offer() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    let _ = machine.on(Event::Froze, at(9_255));
    for s in [9_300, 14_300, 19_300] {
        let actions = machine.on(Event::Renewed(Ok(at(s))), at(s + 10));
        assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(s)))), "{actions:?}");
    }
    assert!(machine.on(Event::Acknowledged(newest()), at(19_320)).contains(&Action::Thaw));
}

#[test]
fn deadlines_that_were_offered_are_void_once_the_lease_is_lost() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    let _ = machine.on(Event::Froze, at(9_255));
    assert!(offered(&machine.on(Event::Renewed(Ok(at(9_300))), at(9_310))));
    let actions = machine.on(Event::News(Trouble::Lost("revoked".into())), at(9_311));
    assert!(actions.contains(&Action::Tell(FromKeeper::Relock(Step::Frozen))), "{actions:?}");
    assert!(!machine.on(Event::Acknowledged(newest()), at(9_312)).contains(&Action::Thaw));
}

#[test]
fn terms_without_room_end_what_is_frozen_before_the_lock_is_given_up() {
    let mut machine = frozen();
    let short = Granted { s: at(106), cover: Some(Duration::from_secs(1)) };
    let place = Place::Held { token: 9, key: String::new() };
    let actions = machine.on(Event::Entered(Ok((short, place))), at(110));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
    assert!(!actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn a_command_that_dies_while_it_is_frozen_was_lost_whatever_it_left_behind() {
    for empty in [true, false] {
        let mut machine = frozen();
        let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty }, at(120));
        let _ = machine.on(Event::Reaped { command: None, empty: true }, at(121));
        assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(130))), Some(Kind::Lost), "empty: {empty}");
    }
}

#[test]
fn a_loss_is_followed_by_another_run_as_often_as_allowed() {
    let mut machine = running();
    (machine.rules.on_lost, machine.rules.restarts) = (OnLost::Restart, Some(1));
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(100));
    let actions = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(110));
    assert!(actions.contains(&Action::Forsake) && actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let _ = machine.on(held(111), at(112));
    assert!(machine.on(Event::Acknowledged(newest()), at(113)).contains(&Action::Start));
    let _ = machine.on(Event::Started, at(113));
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(200));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(210));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(220))), Some(Kind::Lost));
}

#[test]
fn a_signal_that_ends_the_wait_after_a_loss_leaves_it_a_loss() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Restart;
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(100));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(110));
    let _ = machine.on(queued(111), at(112));
    let _ = machine.on(Event::Signal(15), at(200));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(210))), Some(Kind::Lost));
}

#[test]
fn a_wait_after_a_loss_that_runs_out_is_a_loss() {
    let mut machine = running();
    (machine.rules.on_lost, machine.rules.wait) = (OnLost::Restart, Some(Duration::from_secs(1)));
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(100));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(110));
    let _ = machine.on(queued(111), at(112));
    let _ = machine.on(Event::Tick, at(1_110));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(1_111))), Some(Kind::Lost));
}

#[test]
fn a_lock_that_was_had_again_and_not_proved_is_not_the_one_that_the_command_ran_under() {
    let mut machine = frozen();
    let again = |token, s| {
        let granted = Granted { s: at(s), cover: Some(TTL) };
        Event::Entered(Ok((granted, Place::Held { token, key: String::new() })))
    };
    let _ = machine.on(again(9, 106), at(110));
    assert_eq!(machine.ran_under(), 7);
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(120));
    let _ = machine.on(again(11, 126), at(130));
    assert_eq!(machine.ran_under(), 7);
    let _ = machine.on(Event::Proved(Ok(true)), at(140));
    assert_eq!(machine.ran_under(), 11);
}
