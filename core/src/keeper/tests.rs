//! Transitions one by one; the search for a lock, the ways back from a loss, and the promise under any order of events have
//! files of their own.

mod promise;
mod relock;
mod seeking;

use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::error::Kind;
use crate::lease::Terms;
use crate::messages::Step;
use crate::plan::{Leftover, OnLost};

const TTL: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(5);

fn plan() -> Plan {
    Plan {
        name: "/x".into(),
        endpoints_source: "--endpoints".into(),
        time_zone: TimeZone::UTC,
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

fn deadlines(s: u64) -> Deadlines {
    Terms { cover: TTL, grace: GRACE }.deadlines(at(s))
}

fn held(s: u64) -> Event {
    let granted = Granted { sent_at: at(s), cover: Some(TTL) };
    Event::Entered(Ok((granted, Position::Held { token: 7, key: "/x/1".into() })))
}

fn queued(s: u64) -> Event {
    let granted = Granted { sent_at: at(s), cover: Some(TTL) };
    Event::Entered(Ok((granted, Position::Queued(Queue::default()))))
}

/// Deadlines as late as any that are offered here.
fn newest() -> Deadlines {
    deadlines(10_000_000)
}

fn silence() -> Trouble {
    Trouble::no_answer("no answer")
}

fn exited(code: i32, empty: bool) -> Event {
    Event::Reaped { command: Some(Verdict::Exited(code)), empty }
}

/// A machine whose command runs, its lease granted at 0.
fn running() -> Machine {
    let mut machine = Machine::new(plan(), at(0));
    assert_eq!(machine.on(Event::Tick, at(0)), [Action::Begin(Request::Enter)]);
    let actions = machine.on(held(0), at(10));
    assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(0)))), "{actions:?}");
    assert!(!actions.contains(&Action::Start), "the supervisor does not know the deadlines yet: {actions:?}");
    assert_eq!(machine.on(Event::Acknowledged(newest()), at(11)), [Action::Start]);
    assert_eq!(machine.on(Event::Started, at(12)), [Action::Tell(FromKeeper::Notice(Notice::Started))]);
    machine
}

fn verdict(actions: &[Action]) -> Option<&Verdict> {
    actions.iter().find_map(|action| match action {
        Action::Finish(verdict) => Some(verdict),
        _ => None,
    })
}

/// What is done, without what is told of it.
fn silent(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Action::Tell(FromKeeper::Notice(Notice::Note(_))))).collect()
}

fn kind(actions: &[Action]) -> Option<Kind> {
    match verdict(actions)? {
        Verdict::Failed(failure) => Some(failure.kind),
        _ => None,
    }
}

#[test]
fn the_command_s_own_status_comes_after_the_release() {
    let mut machine = running();
    let actions = machine.on(exited(7, true), at(100));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
    let actions = machine.on(Event::Released(Ok(())), at(101));
    assert_eq!(verdict(&actions), Some(&Verdict::Exited(7)));
}

#[test]
fn a_release_that_finds_the_lock_gone_is_a_loss() {
    let mut machine = running();
    let _ = machine.on(exited(0, true), at(100));
    let actions = machine.on(Event::Released(Err(Trouble::Lost("gone".into()))), at(101));
    assert_eq!(kind(&actions), Some(Kind::Lost));
}

#[test]
fn a_release_without_an_answer_leaves_the_command_s_status() {
    let mut machine = running();
    let mut actions = machine.on(exited(3, true), at(100));
    let mut now = 100;
    while verdict(&actions).is_none() {
        now += 100;
        let event = if actions.contains(&Action::Begin(Request::Release)) {
            Event::Released(Err(silence()))
        } else {
            Event::Tick
        };
        actions = machine.on(event, at(now));
        assert!(now < 6_000, "a release takes five seconds at most");
    }
    assert_eq!(verdict(&actions), Some(&Verdict::Exited(3)));
}

