//! `--on-lost restart` and `--on-lost relock`.

use super::*;

/// Creates a machine whose command is frozen because its lease was revoked at 100.
fn frozen() -> Machine {
    let mut machine = running(OnLost::Relock);
    let actions = machine.on(Event::WatchFailed(lost("revoked")), at(100));
    assert!(actions.contains(&Action::Freeze) && actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let actions = machine.on(Event::Frozen, at(105));
    assert!(actions.contains(&Action::Send(FromKeeper::Notice(Notice::Relock(Step::Frozen)))), "{actions:?}");
    machine
}

/// Creates a machine whose command is frozen because no renewal was confirmed before the soft deadline.
fn frozen_at_soft_deadline() -> Machine {
    let mut machine = running(OnLost::Relock);
    let _ = machine.on(Event::Tick, at(5_000));
    let actions = machine.on(Event::Tick, at(9_250));
    assert!(actions.contains(&Action::Freeze) && !actions.contains(&Action::TerminateTree), "{actions:?}");
    let _ = machine.on(Event::Frozen, at(9_255));
    machine
}

/// Creates a machine whose lock was lost at 100 and whose tree was empty at 110.
fn lost_once(restarts: Option<u32>, wait: Option<Duration>) -> Machine {
    let mut machine = running(OnLost::Restart);
    (machine.plan.restarts, machine.plan.wait) = (restarts, wait);
    let _ = machine.on(Event::WatchFailed(lost("revoked")), at(100));
    let actions = machine.on(killed(), at(110));
    assert!(
        actions.contains(&Action::AbandonContender) && !actions.contains(&Action::Begin(Request::Enter)),
        "{actions:?}"
    );
    machine
}

#[test]
fn new_lease_without_the_lock_thaws_nothing() {
    let mut machine = frozen();
    let delayed = Position::Queued(Queue { lock_delay: true, ..Queue::default() });
    let actions = machine.on(entered(106, delayed), at(110));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
    assert!(machine.on(Event::Tick, at(5_106)).contains(&Action::Begin(Request::Renew)));
    let actions = machine.on(Event::Renewed(Ok(at(5_106))), at(5_110));
    assert!(!offers_deadlines(&actions), "the lock is not held: {actions:?}");
    let actions = machine.on(Event::WaitReturned(Ok(holds(9))), at(6_000));
    assert!(actions.contains(&Action::Begin(Request::VerifyContinuity)) && !offers_deadlines(&actions), "{actions:?}");
    let actions = machine.on(Event::ContinuityVerified(Ok(true)), at(6_005));
    assert!(offers_deadlines(&actions), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(6_006)).contains(&Action::Thaw));
}

#[test]
fn timed_out_continuity_check_is_retried() {
    let mut machine = frozen();
    let granted = machine.on(entered(106, holds(9)), at(110));
    assert!(granted.contains(&Action::Begin(Request::VerifyContinuity)), "{granted:?}");
    let timed_out = machine.on(Event::Tick, at(3_110));
    assert!(timed_out.contains(&Action::Abandon(Request::VerifyContinuity)), "{timed_out:?}");
    let retried = machine.on(Event::TimedOut(Request::VerifyContinuity, "http://a".into()), at(3_110));
    assert!(retried.contains(&Action::Begin(Request::VerifyContinuity)), "{retried:?}");
    let _ = machine.on(Event::Renewed(Ok(at(3_110))), at(3_112));
    let verified = machine.on(Event::ContinuityVerified(Ok(true)), at(3_115));
    assert!(offers_deadlines(&verified), "{verified:?}");
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(3_116)).contains(&Action::Thaw));
}

/// The window of the default terms is 9.25 s; half of it is over 4,625 ms after `sent_at`.
#[test]
fn thaw_needs_half_of_the_renewal_window() {
    for (acknowledged_at, thaws) in [(4_731, true), (4_732, false)] {
        let mut machine = frozen();
        let _ = machine.on(entered(106, holds(9)), at(110));
        let verified = machine.on(Event::ContinuityVerified(Ok(true)), at(115));
        assert!(offers_deadlines(&verified), "{verified:?}");
        let actions = machine.on(Event::Acknowledged(newest_deadlines()), at(acknowledged_at));
        assert_eq!(actions.contains(&Action::Thaw), thaws, "{acknowledged_at}: {actions:?}");
    }
}

#[test]
fn thaw_is_offered_only_with_half_of_the_renewal_window() {
    for (verified_at, offered) in [(4_731, true), (4_732, false)] {
        let mut machine = frozen();
        let _ = machine.on(entered(106, holds(9)), at(4_730));
        let actions = machine.on(Event::ContinuityVerified(Ok(true)), at(verified_at));
        assert_eq!(offers_deadlines(&actions), offered, "{verified_at}: {actions:?}");
    }
}

