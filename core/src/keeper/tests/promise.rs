//! The promise, under any order of events.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

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
    StandStill,
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
        3 => Just(Deed::StandStill),
        5 => (0..3_000_u64).prop_map(Deed::Pass),
    ];
    prop::collection::vec(deed, 1..120)
}

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
    /// The machine wants the tree frozen.
    freezing: bool,
    /// The tree stands still.
    still: bool,
    /// The lease under which the command started, or one that is proved to be as good, is not known to be lost.
    sure: bool,
    finished: bool,
    /// What came of the last actions at once.
    next: VecDeque<Event>,
}

impl World {
    fn new(on_lost: OnLost) -> Self {
        let machine = Machine::new(Plan { on_lost, ..plan() }, at(0));
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
            freezing: false,
            still: false,
            sure: false,
            finished: false,
            next: VecDeque::new(),
        }
    }

    /// Sends an event, then those that come of its actions at once: after all of these, as the keeper does it.
    fn send(&mut self, event: Event) {
        self.next.push_back(event);
        while let Some(event) = self.next.pop_front() {
            self.send_one(event);
        }
    }

    fn send_one(&mut self, event: Event) {
        if self.finished {
            return;
        }
        let actions = self.machine.on(event, at(self.now));
        if self.tree && !self.still {
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
            Action::NextEndpoint(request) => self.next.push_back(Event::Silent(*request, "http://server".into())),
            Action::Tell(FromKeeper::Deadlines(told)) => {
                let s = self.confirmed.expect("deadlines come from a confirmed lease");
                assert!(told.hard <= deadlines(s).hard, "a deadline that nothing confirms");
                self.offered = true;
            }
            Action::Tell(FromKeeper::Notice(Notice::Rejoining(_))) => {
                (self.held, self.offered, self.acknowledged, self.confirmed) = (false, false, false, None);
                assert!(!self.tree, "joined the queue while the command runs");
            }
            Action::Start => {
                assert!(self.held && self.acknowledged && !self.started);
                let soft = deadlines(self.confirmed.expect("a lease")).soft;
                assert!(at(self.now + 1_000) <= soft, "started without time left");
                (self.started, self.tree, self.sure) = (true, true, true);
                self.next.push_back(Event::Started);
            }
            Action::Tell(FromKeeper::Notice(Notice::Restarting(_))) => {
                assert!(!self.tree, "began anew while the command runs");
                (self.held, self.offered, self.acknowledged, self.confirmed) = (false, false, false, None);
                (self.started, self.ended) = (false, false);
            }
            Action::Tell(FromKeeper::Notice(Notice::Relock(Step::Frozen))) => {
                (self.offered, self.acknowledged) = (false, false);
            }
            Action::Freeze => self.freezing = true,
            Action::Thaw => {
                assert!(self.sure && self.held && self.acknowledged, "thawed without a lock");
                let soft = deadlines(self.confirmed.expect("a lease")).soft;
                assert!(at(self.now + 1_000) <= soft, "thawed without time left");
                (self.freezing, self.still) = (false, false);
            }
            Action::Finish(_) => {
                assert!(!self.tree, "finished while the command runs");
                self.finished = true;
            }
            _ => {}
        }
    }

    /// Somebody is ahead, or a lock-delay is.
    fn queue(&self) -> Position {
        Position::Queued(Queue { lock_delay: self.now.is_multiple_of(2), ..Queue::default() })
    }

    fn answer(&mut self, request: usize, good: bool, held: bool, lost: bool) {
        let Some(sent) = self.under[request] else { return };
        self.under[request] = None;
        let trouble = if lost { Trouble::Lost("gone".into()) } else { silence() };
        let place = if held { Position::Held { token: 1, key: String::new() } } else { self.queue() };
        if self.started && lost && matches!(Request::ALL[request], Request::Renew | Request::Watch) && !good {
            (self.sure, self.held, self.offered, self.acknowledged) = (false, false, false, false);
        }
        let event = match Request::ALL[request] {
            Request::Enter if good => {
                (self.confirmed, self.held) = (Some(sent), held);
                Event::Entered(Ok((Granted { sent_at: at(sent), cover: Some(TTL) }, place)))
            }
            Request::Enter => Event::Entered(Err(trouble)),
            Request::Wait if good => {
                self.held |= held;
                Event::WaitReturned(Ok(place))
            }
            Request::Wait => Event::WaitReturned(Err(trouble)),
            Request::Renew if good => {
                self.confirmed = self.confirmed.max(Some(sent));
                Event::Renewed(Ok(at(sent)))
            }
            Request::Renew => Event::Renewed(Err(trouble)),
            Request::Watch => Event::WatchFailed(trouble),
            Request::VerifyContinuity if good => {
                self.sure = held;
                Event::ContinuityVerified(Ok(held))
            }
            Request::VerifyContinuity => Event::ContinuityVerified(Err(trouble)),
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
                self.send(Event::Acknowledged(newest()));
            }
            Deed::Signal => self.send(Event::Signal(Signal::SIGTERM)),
            Deed::Kill => self.send(Event::Kill),
            Deed::Orphan => self.send(Event::Orphaned),
            Deed::Exit { empty } if self.tree && !self.ended => {
                (self.ended, self.tree) = (true, !*empty);
                self.send(exited(0, *empty));
            }
            Deed::StandStill if self.freezing && self.tree && !self.still => {
                self.still = true;
                self.send(Event::Frozen);
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
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_promise_holds_under_any_order_of_events(
        deeds in deeds(),
        on_lost in prop::sample::select(vec![OnLost::Kill, OnLost::Restart, OnLost::Relock]),
    ) {
        let mut world = World::new(on_lost);
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