#[test]
fn leftovers_are_ended_before_the_release() {
    let mut machine = running();
    let actions = machine.on(exited(0, false), at(100));
    assert_eq!(silent(actions), [Action::EndTree]);
    assert_eq!(machine.wake().map(|wake| wake <= at(5_100)), Some(true));
    let actions = machine.on(Event::Tick, at(5_100));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
    let actions = machine.on(Event::Reaped { command: None, empty: true }, at(5_102));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn leftovers_that_are_waited_for_hold_the_lock_until_a_signal_comes() {
    let mut machine = running();
    machine.plan.leftover = Leftover::Wait;
    assert_eq!(silent(machine.on(exited(0, false), at(100))), []);
    assert_eq!(machine.on(Event::Signal(Signal::SIGWINCH), at(150)), []);
    assert_eq!(machine.on(Event::Signal(Signal::SIGTERM), at(200)), [Action::EndTree]);
    let actions = machine.on(Event::Reaped { command: None, empty: true }, at(300));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn a_signal_that_asks_nobody_to_end_ends_neither_a_wait_nor_leftovers() {
    for signal in [Signal::SIGCONT, Signal::SIGWINCH, Signal::SIGUSR1, Signal::SIGTSTP] {
        let mut machine = Machine::new(plan(), at(0));
        let _ = machine.on(Event::Tick, at(0));
        let _ = machine.on(held(0), at(5));
        assert_eq!(machine.on(Event::Signal(signal), at(6)), [], "{signal}");
        let mut machine = running();
        machine.plan.leftover = Leftover::Wait;
        let _ = machine.on(exited(0, false), at(100));
        assert_eq!(machine.on(Event::Signal(signal), at(200)), [], "{signal}");
    }
}

#[test]
fn the_supervisor_is_told_to_watch_no_deadline_of_a_command_that_will_not_run() {
    let told = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Tell(FromKeeper::Ended(_))));
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(held(0), at(5));
    assert!(told(&machine.on(Event::Signal(Signal::SIGTERM), at(6))), "interrupted");
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(held(0), at(5));
    let _ = machine.on(Event::Acknowledged(newest()), at(6));
    let failure = Failure::new(Kind::NotExecutable, "gone");
    assert!(!told(&machine.on(Event::NotStarted(failure), at(7))), "its process has not ended yet");
    assert!(told(&machine.on(Event::Reaped { command: None, empty: true }, at(8))), "not started");
}

#[test]
fn what_was_typed_ends_leftovers_and_nothing_else() {
    let mut machine = running();
    machine.plan.leftover = Leftover::Wait;
    assert_eq!(machine.on(Event::GroupSignal(Signal::SIGINT), at(50)), [], "the command has got it");
    let _ = machine.on(exited(0, false), at(100));
    assert_eq!(machine.on(Event::GroupSignal(Signal::SIGINT), at(200)), [Action::EndTree]);
}

#[test]
fn leftovers_that_are_left_are_named_and_the_lock_released() {
    let mut machine = running();
    machine.plan.leftover = Leftover::Leave;
    let actions = machine.on(exited(0, false), at(100));
    assert!(
        actions.contains(&Action::ReportLeftovers) && actions.contains(&Action::Begin(Request::Release)),
        "{actions:?}"
    );
}

#[test]
fn bad_news_that_repeat_are_no_storm_of_renewals() {
    let mut machine = running();
    let _ = machine.on(Event::Tick, at(5_000));
    let mut begun = 0;
    for ms in 5_001..6_000 {
        let event = if ms % 2 == 0 { Event::Tick } else { Event::Renewed(Err(Trouble::Broken("op".into()))) };
        let actions = machine.on(event, at(ms));
        begun += actions.iter().filter(|action| **action == Action::Begin(Request::Renew)).count();
    }
    assert!(begun < 20, "{begun} renewals in a second");
}

#[test]
fn the_soft_signal_comes_at_the_soft_deadline_and_the_kill_at_its_own() {
    let mut machine = running();
    assert!(machine.on(Event::Tick, at(9_249)).iter().all(|action| *action != Action::EndTree));
    assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::EndTree));
    assert!(!machine.on(Event::Tick, at(14_249)).contains(&Action::KillTree { overdue: false }));
    assert!(machine.on(Event::Tick, at(14_250)).contains(&Action::KillTree { overdue: false }));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(14_260));
    let actions = machine.on(Event::Released(Ok(())), at(14_300));
    assert_eq!(kind(&actions), Some(Kind::Lost));
}

#[test]
fn a_renewal_that_comes_after_the_soft_deadline_moves_nothing() {
    let mut machine = running();
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Tick, at(9_250));
    let actions = machine.on(Event::Renewed(Ok(at(9_000))), at(9_300));
    assert!(actions.iter().all(|action| !matches!(action, Action::Tell(FromKeeper::Deadlines(_)))), "{actions:?}");
    assert!(machine.on(Event::Tick, at(14_250)).contains(&Action::KillTree { overdue: false }));
}

#[test]
fn known_lost_kills_at_once() {
    let mut machine = running();
    let actions = machine.on(Event::WatchFailed(Trouble::Lost("revoked".into())), at(100));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
    assert!(!actions.contains(&Action::EndTree), "no time for a soft signal: {actions:?}");
}

#[test]
fn what_is_known_lost_is_killed_although_the_grace_runs() {
    // Whatever the words: they have no order.
    for cause in ["a", "z"] {
        let mut machine = running();
        assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::EndTree));
        let actions = machine.on(Event::WatchFailed(Trouble::Lost(cause.into())), at(9_300));
        assert!(actions.contains(&Action::KillTree { overdue: false }), "{cause}: {actions:?}");
    }
}

