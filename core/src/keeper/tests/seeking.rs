//! The search for a lock that ends without one.

use super::*;

#[test]
fn servers_that_answer_and_grant_nothing_are_waited_for_with_a_warning() {
    let full = Trouble::Uncertain {
        answered: true,
        cause: "http://a: mvcc: database space exceeded".into(),
        hint: Some("etcdctl alarm disarm".into()),
    };
    let mut machine = Machine::new(Plan { wait: Some(Duration::from_secs(20)), ..plan() }, at(0));
    let mut actions = machine.on(Event::Tick, at(0));
    let (mut now, mut notes, mut warned) = (0, 0, Vec::new());
    let failure = loop {
        now += 50;
        assert!(now < 26_000);
        notes +=
            actions.iter().filter(|action| matches!(action, Action::Tell(FromKeeper::Notice(Notice::Note(_))))).count();
        let warnings =
            actions.iter().filter(|action| matches!(action, Action::Tell(FromKeeper::Notice(Notice::NotServed(_)))));
        warned.extend(warnings.map(|_| now));
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
    assert_eq!((failure.kind, &*failure.message), (Kind::Unreachable, "no server could grant a lock in 20.0s"));
    assert!(failure.hint.is_some_and(|hint| hint.contains("alarm disarm")));
    assert_eq!(notes, 1, "each cause is told once");
    assert!(matches!(*warned, [10_000..10_200]), "after the connect timeout, once: {warned:?}");
}

#[test]
fn one_that_stood_in_line_waits_on_whatever_the_servers_answer() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let _ = machine.on(Event::WaitReturned(Err(Trouble::Lost("lease expired".into()))), at(50));
    let mut actions = vec![Action::Begin(Request::Enter)];
    for now in 1..600 {
        let begun = actions.contains(&Action::Begin(Request::Enter));
        let event = if begun { Event::Entered(Err(silence())) } else { Event::Tick };
        actions = machine.on(event, at(50 + now * 100));
        assert_eq!(verdict(&actions), None);
    }
}

#[test]
fn a_break_before_the_command_runs_is_the_end_of_it() {
    let broken = || Trouble::Broken("op".into());
    for event in [Event::WaitReturned(Err(broken())), Event::Renewed(Err(broken()))] {
        let mut machine = Machine::new(plan(), at(0));
        let _ = machine.on(Event::Tick, at(0));
        let _ = machine.on(queued(0), at(5));
        let actions = machine.on(event, at(50));
        assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
        assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(60))), Some(Kind::Broken));
    }
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(held(0), at(5));
    let actions = machine.on(Event::WatchFailed(broken()), at(6));
    assert!(actions.contains(&Action::Begin(Request::Release)) && !actions.contains(&Action::Start), "{actions:?}");
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(7))), Some(Kind::Broken));
}
