//! The search for the lock, up to its end without one.

use super::*;

#[test]
fn servers_that_grant_nothing_cause_one_warning() {
    let full = Trouble::Uncertain {
        answered: true,
        cause: "http://a: mvcc: database space exceeded".into(),
        hint: Some("etcdctl alarm disarm".into()),
    };
    let mut machine = Machine::new(Plan { wait: Some(Duration::from_secs(20)), ..plan() }, at(0));
    let mut actions = machine.on(Event::Tick, at(0));
    let (mut now, mut notes, mut warned_at) = (0, 0, Vec::new());
    let failure = loop {
        now += 50;
        assert!(now < 26_000);
        notes +=
            actions.iter().filter(|action| matches!(action, Action::Send(FromKeeper::Notice(Notice::Note(_))))).count();
        let warnings =
            actions.iter().filter(|action| matches!(action, Action::Send(FromKeeper::Notice(Notice::NotServed(_)))));
        warned_at.extend(warnings.map(|_| now));
        let event = match &*actions {
            actions if actions.contains(&Action::Begin(Request::Enter)) => Event::Entered(Err(full.clone())),
            actions if actions.contains(&Action::Begin(Request::Release)) => Event::Released(Ok(())),
            _ => Event::Tick,
        };
        actions = machine.on(event, at(now));
        if let Some(Verdict::Failed(failure)) = verdict(&actions) {
            break failure.clone();
        }
    };
    assert_eq!((failure.kind, &*failure.message), (Kind::Unreachable, "no server could grant the lock within 20s"));
    assert!(failure.hint.is_some_and(|hint| hint.contains("alarm disarm")));
    assert_eq!(notes, 1, "each cause is shown once");
    assert!(matches!(*warned_at, [10_000..10_200]), "after the connect timeout, once: {warned_at:?}");
}

#[test]
fn accepted_contender_waits_without_limit() {
    let mut machine = waiting(plan());
    let _ = machine.on(Event::WaitReturned(Err(lost("lease expired"))), at(50));
    let mut actions = vec![Action::Begin(Request::Enter)];
    for now in 1..600 {
        let begun = actions.contains(&Action::Begin(Request::Enter));
        let event = if begun { Event::Entered(Err(no_answer())) } else { Event::Tick };
        actions = machine.on(event, at(50 + now * 100));
        assert_eq!(verdict(&actions), None);
    }
}

#[test]
fn break_before_the_start_ends_the_job() {
    for event in [Event::WaitReturned(Err(broken())), Event::Renewed(Err(broken()))] {
        let mut machine = waiting(plan());
        let actions = machine.on(event, at(50));
        assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
        assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(60))), Some(Kind::Broken));
    }
    let mut machine = holding();
    let actions = machine.on(Event::WatchFailed(broken()), at(6));
    assert!(actions.contains(&Action::Begin(Request::Release)) && !actions.contains(&Action::Start), "{actions:?}");
    assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(7))), Some(Kind::Broken));
}

#[test]
fn silent_server_is_replaced_and_named() {
    let mut machine = entering(plan());
    let mut now = 0;
    let failure = loop {
        now += 100;
        assert!(now < 20_000);
        let mut actions = machine.on(Event::Tick, at(now));
        for request in [Request::Enter, Request::Release] {
            if actions.contains(&Action::NextEndpoint(request)) {
                assert_eq!(actions[0], Action::Abandon(request));
                actions = machine.on(Event::TimedOut(request, "http://server".into()), at(now));
            }
        }
        if let Some(Verdict::Failed(failure)) = verdict(&actions) {
            break failure.clone();
        }
    };
    // Ten seconds to connect, and one to release what an unanswered request may have created.
    assert_eq!((failure.kind, now), (Kind::Unreachable, 11_000));
    assert_eq!(failure.causes, ["http://server: no answer in time"]);
}

