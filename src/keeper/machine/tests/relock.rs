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
    assert!(machine.on(Event::Acknowledged, at(6_006)).contains(&Action::Thaw));
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
    assert!(machine.on(Event::Acknowledged, at(14_351)).contains(&Action::Thaw));
}

#[test]
fn what_does_not_stand_still_in_time_is_killed() {
    let mut machine = running();
    machine.rules.on_lost = OnLost::Relock;
    let _ = machine.on(Event::Tick, at(9_250));
    assert!(machine.on(Event::Tick, at(14_250)).contains(&Action::KillTree { overdue: false }));
}

#[test]
fn a_loss_is_followed_by_another_run_as_often_as_allowed() {
    let mut machine = running();
    (machine.rules.on_lost, machine.rules.restarts) = (OnLost::Restart, Some(1));
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(100));
    let actions = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(110));
    assert!(actions.contains(&Action::Forsake) && actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let _ = machine.on(held(111), at(112));
    assert!(machine.on(Event::Acknowledged, at(113)).contains(&Action::Start));
    let _ = machine.on(Event::Started, at(113));
    let _ = machine.on(Event::News(Trouble::Lost("revoked".into())), at(200));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(210));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(220))), Some(Kind::Lost));
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
