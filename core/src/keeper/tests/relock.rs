//! `--on-lost restart` and `--on-lost relock`.

use super::*;

/// A machine whose command is frozen, since its lease was revoked at 100.
fn frozen() -> Machine {
    let mut machine = running();
    machine.plan.on_lost = OnLost::Relock;
    let actions = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(100));
    assert!(actions.contains(&Action::Freeze) && actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let actions = machine.on(Event::Frozen, at(105));
    assert!(actions.contains(&Action::Tell(FromKeeper::Notice(Notice::Relock(Step::Frozen)))), "{actions:?}");
    machine
}

fn offered(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Tell(FromKeeper::Deadlines(_))))
}

#[test]
fn a_new_lease_alone_thaws_nothing() {
    let mut machine = frozen();
    let delayed = Position::Queued(Queue { lock_delay: true, ..Queue::default() });
    let granted = Granted { sent_at: at(106), cover: Some(TTL) };
    let actions = machine.on(Event::Entered(Ok((granted, delayed))), at(110));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
    assert!(machine.on(Event::Tick, at(5_106)).contains(&Action::Begin(Request::Renew)));
    let actions = machine.on(Event::Renewed(Ok(at(5_106))), at(5_110));
    assert!(!offered(&actions), "the lock is not held: {actions:?}");
    let actions = machine.on(Event::WaitReturned(Ok(Position::Held { token: 9, key: String::new() })), at(6_000));
    assert!(actions.contains(&Action::Begin(Request::VerifyContinuity)) && !offered(&actions), "{actions:?}");
    let actions = machine.on(Event::ContinuityVerified(Ok(true)), at(6_005));
    assert!(offered(&actions), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest()), at(6_006)).contains(&Action::Thaw));
}

#[test]
fn a_lock_that_nobody_holds_and_nobody_waits_for_before_us_is_not_somebody_else_s() {
    let mut machine = frozen();
    let first = Position::Queued(Queue { ahead: Some(0), ..Queue::default() });
    let granted = Granted { sent_at: at(106), cover: Some(TTL) };
    let actions = machine.on(Event::Entered(Ok((granted, first))), at(110));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
}

#[test]
fn somebody_in_between_kills_what_is_frozen() {
    for answers in [vec![held(106), Event::ContinuityVerified(Ok(false))], vec![queued(106)]] {
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
    machine.plan.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(5_000));
    let actions = machine.on(Event::Tick, at(9_250));
    assert!(actions.contains(&Action::Freeze) && !actions.contains(&Action::EndTree), "{actions:?}");
    let _ = machine.on(Event::Frozen, at(9_255));
    // The supervisor's deadline is void by now, and so is this one.
    assert!(!machine.on(Event::Tick, at(14_300)).contains(&Action::KillTree { overdue: false }));
    let actions = machine.on(Event::Renewed(Ok(at(14_000))), at(14_350));
    assert!(offered(&actions), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest()), at(14_351)).contains(&Action::Thaw));
}

#[test]
fn what_does_not_stand_still_in_time_is_killed() {
    let mut machine = running();
    machine.plan.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    assert!(machine.on(Event::Tick, at(14_250)).contains(&Action::KillTree { overdue: false }));
}

#[test]
fn what_is_known_lost_has_no_grace_to_stand_still_in() {
    let mut machine = running();
    machine.plan.on_lost = OnLost::Relock;
    assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::Freeze));
    let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(9_300));
    let actions = machine.on(Event::Tick, at(9_800));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
}

#[test]
fn a_supervisor_that_is_stopped_finds_the_newest_deadlines_of_an_offer() {
    let mut machine = running();
    machine.plan.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    let _ = machine.on(Event::Frozen, at(9_255));
    for s in [9_300, 14_300, 19_300] {
        let actions = machine.on(Event::Renewed(Ok(at(s))), at(s + 10));
        assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(s)))), "{actions:?}");
    }
    assert!(machine.on(Event::Acknowledged(newest()), at(19_320)).contains(&Action::Thaw));
}

#[test]
fn deadlines_that_were_offered_are_void_once_the_lease_is_lost() {
    let mut machine = running();
    machine.plan.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    let _ = machine.on(Event::Frozen, at(9_255));
    assert!(offered(&machine.on(Event::Renewed(Ok(at(9_300))), at(9_310))));
    let actions = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(9_311));
    assert!(actions.contains(&Action::Tell(FromKeeper::Notice(Notice::Relock(Step::Frozen)))), "{actions:?}");
    assert!(!machine.on(Event::Acknowledged(newest()), at(9_312)).contains(&Action::Thaw));
}

