//! Renewals, the watch, and the deadlines of a running command.

use super::*;

#[test]
fn repeated_breaks_cause_no_storm_of_renewals() {
    let mut machine = running(OnLost::Kill);
    let _ = machine.on(Event::Tick, at(5_000));
    let mut begun = 0;
    for ms in 5_001..6_000 {
        let event = if ms % 2 == 0 { Event::Tick } else { Event::Renewed(Err(broken())) };
        let actions = machine.on(event, at(ms));
        begun += actions.iter().filter(|action| **action == Action::Begin(Request::Renew)).count();
    }
    assert!(begun < 20, "{begun} renewals in a second");
}

#[test]
fn soft_signal_and_kill_follow_their_deadlines() {
    let mut machine = running(OnLost::Kill);
    assert!(!machine.on(Event::Tick, at(9_249)).contains(&Action::TerminateTree));
    assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::TerminateTree));
    assert!(!kills(&machine.on(Event::Tick, at(14_249))));
    assert!(kills(&machine.on(Event::Tick, at(14_250))));
    let _ = machine.on(killed(), at(14_260));
    let actions = machine.on(Event::Released(Ok(())), at(14_300));
    assert_eq!(failure_kind(&actions), Some(Kind::Lost));
}

#[test]
fn renewal_after_the_soft_deadline_moves_nothing() {
    let mut machine = running(OnLost::Kill);
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Tick, at(9_250));
    let actions = machine.on(Event::Renewed(Ok(at(9_000))), at(9_300));
    assert!(!offers_deadlines(&actions), "{actions:?}");
    assert!(kills(&machine.on(Event::Tick, at(14_250))));
}

#[test]
fn known_loss_kills_without_grace() {
    let mut machine = running(OnLost::Kill);
    let actions = machine.on(Event::WatchFailed(lost("revoked")), at(100));
    assert!(kills(&actions), "{actions:?}");
    assert!(!actions.contains(&Action::TerminateTree), "no time for a soft signal: {actions:?}");
}

#[test]
fn known_loss_ends_the_grace() {
    // The texts of the causes must not decide the precedence.
    for cause in ["a", "z"] {
        let mut machine = running(OnLost::Kill);
        assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::TerminateTree));
        let actions = machine.on(Event::WatchFailed(lost(cause)), at(9_300));
        assert!(kills(&actions), "{cause}: {actions:?}");
    }
}

#[test]
fn failed_watch_is_no_loss() {
    let mut machine = running(OnLost::Kill);
    for n in 0..20 {
        let actions = machine.on(Event::WatchFailed(no_answer()), at(100 + n * 50));
        assert!(
            !actions.iter().any(|action| matches!(action, Action::KillTree { .. } | Action::TerminateTree)),
            "{actions:?}"
        );
        let _ = machine.on(Event::Tick, at(140 + n * 50));
    }
}

#[test]
fn broken_lock_grants_the_grace() {
    let mut machine = running(OnLost::Kill);
    let actions = machine.on(Event::WatchFailed(broken()), at(100));
    assert!(actions.contains(&Action::TerminateTree), "{actions:?}");
    assert!(kills(&machine.on(Event::Tick, at(5_100))));
}

#[test]
fn deadlines_count_from_the_last_renewal() {
    let mut machine = waiting(plan());
    for sent_at in [5_000, 10_000, 15_000, 20_000] {
        assert!(machine.on(Event::Tick, at(sent_at)).contains(&Action::Begin(Request::Renew)));
        let _ = machine.on(Event::Renewed(Ok(at(sent_at))), at(sent_at + 5));
    }
    let actions = machine.on(Event::WaitReturned(Ok(holds(9))), at(22_000));
    assert!(actions.contains(&Action::Send(FromKeeper::Deadlines(deadlines(20_000)))), "{actions:?}");
}

#[test]
fn old_lease_is_renewed_before_the_start() {
    let mut machine = waiting(plan());
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Renewed(Err(no_answer())), at(5_100));
    let actions = machine.on(Event::WaitReturned(Ok(holds(9))), at(8_000));
    assert!(!actions.contains(&Action::Start) && !offers_deadlines(&actions), "{actions:?}");
    let actions = machine.on(Event::Renewed(Ok(at(8_000))), at(8_010));
    assert!(actions.contains(&Action::Send(FromKeeper::Deadlines(deadlines(8_000)))), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest_deadlines()), at(8_011)).contains(&Action::Start));
}

#[test]
fn pausing_wait_restarts_on_the_next_endpoint() {
    let mut machine = entering(plan());
    let mut waits = machine.on(queued(0), at(10)).contains(&Action::Begin(Request::Wait));
    // A wait that fails repeatedly is sent again after pauses. Meanwhile the renewal in flight gets no answer.
    let mut now = 4000;
    loop {
        now += 1;
        assert!(now < 10_000);
        let actions = machine.on(if waits { Event::WaitReturned(Err(no_answer())) } else { Event::Tick }, at(now));
        waits = actions.contains(&Action::Begin(Request::Wait));
        if actions.contains(&Action::NextEndpoint(Request::Renew)) {
            break;
        }
    }
    assert!(!waits, "the wait pauses");
    let actions = machine.on(Event::TimedOut(Request::Renew, "http://server".into()), at(now));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
}