#[test]
fn tree_that_is_being_killed_is_never_thawed() {
    let mut machine = frozen();
    let _ = machine.on(entered(106, holds(9)), at(110));
    let verified = machine.on(Event::ContinuityVerified(Ok(true)), at(115));
    assert!(offers_deadlines(&verified), "{verified:?}");
    let _ = machine.on(Event::Kill, at(120));
    let acknowledged = machine.on(Event::Acknowledged(newest_deadlines()), at(121));
    assert!(!acknowledged.contains(&Action::Thaw), "{acknowledged:?}");
}

/// The soft signal would wake it.
#[test]
fn frozen_tree_gets_kill_without_the_soft_signal() {
    let mut machine = frozen_at_soft_deadline();
    let broken = machine.on(Event::WatchFailed(Trouble::Broken("op".into())), at(9_300));
    assert!(broken.contains(&Action::KillTree { overdue: false }), "{broken:?}");
    assert!(!broken.contains(&Action::TerminateTree), "{broken:?}");
}

#[test]
fn answers_to_abandoned_continuity_checks_are_ignored() {
    for answer in [Err(no_answer()), Err(lost("gone")), Ok(false), Ok(true)] {
        let mut machine = frozen();
        let _ = machine.on(entered(106, holds(9)), at(110));
        let again = machine.on(Event::WatchFailed(lost("revoked again")), at(120));
        assert!(again.contains(&Action::Abandon(Request::VerifyContinuity)), "{again:?}");
        assert_eq!(machine.on(Event::ContinuityVerified(answer.clone()), at(121)), [], "{answer:?}");
    }
}

#[test]
fn continuity_is_not_reported_while_the_tree_is_killed() {
    let mut machine = frozen();
    let _ = machine.on(entered(106, holds(9)), at(110));
    let _ = machine.on(Event::Kill, at(120));
    let late = machine.on(Event::ContinuityVerified(Ok(true)), at(121));
    assert!(!offers_deadlines(&late) && !late.iter().any(is_relocked), "{late:?}");
}

fn is_relocked(action: &Action) -> bool {
    matches!(action, Action::Send(FromKeeper::Notice(Notice::Relock(Step::Relocked { .. }))))
}

#[test]
fn free_lock_without_contenders_ahead_is_waited_for() {
    let mut machine = frozen();
    let first = Position::Queued(Queue { ahead: Some(0), ..Queue::default() });
    let actions = machine.on(entered(106, first), at(110));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
}

#[test]
fn other_holder_in_between_kills_the_frozen_tree() {
    for answers in [vec![held(106), Event::ContinuityVerified(Ok(false))], vec![queued(106)]] {
        let mut machine = frozen();
        let actions: Vec<Action> = answers.into_iter().flat_map(|event| machine.on(event, at(110))).collect();
        assert!(kills(&actions) && !actions.contains(&Action::Thaw), "{actions:?}");
    }
}

#[test]
fn late_renewal_thaws_the_tree() {
    let mut machine = frozen_at_soft_deadline();
    // The kill deadline is void while the tree is stopped.
    assert!(!kills(&machine.on(Event::Tick, at(14_300))));
    let actions = machine.on(Event::Renewed(Ok(at(14_000))), at(14_350));
    assert!(offers_deadlines(&actions), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(14_351)).contains(&Action::Thaw));
}

#[test]
fn tree_that_does_not_stop_is_killed_at_the_deadline() {
    let mut machine = running(OnLost::Relock);
    let _ = machine.on(Event::Tick, at(9_250));
    assert!(kills(&machine.on(Event::Tick, at(14_250))));
}

#[test]
fn known_loss_shortens_the_time_to_stop() {
    let mut machine = running(OnLost::Relock);
    assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::Freeze));
    let _ = machine.on(Event::WatchFailed(lost("revoked")), at(9_300));
    let actions = machine.on(Event::Tick, at(9_800));
    assert!(kills(&actions), "{actions:?}");
}

#[test]
fn each_renewal_offers_new_deadlines_for_the_thaw() {
    let mut machine = frozen_at_soft_deadline();
    for sent_at in [9_300, 14_300, 19_300] {
        let actions = machine.on(Event::Renewed(Ok(at(sent_at))), at(sent_at + 10));
        assert!(actions.contains(&Action::Send(FromKeeper::Deadlines(deadlines(sent_at)))), "{actions:?}");
    }
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(19_320)).contains(&Action::Thaw));
}