#[test]
fn a_second_signal_kills_although_the_grace_runs() {
    let mut machine = running();
    let _ = machine.on(Event::WatchFailed(Trouble::Broken("op".into())), at(100));
    assert!(machine.on(Event::Kill, at(1_500)).contains(&Action::KillTree { overdue: false }));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(1_502));
    let actions = machine.on(Event::Released(Ok(())), at(1_510));
    assert!(matches!(verdict(&actions), Some(Verdict::Failed(failure)) if failure.message.contains("broken")));
}

#[test]
fn a_silent_server_is_left_and_named() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let mut now = 0;
    let failure = loop {
        now += 100;
        assert!(now < 20_000);
        let mut actions = machine.on(Event::Tick, at(now));
        for request in [Request::Enter, Request::Release] {
            if actions.contains(&Action::NextEndpoint(request)) {
                assert_eq!(actions[0], Action::Abandon(request));
                actions = machine.on(Event::Silent(request, "http://server".into()), at(now));
            }
        }
        if let Some(Verdict::Failed(failure)) = verdict(&actions) {
            break failure.clone();
        }
    };
    // Ten seconds to connect, and one to give up what may stand there all the same.
    assert_eq!((failure.kind, now), (Kind::Unreachable, 11_000));
    assert_eq!(failure.causes, ["http://server: no answer in time"]);
}

#[test]
fn a_waiter_that_pauses_when_its_endpoint_is_left_goes_on_waiting() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let mut waits = machine.on(queued(0), at(10)).contains(&Action::Begin(Request::Wait));
    // A wait that fails again and again begins after pauses; the renewal under way gets no answer meanwhile.
    let mut now = 4000;
    loop {
        now += 1;
        assert!(now < 10_000);
        let actions = machine.on(if waits { Event::WaitReturned(Err(silence())) } else { Event::Tick }, at(now));
        waits = actions.contains(&Action::Begin(Request::Wait));
        if actions.contains(&Action::NextEndpoint(Request::Renew)) {
            break;
        }
    }
    assert!(!waits, "it pauses");
    let actions = machine.on(Event::Silent(Request::Renew, "http://server".into()), at(now));
    assert!(actions.contains(&Action::Begin(Request::Wait)), "{actions:?}");
}

#[test]
fn a_broken_watch_is_no_loss() {
    let mut machine = running();
    for n in 0..20 {
        let actions = machine.on(Event::WatchFailed(silence()), at(100 + n * 50));
        assert!(actions.iter().all(|a| !matches!(a, Action::KillTree { .. } | Action::EndTree)), "{actions:?}");
        let _ = machine.on(Event::Tick, at(140 + n * 50));
    }
}

#[test]
fn a_break_gives_the_grace() {
    let mut machine = running();
    let actions = machine.on(Event::WatchFailed(Trouble::Broken("op".into())), at(100));
    assert!(actions.contains(&Action::EndTree), "{actions:?}");
    assert!(machine.on(Event::Tick, at(5_100)).contains(&Action::KillTree { overdue: false }));
}

#[test]
fn waiting_longer_than_the_ttl_counts_from_the_last_renewal() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    assert!(machine.on(queued(0), at(5)).contains(&Action::Begin(Request::Wait)));
    for s in [5_000, 10_000, 15_000, 20_000] {
        assert!(machine.on(Event::Tick, at(s)).contains(&Action::Begin(Request::Renew)));
        let _ = machine.on(Event::Renewed(Ok(at(s))), at(s + 5));
    }
    let actions = machine.on(Event::WaitReturned(Ok(Position::Held { token: 9, key: String::new() })), at(22_000));
    assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(20_000)))), "{actions:?}");
}

#[test]
fn a_lock_that_comes_with_an_old_lease_is_renewed_before_the_command_starts() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Renewed(Err(silence())), at(5_100));
    let actions = machine.on(Event::WaitReturned(Ok(Position::Held { token: 9, key: String::new() })), at(8_000));
    assert!(
        !actions.contains(&Action::Start)
            && !actions.iter().any(|a| matches!(a, Action::Tell(FromKeeper::Deadlines(_))))
    );
    let actions = machine.on(Event::Renewed(Ok(at(8_000))), at(8_010));
    assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(8_000)))), "{actions:?}");
    assert!(machine.on(Event::Acknowledged(newest()), at(8_011)).contains(&Action::Start));
}