#[test]
fn terms_without_room_end_what_is_frozen_before_the_lock_is_given_up() {
    let mut machine = frozen();
    let short = Granted { sent_at: at(106), cover: Some(Duration::from_secs(1)) };
    let place = Position::Held { token: 9, key: String::new() };
    let actions = machine.on(Event::Entered(Ok((short, place))), at(110));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
    assert!(!actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn a_command_that_dies_while_it_is_frozen_was_lost_whatever_it_left_behind() {
    for empty in [true, false] {
        let mut machine = frozen();
        let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty }, at(120));
        let _ = machine.on(Event::Reaped { command: None, empty: true }, at(121));
        assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(130))), Some(Kind::Lost), "empty: {empty}");
    }
}

#[test]
fn a_loss_is_followed_by_another_run_as_often_as_allowed() {
    let mut machine = running();
    (machine.plan.on_lost, machine.plan.restarts) = (OnLost::Restart, Some(1));
    let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(100));
    let actions = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(110));
    assert!(
        actions.contains(&Action::AbandonContender) && !actions.contains(&Action::Begin(Request::Enter)),
        "{actions:?}"
    );
    // The lock was held for a moment only, so a pause comes first.
    assert_eq!(machine.wake(), Some(at(210)));
    assert_eq!(machine.on(Event::Tick, at(210)), [Action::Begin(Request::Enter)]);
    let _ = machine.on(held(211), at(212));
    assert!(machine.on(Event::Acknowledged(newest()), at(213)).contains(&Action::Start));
    let _ = machine.on(Event::Started, at(213));
    let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(300));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(310));
    let actions = machine.on(Event::Released(Ok(())), at(320));
    let Some(Verdict::Failed(failure)) = verdict(&actions) else { panic!("{actions:?}") };
    assert_eq!(
        (failure.kind, failure.causes.last()),
        (Kind::Lost, Some(&"it was lost again after 1 restart".to_owned()))
    );
}

#[test]
fn the_pause_before_a_restart_is_no_part_of_the_wait_and_can_be_ended() {
    let lost = || {
        let mut machine = running();
        (machine.plan.on_lost, machine.plan.wait) = (OnLost::Restart, Some(Duration::ZERO));
        let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(100));
        let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(110));
        machine
    };
    assert_eq!(verdict(&lost().on(Event::Tick, at(200))), None);
    assert_eq!(kind(&lost().on(Event::Signal(Signal::SIGTERM), at(200))), Some(Kind::Lost));
}

#[test]
fn pauses_grow_up_to_a_ttl_and_begin_anew_after_a_run_that_outlived_one() {
    let mut restarts = crate::keeper::relock::Restarts::default();
    let mut lose = |after: Duration| {
        restarts.held(TTL, at(0));
        restarts.next(at(0) + after).as_millis()
    };
    let soon = Duration::from_millis(40);
    let pauses: Vec<_> = (0..10).map(|_| lose(soon)).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000]);
    assert_eq!((lose(TTL), lose(soon), lose(soon)), (0, 100, 200));
}

#[test]
fn a_signal_that_ends_the_wait_after_a_loss_leaves_it_a_loss() {
    let mut machine = running();
    machine.plan.on_lost = OnLost::Restart;
    let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(100));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(110));
    let _ = machine.on(Event::Tick, at(210));
    let _ = machine.on(queued(211), at(212));
    let _ = machine.on(Event::Signal(Signal::SIGTERM), at(300));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(310))), Some(Kind::Lost));
}

#[test]
fn a_wait_after_a_loss_that_runs_out_is_a_loss() {
    let mut machine = running();
    (machine.plan.on_lost, machine.plan.wait) = (OnLost::Restart, Some(Duration::from_secs(1)));
    let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(100));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(110));
    let _ = machine.on(Event::Tick, at(210));
    let _ = machine.on(queued(211), at(212));
    let _ = machine.on(Event::Tick, at(1_210));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(1_211))), Some(Kind::Lost));
}

#[test]
fn a_lock_that_was_had_again_and_not_proved_is_not_the_one_that_the_command_ran_under() {
    let mut machine = frozen();
    let again = |token, s| {
        let granted = Granted { sent_at: at(s), cover: Some(TTL) };
        Event::Entered(Ok((granted, Position::Held { token, key: String::new() })))
    };
    let _ = machine.on(again(9, 106), at(110));
    assert_eq!(machine.ran_under(), 7);
    let _ = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(120));
    let _ = machine.on(again(11, 126), at(130));
    assert_eq!(machine.ran_under(), 7);
    let _ = machine.on(Event::ContinuityVerified(Ok(true)), at(140));
    assert_eq!(machine.ran_under(), 11);
}
