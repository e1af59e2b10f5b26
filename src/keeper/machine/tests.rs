//! Transitions one by one, then the promise under any order of events.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backend::Queue;
use crate::error::Kind;
use crate::lease::{Deadlines, Terms};

const TTL: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(5);

fn rules() -> Rules {
    Rules {
        name: "/x".into(),
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
    let granted = Granted { s: at(s), cover: Some(TTL) };
    Event::Entered(Ok((granted, Place::Held { token: 7, key: "/x/1".into() })))
}

fn queued(s: u64) -> Event {
    let granted = Granted { s: at(s), cover: Some(TTL) };
    Event::Entered(Ok((granted, Place::Queued(Queue::default()))))
}

fn silence() -> Trouble {
    Trouble::Uncertain { answered: false, cause: "no answer".into() }
}

fn exited(code: i32, empty: bool) -> Event {
    Event::Reaped { command: Some(Verdict::Exited(code)), empty }
}

/// A machine whose command runs, its lease granted at 0.
fn running() -> Machine {
    let mut machine = Machine::new(rules(), at(0));
    assert_eq!(machine.on(Event::Tick, at(0)), [Action::Begin(Request::Enter)]);
    let actions = machine.on(held(0), at(10));
    assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(0)))), "{actions:?}");
    assert!(!actions.contains(&Action::Start), "the supervisor does not know the deadlines yet: {actions:?}");
    assert_eq!(machine.on(Event::Acknowledged, at(11)), [Action::Start]);
    assert_eq!(machine.on(Event::Started, at(12)), [Action::Tell(FromKeeper::Started)]);
    machine
}

