//! The promise, under any order of events.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// One change in the environment. It is ignored if it is impossible at that time.
#[derive(Clone, Debug)]
enum Change {
    Answer { request: usize, good: bool, held: bool, lost: bool },
    Acknowledge,
    Signal,
    Kill,
    Orphan,
    Exit { empty: bool },
    TreeEmpty,
    TreeStopped,
    Pass(u64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let answer = (0..Request::COUNT, prop::bool::weighted(0.7), any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(request, good, held, lost)| Change::Answer { request, good, held, lost });
    let change = prop_oneof![
        6 => answer,
        3 => Just(Change::Acknowledge),
        1 => Just(Change::Signal),
        1 => Just(Change::Kill),
        1 => Just(Change::Orphan),
        1 => any::<bool>().prop_map(|empty| Change::Exit { empty }),
        1 => Just(Change::TreeEmpty),
        3 => Just(Change::TreeStopped),
        5 => (0..3_000_u64).prop_map(Change::Pass),
    ];
    prop::collection::vec(change, 1..120)
}

/// Servers, supervisor and process tree, as the actions of the machine left them. Checks each action.
struct Environment {
    machine: Machine,
    now: u64,
    /// `sent_at` of each request in flight.
    in_flight: [Option<u64>; Request::COUNT],
    /// `sent_at` of the last confirmed renewal.
    confirmed: Option<u64>,
    held: bool,
    offered: bool,
    acknowledged: bool,
    started: bool,
    /// The command or a descendant is alive.
    tree_alive: bool,
    command_exited: bool,
    /// The machine has requested that the tree is stopped.
    freezing: bool,
    tree_stopped: bool,
    /// The lease under which the command started, or one with verified continuity, is not known to be lost.
    continuous: bool,
    finished: bool,
    /// Events that the last actions caused.
    pending: VecDeque<Event>,
}

impl Environment {
    fn new(on_lost: OnLost) -> Self {
        Self {
            machine: Machine::new(Plan { on_lost, ..plan() }, at(0)),
            now: 0,
            in_flight: [None; Request::COUNT],
            confirmed: None,
            held: false,
            offered: false,
            acknowledged: false,
            started: false,
            tree_alive: false,
            command_exited: false,
            freezing: false,
            tree_stopped: false,
            continuous: false,
            finished: false,
            pending: VecDeque::new(),
        }
    }

    /// Sends an event, then the events that its actions cause, in the order in which the keeper does.
    fn send(&mut self, event: Event) {
        self.pending.push_back(event);
        while let Some(event) = self.pending.pop_front() {
            self.send_one(event);
        }
    }

    fn send_one(&mut self, event: Event) {
        if self.finished {
            return;
        }
        let actions = self.machine.on(event, at(self.now));
        if self.tree_alive && !self.tree_stopped {
            let kill = self.confirmed_deadlines().kill;
            let killed = actions.iter().any(|action| matches!(action, Action::KillTree { .. }));
            let soon = self.machine.wake().is_some_and(|wake| wake <= at(self.now + 100));
            assert!(at(self.now) < kill || killed || soon, "no kill at {}", self.now);
            assert!(
                self.machine.wake().is_some_and(|wake| wake <= kill.max(at(self.now + 100))),
                "no timer for the kill deadline"
            );
        }
        for action in &actions {
            self.perform(action);
        }
    }

    fn confirmed_deadlines(&self) -> Deadlines {
        deadlines(self.confirmed.expect("a confirmed lease"))
    }

    fn perform(&mut self, action: &Action) {
        assert!(!self.finished, "{action:?} after the end");
        match action {
            Action::Begin(request) => self.begin(*request),
            Action::Abandon(request) => self.in_flight[*request as usize] = None,
            Action::NextEndpoint(request) => {
                self.pending.push_back(Event::TimedOut(*request, "http://server".into()));
            }
            Action::Send(message) => self.receive(message),
            Action::Start => {
                assert!(self.held && self.acknowledged && !self.started);
                self.assert_time_left("started");
                (self.started, self.tree_alive, self.continuous) = (true, true, true);
                self.pending.push_back(Event::Started);
            }
            Action::Freeze => self.freezing = true,
            Action::Thaw => {
                assert!(self.continuous && self.held && self.acknowledged, "thawed without the lock");
                self.assert_time_left("thawed");
                (self.freezing, self.tree_stopped) = (false, false);
            }
            Action::Finish(_) => {
                assert!(!self.tree_alive, "finished while the tree is alive");
                self.finished = true;
            }
            _ => {}
        }
    }

