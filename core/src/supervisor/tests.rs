//! Machines, events and questions that the tests share.

mod deadlines;
mod keeper;
mod signals;

use std::time::Duration;

use super::*;
use crate::error::Kind;
use crate::lease::Deadlines;
use crate::messages::{FromKeeper, FromSupervisor, Notice, Process, Verdict};
use crate::signal::Signal;

fn at(ms: u64) -> Instant {
    Instant::from_boot(Duration::from_millis(1_000_000 + ms))
}

fn deadlines_with_kill_at(kill: u64) -> Deadlines {
    Deadlines { soft: at(kill - 1_000), kill: at(kill), hard: at(kill + 500) }
}

fn deadlines(kill: u64) -> Event {
    Event::Message(FromKeeper::Deadlines(deadlines_with_kill_at(kill)))
}

fn notice(notice: Notice) -> Event {
    Event::Message(FromKeeper::Notice(notice))
}

fn ended(code: i32) -> Event {
    Event::Message(FromKeeper::Ended(Verdict::Exited(code)))
}

fn done(code: i32) -> Event {
    Event::Message(FromKeeper::Done { verdict: Verdict::Exited(code), lingers: false })
}

fn sent(signal: Signal) -> Event {
    Event::Signal { signal, keyboard: false }
}

fn typed(signal: Signal) -> Event {
    Event::Signal { signal, keyboard: true }
}

fn acknowledged(kill: u64) -> Action {
    Action::Send(FromSupervisor::Acknowledged(deadlines_with_kill_at(kill)))
}

fn forwarded(signal: Signal) -> Action {
    Action::Send(FromSupervisor::Signal(signal))
}

fn group_signal(signal: Signal) -> Action {
    Action::Send(FromSupervisor::GroupSignal(signal))
}

fn kill_requested() -> Action {
    Action::Send(FromSupervisor::Kill)
}

/// Creates a machine whose command does not run.
fn waiting(group: Group) -> Machine {
    Machine::new("/x", group, false, at(0))
}

/// Creates a machine whose command runs, with the kill deadline at 10 000.
fn running(group: Group) -> Machine {
    let mut machine = waiting(group);
    let _ = machine.on(Event::Message(FromKeeper::Lease("1f".into())), at(0));
    assert_eq!(machine.on(deadlines(10_000), at(0)), [acknowledged(10_000)]);
    let actions = machine.on(notice(Notice::Started), at(1));
    assert_eq!(actions, [Action::CloseStreams, Action::Show(Notice::Started)]);
    machine
}

fn failure_kind(actions: &[Action]) -> Option<Kind> {
    match actions.last() {
        Some(Action::Finish(Verdict::Failed(failure))) => Some(failure.kind),
        _ => None,
    }
}
