//! Machines, events and questions that the tests share.

mod command;
mod promise;
mod recovery;
mod renewal;
mod seeking;

use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::error::{Failure, Kind};
use crate::lease::{Deadlines, Terms};
use crate::messages::{FromKeeper, Step, Verdict};
use crate::outcome::{Granted, Position, Queue, Trouble};
use crate::plan::{Leftover, OnLost, Plan};
use crate::signal::Signal;

const TTL: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(5);

fn plan() -> Plan {
    Plan {
        name: "/x".into(),
        endpoints_origin: "--endpoints".into(),
        time_zone: || TimeZone::UTC,
        grace: GRACE,
        wait: None,
        connect_timeout: Duration::from_secs(10),
        leftover: Leftover::Kill,
        on_lost: OnLost::Kill,
        restarts: None,
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_boot(Duration::from_millis(1_000_000 + ms))
}

fn deadlines(sent_at: u64) -> Deadlines {
    Terms { cover: TTL, grace: GRACE }.deadlines(at(sent_at))
}

/// Deadlines that acknowledge every offer in these tests.
fn newest_deadlines() -> Deadlines {
    deadlines(10_000_000)
}

fn entered(sent_at: u64, position: Position) -> Event {
    Event::Entered(Ok((Granted { sent_at: at(sent_at), cover: Some(TTL) }, position)))
}

fn holds(token: u64) -> Position {
    Position::Held { token, key: "/x/1".into() }
}

fn held(sent_at: u64) -> Event {
    entered(sent_at, holds(7))
}

fn queued(sent_at: u64) -> Event {
    entered(sent_at, Position::Queued(Queue::default()))
}

fn no_answer() -> Trouble {
    Trouble::no_answer("no answer")
}

fn lost(cause: &str) -> Trouble {
    Trouble::Lost(cause.into())
}

fn broken() -> Trouble {
    Trouble::Broken("op".into())
}

fn exited(code: i32, empty: bool) -> Event {
    Event::Reaped { command: Some(Verdict::Exited(code)), empty }
}

fn killed() -> Event {
    Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }
}

/// Creates a machine that has begun to enter the queue.
fn entering(plan: Plan) -> Machine {
    let mut machine = Machine::new(plan, at(0));
    assert_eq!(machine.on(Event::Tick, at(0)), [Action::Begin(Request::Enter)]);
    machine
}

/// Creates a machine that waits in the queue since 5.
fn waiting(plan: Plan) -> Machine {
    let mut machine = entering(plan);
    assert!(machine.on(queued(0), at(5)).contains(&Action::Begin(Request::Wait)));
    machine
}

/// Creates a machine that holds the lock since 5; its deadlines are not acknowledged yet.
fn holding() -> Machine {
    let mut machine = entering(plan());
    let actions = machine.on(held(0), at(5));
    assert!(actions.contains(&Action::Send(FromKeeper::Deadlines(deadlines(0)))), "{actions:?}");
    assert!(!actions.contains(&Action::Start), "the supervisor does not know the deadlines yet: {actions:?}");
    machine
}

/// Creates a machine whose command runs since 12, under a lease granted at 0.
fn running(on_lost: OnLost) -> Machine {
    let mut machine = holding();
    machine.plan.on_lost = on_lost;
    assert_eq!(machine.on(Event::Acknowledged(newest_deadlines()), at(11)), [Action::Start]);
    assert_eq!(machine.on(Event::Started, at(12)), [Action::Send(FromKeeper::Notice(Notice::Started))]);
    machine
}

fn verdict(actions: &[Action]) -> Option<&Verdict> {
    actions.iter().find_map(|action| match action {
        Action::Finish(verdict) => Some(verdict),
        _ => None,
    })
}

fn failure_kind(actions: &[Action]) -> Option<Kind> {
    match verdict(actions)? {
        Verdict::Failed(failure) => Some(failure.kind),
        _ => None,
    }
}

fn offers_deadlines(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Send(FromKeeper::Deadlines(_))))
}

fn kills(actions: &[Action]) -> bool {
    actions.contains(&Action::KillTree { overdue: false })
}

fn without_notes(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Action::Send(FromKeeper::Notice(Notice::Note(_))))).collect()
}