#[test]
fn wait_ends_while_a_needed_renewal_fails() {
    let mut machine = waiting(Plan { wait: Some(Duration::from_secs(9)), ..plan() });
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Renewed(Err(no_answer())), at(5_100));
    let _ = machine.on(Event::WaitReturned(Ok(holds(9))), at(8_000));
    let actions = machine.on(Event::Tick, at(9_000));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
    assert_eq!(failure_kind(&machine.on(Event::Released(Ok(())), at(9_001))), Some(Kind::Busy));
}

#[test]
fn waiter_with_an_expired_lease_enters_again() {
    let mut machine = waiting(plan());
    let actions = machine.on(Event::WaitReturned(Err(lost("lease expired"))), at(50));
    assert!(actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
}

#[test]
fn signal_while_waiting_leaves_the_queue() {
    let mut machine = waiting(plan());
    assert_eq!(machine.on(Event::Signal(Signal::SIGWINCH), at(40)), [], "the terminal was resized");
    let actions = machine.on(Event::Signal(Signal::SIGTERM), at(50));
    assert!(actions.contains(&Action::Abandon(Request::Wait)) && actions.contains(&Action::Begin(Request::Release)));
    let actions = machine.on(Event::Released(Ok(())), at(60));
    assert_eq!(failure_kind(&actions), Some(Kind::Interrupted(Signal::SIGTERM)));
}

#[test]
fn limited_wait_ends_busy() {
    for (wait, message) in [
        (Duration::ZERO, "/x not acquired: held by another client"),
        (Duration::from_secs(1), "/x not acquired within 1s: held by another client"),
    ] {
        let mut machine = entering(Plan { wait: Some(wait), ..plan() });
        let mut actions = machine.on(queued(0), at(5));
        if !wait.is_zero() {
            actions = machine.on(Event::Tick, at(1_000));
        }
        assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
        let actions = machine.on(Event::Released(Ok(())), at(1_001));
        let Some(Verdict::Failed(failure)) = verdict(&actions) else { panic!("{actions:?}") };
        assert_eq!((failure.kind, &*failure.message), (Kind::Busy, message));
    }
}

#[test]
fn unreachable_server_ends_after_the_connect_timeout() {
    let mut machine = Machine::new(plan(), at(0));
    let mut actions = machine.on(Event::Tick, at(0));
    let mut now = 0;
    while verdict(&actions).is_none() {
        now += 50;
        let event = match &*actions {
            actions if actions.contains(&Action::Begin(Request::Enter)) => Event::Entered(Err(no_answer())),
            // A server may have handled a request without answering.
            actions if actions.contains(&Action::Begin(Request::Release)) => Event::Released(Err(no_answer())),
            _ => Event::Tick,
        };
        actions = machine.on(event, at(now));
        assert!(now < 11_000);
    }
    assert_eq!(failure_kind(&actions), Some(Kind::Unreachable));
    assert!(now >= 10_000);
}

#[test]
fn answers_after_the_end_of_the_search_are_ignored() {
    let answers = [
        Event::Entered(Err(no_answer())),
        Event::Entered(Err(lost("gone"))),
        Event::TimedOut(Request::Enter, "http://a".into()),
    ];
    for answer in answers {
        let mut machine = Machine::new(Plan { wait: Some(Duration::from_secs(1)), ..plan() }, at(0));
        let _ = machine.on(Event::Tick, at(0));
        let actions = machine.on(answer, at(1_000));
        assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
        assert!(!actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    }
}

#[test]
fn lease_of_a_lost_position_is_not_renewed_again() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let rejoined = machine.on(Event::WaitReturned(Err(lost("gone"))), at(50));
    assert!(rejoined.contains(&Action::Begin(Request::Enter)), "{rejoined:?}");
    let renewal_due = machine.on(Event::Tick, at(14_000));
    assert!(!renewal_due.contains(&Action::Begin(Request::Renew)), "{renewal_due:?}");
}