#[test]
fn a_wait_ends_although_a_renewal_that_the_lock_needs_does_not_come() {
    let mut machine = Machine::new(Plan { wait: Some(Duration::from_secs(9)), ..plan() }, at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Renewed(Err(silence())), at(5_100));
    let _ = machine.on(Event::WaitReturned(Ok(Position::Held { token: 9, key: String::new() })), at(8_000));
    let actions = machine.on(Event::Tick, at(9_000));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(9_001))), Some(Kind::Busy));
}

#[test]
fn a_waiter_whose_lease_died_joins_again() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let actions = machine.on(Event::WaitReturned(Err(Trouble::Lost("lease expired".into()))), at(50));
    assert!(actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
}

#[test]
fn a_signal_while_waiting_leaves_the_queue() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    assert_eq!(machine.on(Event::Signal(Signal::SIGWINCH), at(40)), [], "a window was resized");
    let actions = machine.on(Event::Signal(Signal::SIGTERM), at(50));
    assert!(actions.contains(&Action::Abandon(Request::Wait)) && actions.contains(&Action::Begin(Request::Release)));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(60))), Some(Kind::Interrupted(Signal::SIGTERM)));
}

#[test]
fn a_key_is_the_wait_s_or_reached_the_command_by_itself() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(held(0), at(5));
    let _ = machine.on(Event::GroupSignal(Signal::SIGINT), at(6));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(7))), Some(Kind::Interrupted(Signal::SIGINT)));
    assert_eq!(running().on(Event::GroupSignal(Signal::SIGINT), at(100)), []);
}

#[test]
fn a_key_while_the_command_runs_is_followed_by_no_other_run() {
    for key in [true, false] {
        let mut machine = running();
        machine.plan.on_lost = OnLost::Restart;
        if key {
            assert_eq!(machine.on(Event::GroupSignal(Signal::SIGINT), at(50)), [], "the command has got it");
        }
        let _ = machine.on(Event::WatchFailed(Trouble::Lost("gone".into())), at(100));
        let actions = machine.on(exited(130, true), at(110));
        assert_eq!(actions.contains(&Action::AbandonContender), !key, "{actions:?}");
    }
}

#[test]
fn a_command_that_could_not_be_executed_while_the_lock_was_lost_was_lost() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(held(0), at(5));
    assert!(machine.on(Event::Acknowledged(newest()), at(6)).contains(&Action::Start));
    let actions = machine.on(Event::WatchFailed(Trouble::Lost("gone".into())), at(7));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "what is to be the command is killed: {actions:?}");
    let _ = machine.on(Event::NotStarted(Failure::new(Kind::NotFound, "no such file")), at(8));
    let _ = machine.on(Event::Reaped { command: None, empty: true }, at(8));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(9))), Some(Kind::Lost));
}

#[test]
fn one_try_and_a_bounded_wait_end_busy_and_an_unreachable_server_does_not() {
    for (wait, until) in [(Duration::ZERO, 5), (Duration::from_secs(1), 1_000)] {
        let mut machine = Machine::new(Plan { wait: Some(wait), ..plan() }, at(0));
        let _ = machine.on(Event::Tick, at(0));
        let mut actions = machine.on(queued(0), at(5));
        if until > 5 {
            actions = machine.on(Event::Tick, at(until));
        }
        assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
        assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(until + 1))), Some(Kind::Busy));
    }
    let mut machine = Machine::new(plan(), at(0));
    let mut actions = machine.on(Event::Tick, at(0));
    let mut now = 0;
    while verdict(&actions).is_none() {
        now += 50;
        let event = match &*actions {
            actions if actions.contains(&Action::Begin(Request::Enter)) => Event::Entered(Err(silence())),
            // Somebody may have heard.
            actions if actions.contains(&Action::Begin(Request::Release)) => Event::Released(Err(silence())),
            _ => Event::Tick,
        };
        actions = machine.on(event, at(now));
        assert!(now < 11_000);
    }
    assert_eq!(kind(&actions), Some(Kind::Unreachable));
    assert!(now >= 10_000);
}

#[test]
fn the_end_of_the_supervisor_ends_the_command_then_frees_the_lock() {
    let mut machine = running();
    assert!(machine.on(Event::Orphaned, at(100)).contains(&Action::KillTree { overdue: false }));
    let actions = machine.on(Event::Reaped { command: Some(Verdict::Signaled(Signal::SIGKILL)), empty: true }, at(103));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn an_acknowledgement_of_a_void_offer_starts_nothing() {
    let mut machine = Machine::new(plan(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(held(0), at(5));
    let actions = machine.on(Event::WatchFailed(Trouble::Lost("gone".into())), at(6));
    assert!(actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
    let _ = machine.on(held(7), at(10));
    assert!(!machine.on(Event::Acknowledged(deadlines(0)), at(11)).contains(&Action::Start));
    assert!(machine.on(Event::Acknowledged(deadlines(7)), at(12)).contains(&Action::Start));
}