fn verdict(actions: &[Action]) -> Option<&Verdict> {
    actions.iter().find_map(|action| match action {
        Action::Finish(verdict) => Some(verdict),
        _ => None,
    })
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
    assert_eq!(actions, [Action::EndTree]);
    assert_eq!(machine.wake().map(|wake| wake <= at(5_100)), Some(true));
    let actions = machine.on(Event::Tick, at(5_100));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
    let actions = machine.on(Event::Reaped { command: None, empty: true }, at(5_102));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn leftovers_that_are_waited_for_hold_the_lock_until_a_signal_comes() {
    let mut machine = running();
    machine.rules.leftover = Leftover::Wait;
    assert_eq!(machine.on(exited(0, false), at(100)), []);
    assert_eq!(machine.on(Event::Signal(15), at(200)), [Action::EndTree]);
    let actions = machine.on(Event::Reaped { command: None, empty: true }, at(300));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

#[test]
fn leftovers_that_are_left_are_named_and_the_lock_released() {
    let mut machine = running();
    machine.rules.leftover = Leftover::Leave;
    let actions = machine.on(exited(0, false), at(100));
    assert!(actions.contains(&Action::TellLeft) && actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
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
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(14_260));
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
    let actions = machine.on(Event::News(Trouble::Lost("revoked".into())), at(100));
    assert!(actions.contains(&Action::KillTree { overdue: false }), "{actions:?}");
    assert!(!actions.contains(&Action::EndTree), "no time for a soft signal: {actions:?}");
}

#[test]
fn what_is_known_lost_is_killed_although_the_grace_runs() {
    // Whatever the words: they have no order.
    for cause in ["a", "z"] {
        let mut machine = running();
        assert!(machine.on(Event::Tick, at(9_250)).contains(&Action::EndTree));
        let actions = machine.on(Event::News(Trouble::Lost(cause.into())), at(9_300));
        assert!(actions.contains(&Action::KillTree { overdue: false }), "{cause}: {actions:?}");
    }
}

#[test]
fn a_second_signal_kills_although_the_grace_runs() {
    let mut machine = running();
    let _ = machine.on(Event::News(Trouble::Broken("op".into())), at(100));
    assert!(machine.on(Event::Kill, at(1_500)).contains(&Action::KillTree { overdue: false }));
    let _ = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(1_502));
    let actions = machine.on(Event::Released(Ok(())), at(1_510));
    assert!(matches!(verdict(&actions), Some(Verdict::Failed(failure)) if failure.message.contains("broken")));
}

#[test]
fn a_silent_server_is_left_and_named() {
    let mut machine = Machine::new(rules(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let mut now = 0;
    let failure = loop {
        now += 100;
        assert!(now < 20_000);
        let mut actions = machine.on(Event::Tick, at(now));
        if actions.contains(&Action::NextEndpoint(Request::Enter)) {
            assert_eq!(actions[0], Action::Abandon(Request::Enter));
            actions = machine.on(Event::Silent(Request::Enter, "http://server".into()), at(now));
        }
        if let Some(Verdict::Failed(failure)) = verdict(&actions) {
            break failure.clone();
        }
    };
    assert_eq!((failure.kind, now), (Kind::Unreachable, 10_000));
    assert_eq!(failure.causes, ["http://server: no answer in time"]);
}

#[test]
fn a_broken_watch_is_no_loss() {
    let mut machine = running();
    for n in 0..20 {
        let actions = machine.on(Event::News(silence()), at(100 + n * 50));
        assert!(actions.iter().all(|a| !matches!(a, Action::KillTree { .. } | Action::EndTree)), "{actions:?}");
        let _ = machine.on(Event::Tick, at(140 + n * 50));
    }
}

#[test]
fn a_break_gives_the_grace() {
    let mut machine = running();
    let actions = machine.on(Event::News(Trouble::Broken("op".into())), at(100));
    assert!(actions.contains(&Action::EndTree), "{actions:?}");
    assert!(machine.on(Event::Tick, at(5_100)).contains(&Action::KillTree { overdue: false }));
}

#[test]
fn waiting_longer_than_the_ttl_counts_from_the_last_renewal() {
    let mut machine = Machine::new(rules(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    assert!(machine.on(queued(0), at(5)).contains(&Action::Begin(Request::Wait)));
    for s in [5_000, 10_000, 15_000, 20_000] {
        assert!(machine.on(Event::Tick, at(s)).contains(&Action::Begin(Request::Renew)));
        let _ = machine.on(Event::Renewed(Ok(at(s))), at(s + 5));
    }
    let actions = machine.on(Event::Moved(Ok(Place::Held { token: 9, key: String::new() })), at(22_000));
    assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(20_000)))), "{actions:?}");
}

#[test]
fn a_lock_that_comes_with_an_old_lease_is_renewed_before_the_command_starts() {
    let mut machine = Machine::new(rules(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let _ = machine.on(Event::Tick, at(5_000));
    let _ = machine.on(Event::Renewed(Err(silence())), at(5_100));
    let actions = machine.on(Event::Moved(Ok(Place::Held { token: 9, key: String::new() })), at(8_000));
    assert!(
        !actions.contains(&Action::Start)
            && !actions.iter().any(|a| matches!(a, Action::Tell(FromKeeper::Deadlines(_))))
    );
    let actions = machine.on(Event::Renewed(Ok(at(8_000))), at(8_010));
    assert!(actions.contains(&Action::Tell(FromKeeper::Deadlines(deadlines(8_000)))), "{actions:?}");
    assert!(machine.on(Event::Acknowledged, at(8_011)).contains(&Action::Start));
}

#[test]
fn a_waiter_whose_lease_died_joins_again() {
    let mut machine = Machine::new(rules(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let actions = machine.on(Event::Moved(Err(Trouble::Lost("lease expired".into()))), at(50));
    assert!(actions.contains(&Action::Begin(Request::Enter)), "{actions:?}");
}

#[test]
fn a_signal_while_waiting_leaves_the_queue() {
    let mut machine = Machine::new(rules(), at(0));
    let _ = machine.on(Event::Tick, at(0));
    let _ = machine.on(queued(0), at(5));
    let actions = machine.on(Event::Signal(15), at(50));
    assert!(actions.contains(&Action::Abandon(Request::Wait)) && actions.contains(&Action::Begin(Request::Release)));
    assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(60))), Some(Kind::Interrupted(15)));
}

#[test]
fn one_try_and_a_bounded_wait_end_busy_and_an_unreachable_server_does_not() {
    for (wait, until) in [(Duration::ZERO, 5), (Duration::from_secs(1), 1_000)] {
        let mut machine = Machine::new(Rules { wait: Some(wait), ..rules() }, at(0));
        let _ = machine.on(Event::Tick, at(0));
        let mut actions = machine.on(queued(0), at(5));
        if until > 5 {
            actions = machine.on(Event::Tick, at(until));
        }
        assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
        assert_eq!(kind(&machine.on(Event::Released(Ok(())), at(until + 1))), Some(Kind::Busy));
    }
    let mut machine = Machine::new(rules(), at(0));
    let mut actions = machine.on(Event::Tick, at(0));
    let mut now = 0;
    while verdict(&actions).is_none() {
        now += 50;
        let begun = actions.contains(&Action::Begin(Request::Enter));
        actions = machine.on(if begun { Event::Entered(Err(silence())) } else { Event::Tick }, at(now));
        assert!(now < 11_000);
    }
    assert_eq!(kind(&actions), Some(Kind::Unreachable));
    assert!(now >= 10_000);
}

#[test]
fn the_end_of_the_supervisor_ends_the_command_then_frees_the_lock() {
    let mut machine = running();
    assert!(machine.on(Event::Orphaned, at(100)).contains(&Action::KillTree { overdue: false }));
    let actions = machine.on(Event::Reaped { command: Some(Verdict::Signaled(9)), empty: true }, at(103));
    assert!(actions.contains(&Action::Begin(Request::Release)), "{actions:?}");
}

/// What the world may do; the test lets it do only what is possible at that moment.
#[derive(Clone, Debug)]
enum Deed {
    Answer { request: usize, good: bool, held: bool, lost: bool },
    Acknowledge,
    Signal,
    Kill,
    Orphan,
    Exit { empty: bool },
    Empty,
    Pass(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let answer = (0..6_usize, prop::bool::weighted(0.7), any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(request, good, held, lost)| Deed::Answer { request, good, held, lost });
    let deed = prop_oneof![
        6 => answer,
        3 => Just(Deed::Acknowledge),
        1 => Just(Deed::Signal),
        1 => Just(Deed::Kill),
        1 => Just(Deed::Orphan),
        1 => any::<bool>().prop_map(|empty| Deed::Exit { empty }),
        1 => Just(Deed::Empty),
        5 => (0..3_000_u64).prop_map(Deed::Pass),
    ];
    prop::collection::vec(deed, 1..120)
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
/// The world as the machine's actions have made it, and what must hold in it.
struct World {
    machine: Machine,
    now: u64,
    /// When each request that is under way was sent.
    under: [Option<u64>; 6],
    confirmed: Option<u64>,
    held: bool,
    acknowledged: bool,
    offered: bool,
    /// The command or a leftover lives.
    tree: bool,
    ended: bool,
    started: bool,
    finished: bool,
}

impl World {
    fn new() -> Self {
        let machine = Machine::new(rules(), at(0));
        Self {
            machine,
            now: 0,
            under: [None; 6],
            confirmed: None,
            held: false,
            acknowledged: false,
            offered: false,
            tree: false,
            ended: false,
            started: false,
            finished: false,
        }
    }

    fn send(&mut self, event: Event) {
        if self.finished {
            return;
        }
        let actions = self.machine.on(event, at(self.now));
        if self.tree {
            let kill = deadlines(self.confirmed.expect("the command runs under a confirmed lease")).kill;
            let killed = actions.iter().any(|action| matches!(action, Action::KillTree { .. }));
            let soon = self.machine.wake().is_some_and(|wake| wake <= at(self.now + 100));
            assert!(at(self.now) < kill || killed || soon, "at {} nobody kills", self.now);
            assert!(
                self.machine.wake().is_some_and(|wake| wake <= kill.max(at(self.now + 100))),
                "sleeps over the deadline"
            );
        }
        for action in &actions {
            self.take(action);
        }
    }

    fn take(&mut self, action: &Action) {
        assert!(!self.finished, "{action:?} after the end");
        match action {
            Action::Begin(request) => {
                assert!(self.under[*request as usize].is_none(), "{request:?} twice at a time");
                if *request == Request::Release {
                    assert!(!self.tree, "released while the command runs");
                    assert!(
                        self.under.iter().all(Option::is_none),
                        "a request is under way while the lock is released"
                    );
                }
                self.under[*request as usize] = Some(self.now);
            }
            Action::Abandon(request) => self.under[*request as usize] = None,
            Action::NextEndpoint(request) => self.send(Event::Silent(*request, "http://server".into())),
            Action::Tell(FromKeeper::Deadlines(told)) => {
                let s = self.confirmed.expect("deadlines come from a confirmed lease");
                assert!(told.hard <= deadlines(s).hard, "a deadline that nothing confirms");
                self.offered = true;
            }
            Action::Tell(FromKeeper::Rejoining(_)) => {
                (self.held, self.offered, self.acknowledged, self.confirmed) = (false, false, false, None);
                assert!(!self.tree, "joined the queue while the command runs");
            }
            Action::Start => {
                assert!(self.held && self.acknowledged && !self.started);
                let soft = deadlines(self.confirmed.expect("a lease")).soft;
                assert!(at(self.now + 1_000) <= soft, "started without time left");
                (self.started, self.tree) = (true, true);
                let actions = self.machine.on(Event::Started, at(self.now));
                for action in &actions {
                    self.take(action);
                }
            }
            Action::Finish(_) => {
                assert!(!self.tree, "finished while the command runs");
                self.finished = true;
            }
            _ => {}
        }
    }

    fn answer(&mut self, request: usize, good: bool, held: bool, lost: bool) {
        let Some(sent) = self.under[request] else { return };
        self.under[request] = None;
        let trouble = if lost { Trouble::Lost("gone".into()) } else { silence() };
        let place = if held { Place::Held { token: 1, key: String::new() } } else { Place::Queued(Queue::default()) };
        let event = match Request::ALL[request] {
            Request::Enter if good => {
                (self.confirmed, self.held) = (Some(sent), held);
                Event::Entered(Ok((Granted { s: at(sent), cover: Some(TTL) }, place)))
            }
            Request::Enter => Event::Entered(Err(trouble)),
            Request::Wait if good => {
                self.held |= held;
                Event::Moved(Ok(place))
            }
            Request::Wait => Event::Moved(Err(trouble)),
            Request::Renew if good => {
                self.confirmed = self.confirmed.max(Some(sent));
                Event::Renewed(Ok(at(sent)))
            }
            Request::Renew => Event::Renewed(Err(trouble)),
            Request::Watch => Event::News(trouble),
            Request::Prove if good => Event::Proved(Ok(held)),
            Request::Prove => Event::Proved(Err(trouble)),
            Request::Release if good => Event::Released(Ok(())),
            Request::Release => Event::Released(Err(trouble)),
        };
        self.send(event);
    }

    fn act(&mut self, deed: &Deed) {
        match deed {
            Deed::Answer { request, good, held, lost } => self.answer(*request, *good, *held, *lost),
            Deed::Acknowledge if self.offered => {
                self.acknowledged = true;
                self.send(Event::Acknowledged);
            }
            Deed::Signal => self.send(Event::Signal(15)),
            Deed::Kill => self.send(Event::Kill),
            Deed::Orphan => self.send(Event::Orphaned),
            Deed::Exit { empty } if self.tree && !self.ended => {
                (self.ended, self.tree) = (true, !*empty);
                self.send(exited(0, *empty));
            }
            Deed::Empty if self.ended && self.tree => {
                self.tree = false;
                self.send(Event::Reaped { command: None, empty: true });
            }
            Deed::Pass(ms) => {
                // Time passes as the machine wants it to, or a bit later: it is woken when it asked to be.
                let until = self.now + ms;
                while let Some(wake) = self.machine.wake().filter(|wake| *wake < at(until) && !self.finished) {
                    self.now = self.now.max(u64::try_from(wake.since(at(0)).as_millis()).expect("small") + 1);
                    self.send(Event::Tick);
                }
                self.now = self.now.max(until);
                self.send(Event::Tick);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_promise_holds_under_any_order_of_events(deeds in deeds()) {
        let mut world = World::new();
        world.send(Event::Tick);
        for deed in deeds {
            world.act(&deed);
        }
        // Whatever came before: with the supervisor gone and nothing answering, it comes to an end.
        world.act(&Deed::Orphan);
        world.act(&Deed::Exit { empty: true });
        world.act(&Deed::Empty);
        for _ in 0..40 {
            world.act(&Deed::Pass(1_000));
        }
        prop_assert!(world.finished);
    }
}