#[test]
fn loss_voids_offered_deadlines() {
    let mut machine = frozen_at_soft_deadline();
    assert!(offers_deadlines(&machine.on(Event::Renewed(Ok(at(9_300))), at(9_310))));
    let actions = machine.on(Event::WatchFailed(lost("revoked")), at(9_311));
    assert!(actions.contains(&Action::Send(FromKeeper::Notice(Notice::Relock(Step::Frozen)))), "{actions:?}");
    assert!(!machine.on(Event::Acknowledged(newest_deadlines()), at(9_312)).contains(&Action::Thaw));
}

#[test]
fn short_lease_kills_the_frozen_tree_before_the_release() {
    let mut machine = frozen();
    let short = Granted { sent_at: at(106), cover: Some(Duration::from_secs(1)) };
    let actions = machine.on(Event::Entered(Ok((short, holds(9)))), at(110));
    assert!(kills(&actions), "{actions:?}");
    assert!(!actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn death_while_frozen_is_a_loss() {
    for empty in [true, false] {
        let mut machine = frozen();
        let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty }, at(120));
        let _ = machine.on(Event::Reaped { command: None, empty: true }, at(121));
        assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(130))), Some(Kind::Lost), "empty: {empty}");
    }
}

#[test]
fn unverified_tokens_do_not_count_as_the_last_run() {
    let mut machine = frozen();
    let _ = machine.on(entered(106, holds(9)), at(110));
    assert_eq!(machine.last_run_token(), 7);
    let _ = machine.on(Event::WatchFailed(lost("revoked")), at(120));
    let _ = machine.on(entered(126, holds(11)), at(130));
    assert_eq!(machine.last_run_token(), 7);
    let _ = machine.on(Event::ContinuityVerified(Ok(true)), at(140));
    assert_eq!(machine.last_run_token(), 11);
}

#[test]
fn loss_restarts_as_often_as_allowed() {
    let mut machine = lost_once(Some(1), None);
    // The lock was held for less than its cover, so a pause comes first.
    assert_eq!(machine.wake(), Some(at(210)));
    assert_eq!(machine.on(Event::Tick, at(210)), [Action::Begin(Request::Enter)]);
    let _ = machine.on(held(211), at(212));
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(213)).contains(&Action::Start));
    let _ = machine.on(Event::Started, at(213));
    let _ = machine.on(Event::WatchFailed(lost("revoked")), at(300));
    let _ = machine.on(killed(), at(310));
    let actions = machine.on(Event::Released(Ok(())), at(320));
    let Some(Verdict::Failed(failure)) = verdict(&actions) else { panic!("{actions:?}") };
    assert_eq!((failure.kind, failure.causes.last()), (Kind::Lost, Some(&"lost again after 1 restart".to_owned())));
}

#[test]
fn restart_pause_is_not_part_of_the_wait() {
    let mut machine = lost_once(None, Some(Duration::ZERO));
    assert_eq!(verdict(&machine.on(Event::Tick, at(200))), None);
}

#[test]
fn signal_ends_the_restart_pause() {
    let mut machine = lost_once(None, Some(Duration::ZERO));
    let actions = machine.on(Event::Signal(Signal::SIGTERM), at(200));
    assert_eq!(failure_kind(&actions), Some(Kind::Lost));
}

#[test]
fn restart_pauses_grow_up_to_the_cover_and_reset() {
    let mut restarts = crate::keeper::restarts::Restarts::default();
    let mut lose = |after: Duration| {
        restarts.lock_acquired(TTL, at(0));
        restarts.next_pause(at(0) + after).as_millis()
    };
    let soon = Duration::from_millis(40);
    let pauses: Vec<_> = (0..10).map(|_| lose(soon)).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000]);
    assert_eq!((lose(TTL), lose(soon), lose(soon)), (0, 100, 200));
}

#[test]
fn signal_in_the_wait_after_a_loss_is_a_loss() {
    let mut machine = lost_once(None, None);
    let _ = machine.on(Event::Tick, at(210));
    let _ = machine.on(queued(211), at(212));
    let _ = machine.on(Event::Signal(Signal::SIGTERM), at(300));
    assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(310))), Some(Kind::Lost));
}

#[test]
fn expired_wait_after_a_loss_is_a_loss() {
    let mut machine = lost_once(None, Some(Duration::from_secs(1)));
    let _ = machine.on(Event::Tick, at(210));
    let _ = machine.on(queued(211), at(212));
    let _ = machine.on(Event::Tick, at(1_210));
    assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(1_211))), Some(Kind::Lost));
}