    fn begin(&mut self, request: Request) {
        assert!(self.in_flight[request as usize].is_none(), "{request:?} is in flight twice");
        if request == Request::Release {
            assert!(!self.tree_alive, "released while the tree is alive");
            assert!(self.in_flight.iter().all(Option::is_none), "a request is in flight during the release");
        }
        self.in_flight[request as usize] = Some(self.now);
    }

    fn receive(&mut self, message: &FromKeeper) {
        match message {
            FromKeeper::Deadlines(offer) => {
                assert!(offer.hard <= self.confirmed_deadlines().hard, "the deadlines are not confirmed");
                self.offered = true;
            }
            FromKeeper::Notice(Notice::Rejoining(_)) => {
                assert!(!self.tree_alive, "entered the queue again while the tree is alive");
                self.reset_lock();
            }
            FromKeeper::Notice(Notice::Restarting(_)) => {
                assert!(!self.tree_alive, "restarted while the tree is alive");
                self.reset_lock();
                (self.started, self.command_exited) = (false, false);
            }
            FromKeeper::Notice(Notice::Relock(Step::Frozen)) => (self.offered, self.acknowledged) = (false, false),
            _ => {}
        }
    }

    fn reset_lock(&mut self) {
        (self.held, self.offered, self.acknowledged, self.confirmed) = (false, false, false, None);
    }

    fn assert_time_left(&self, what: &str) {
        assert!(at(self.now + 1_000) <= self.confirmed_deadlines().soft, "{what} without time left");
    }

    fn answer(&mut self, request: usize, good: bool, held: bool, lost: bool) {
        let Some(sent_at) = self.in_flight[request].take() else { return };
        let request = Request::ALL[request];
        let trouble = if lost { super::lost("gone") } else { no_answer() };
        let queue = Queue { lock_delay: self.now.is_multiple_of(2), ..Queue::default() };
        let position = if held { holds(1) } else { Position::Queued(queue) };
        if self.started && lost && matches!(request, Request::Renew | Request::Watch) && !good {
            (self.continuous, self.held, self.offered, self.acknowledged) = (false, false, false, false);
        }
        let event = match request {
            Request::Enter if good => {
                (self.confirmed, self.held) = (Some(sent_at), held);
                entered(sent_at, position)
            }
            Request::Enter => Event::Entered(Err(trouble)),
            Request::Wait if good => {
                self.held |= held;
                Event::WaitReturned(Ok(position))
            }
            Request::Wait => Event::WaitReturned(Err(trouble)),
            Request::Renew if good => {
                self.confirmed = self.confirmed.max(Some(sent_at));
                Event::Renewed(Ok(at(sent_at)))
            }
            Request::Renew => Event::Renewed(Err(trouble)),
            Request::Watch => Event::WatchFailed(trouble),
            Request::VerifyContinuity if good => {
                self.continuous = held;
                Event::ContinuityVerified(Ok(held))
            }
            Request::VerifyContinuity => Event::ContinuityVerified(Err(trouble)),
            Request::Release if good => Event::Released(Ok(())),
            Request::Release => Event::Released(Err(trouble)),
        };
        self.send(event);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Answer { request, good, held, lost } => self.answer(*request, *good, *held, *lost),
            Change::Acknowledge if self.offered => {
                self.acknowledged = true;
                self.send(Event::Acknowledged(newest_deadlines()));
            }
            Change::Signal => self.send(Event::Signal(Signal::SIGTERM)),
            Change::Kill => self.send(Event::Kill),
            Change::Orphan => self.send(Event::Orphaned),
            Change::Exit { empty } if self.tree_alive && !self.command_exited => {
                (self.command_exited, self.tree_alive) = (true, !*empty);
                self.send(exited(0, *empty));
            }
            Change::TreeStopped if self.freezing && self.tree_alive && !self.tree_stopped => {
                self.tree_stopped = true;
                self.send(Event::Frozen);
            }
            Change::TreeEmpty if self.command_exited && self.tree_alive => {
                self.tree_alive = false;
                self.send(Event::Reaped { command: None, empty: true });
            }
            Change::Pass(ms) => {
                // Wakes the machine at each time that it asked for, or shortly after.
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
    fn promise_holds_under_any_order_of_events(
        changes in changes(),
        on_lost in prop::sample::select(vec![OnLost::Kill, OnLost::Restart, OnLost::Relock]),
    ) {
        let mut environment = Environment::new(on_lost);
        environment.send(Event::Tick);
        for change in changes {
            environment.apply(&change);
        }
        // Without a supervisor and without answers, the machine finishes from any state.
        environment.apply(&Change::Orphan);
        environment.apply(&Change::Exit { empty: true });
        environment.apply(&Change::TreeEmpty);
        for _ in 0..40 {
            environment.apply(&Change::Pass(1_000));
        }
        prop_assert!(environment.finished);
    }
}
