//! The keeper's decisions: pure. Events come in with the moment at which they are handled; what to do comes out.
//!
//! ```text
//! Seeking --held, fresh, acknowledged--> Starting --> Running --command and tree gone--> Releasing --> Done
//!    ^  \                                                                                  ^
//!    |   +--- gave up, interrupted, refused -----------------------------------------------+
//!    +------- lost before the command ran
//! ```

use std::time::Duration;

mod command;
mod ending;
mod lock;
mod relock;
pub mod requests;
use requests::{Calls, Due, Request};

use crate::error::Failure;
use crate::lease::{Deadlines, KILL_BUDGET, KILL_INTERVAL, KILL_INTERVAL_STUCK, Lease};
use crate::messages::{FromKeeper, Notice, Verdict};
use crate::outcome::{Granted, Outcome, Position, Queue, Trouble};
use crate::plan::Plan;
use crate::signal::Signal;
use crate::time::Instant;

/// After a loss, the attempt to tell the server goes on for this long at least.
const MIN_RELEASE: Duration = Duration::from_secs(1);
/// The least time for which an exchange with the server that starts the whole thing is given.
const MAX_ENTER: Duration = Duration::from_secs(3);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// `enter` answered.
    Entered(Outcome<(Granted, Position)>),
    /// `wait` answered.
    WaitReturned(Outcome<Position>),
    /// `renew` answered.
    Renewed(Outcome<Instant>),
    /// `watch` returned.
    WatchFailed(Trouble),
    /// `alone` answered.
    ContinuityVerified(Outcome<bool>),
    /// All of the command stands still.
    Frozen,
    /// `release` answered.
    Released(Outcome<()>),
    /// The supervisor has taken over the deadlines.
    Acknowledged(Deadlines),
    /// The supervisor forwards a signal.
    Signal(Signal),
    /// The terminal sent a signal to the whole group: the command has it, if it was there.
    GroupSignal(Signal),
    /// The supervisor wants the command ended at once.
    Kill,
    /// The supervisor is gone.
    Orphaned,
    /// The command runs.
    Started,
    /// The command could not be executed.
    NotStarted(Failure),
    /// Children were reaped.
    Reaped {
        /// How the command ended, if it was among them.
        command: Option<Verdict>,
        /// Nothing is left below.
        empty: bool,
    },
    /// The endpoint that did not answer this request in time was given up.
    Silent(Request, String),
    /// Time has passed.
    Tick,
}

impl Event {
    /// Returns the request that this event answers.
    #[must_use]
    pub fn answered_request(&self) -> Option<Request> {
        match self {
            Self::Entered(_) => Some(Request::Enter),
            Self::WaitReturned(_) => Some(Request::Wait),
            Self::Renewed(_) => Some(Request::Renew),
            Self::WatchFailed(_) => Some(Request::Watch),
            Self::ContinuityVerified(_) => Some(Request::VerifyContinuity),
            Self::Released(_) => Some(Request::Release),
            _ => None,
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin this request.
    Begin(Request),
    /// Drop this request, which is under way.
    Abandon(Request),
    /// This request, just abandoned, got no answer: go elsewhere, and say who was silent ([`Event::Silent`]).
    NextEndpoint(Request),
    /// Tell the supervisor.
    Tell(FromKeeper),
    /// Start the command.
    Start,
    /// Send this signal to the command.
    SignalCommand(Signal),
    /// Send the soft signal to the whole tree, and wake what is stopped.
    EndTree,
    /// Kill the whole tree; whether to tell what is left of it.
    KillTree {
        /// It should have been dead by now.
        overdue: bool,
    },
    /// Stop the whole tree; [`Event::Frozen`] once nothing runs.
    Freeze,
    /// Let go on what was stopped.
    Thaw,
    /// Give the contender up behind the scenes, for as long as its lease may live, and make a new one.
    AbandonContender,
    /// Tell the supervisor who is left to run without the lock.
    ReportLeftovers,
    /// Tell the supervisor this verdict and exit.
    Finish(Verdict),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Seeking,
    /// The lock is held and the command does not run yet.
    Held {
        offered: bool,
        acknowledged: bool,
    },
    Starting,
    Running,
    /// The command is gone, its leftovers are not.
    Clearing(Verdict),
    Releasing(Verdict),
    Done,
}

/// Why the tree is being ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Leftover,
    Killed,
    Orphaned,
    Broken(String),
    Lost(String),
}

impl Reason {
    /// Only a weightier reason replaces another, whatever they say.
    fn weight(&self) -> u8 {
        match self {
            Self::Leftover => 0,
            Self::Killed => 1,
            Self::Orphaned => 2,
            Self::Broken(_) => 3,
            Self::Lost(_) => 4,
        }
    }
}

#[derive(Clone, Debug)]
struct Stop {
    reason: Reason,
    kill_at: Instant,
    next_pass: Instant,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    plan: Plan,
    started: Instant,
    phase: Phase,
    lease: Option<Lease>,
    calls: Calls,
    stop: Option<Stop>,
    frozen: Option<relock::Frozen>,
    /// The deadlines that the supervisor was told last before it is to acknowledge them.
    offer: Option<Deadlines>,
    orphaned: bool,
    /// A signal came that usually ends a command.
    signaled: bool,
    restarts: relock::Restarts,
    /// Why the last run ended, while another is sought.
    loss: Option<String>,
    token: u64,
    /// Something may stand on the server.
    entered: bool,
    /// A server answered, if only with an error.
    answered: bool,
    /// A server let us into the queue once.
    served: bool,
    /// The user was told that none does.
    warned: bool,
    queue: Option<Queue>,
    causes: Vec<String>,
    /// What the user can do about servers that grant no lock, from the last trouble that told.
    hint: Option<String>,
    actions: Vec<Action>,
}

impl Machine {
    /// A machine that begins at `now`.
    #[must_use]
    pub fn new(plan: Plan, now: Instant) -> Self {
        let mut calls = Calls::default();
        calls.schedule(Request::Enter, now);
        Self {
            plan,
            started: now,
            phase: Phase::Seeking,
            lease: None,
            calls,
            stop: None,
            frozen: None,
            offer: None,
            orphaned: false,
            signaled: false,
            restarts: relock::Restarts::default(),
            loss: None,
            token: 0,
            entered: false,
            answered: false,
            served: false,
            warned: false,
            queue: None,
            causes: Vec::new(),
            hint: None,
            actions: Vec::new(),
        }
    }

    /// Takes in one event. Deadlines are checked before anything else: the machine may have been asleep.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.check_deadlines(now);
        match event {
            Event::Entered(outcome) => self.entered(outcome, now),
            Event::WaitReturned(outcome) => self.wait_returned(outcome, now),
            Event::Renewed(outcome) => self.renewed(outcome, now),
            Event::WatchFailed(trouble) => self.watch_failed(trouble, now),
            Event::ContinuityVerified(outcome) => self.continuity_verified(outcome, now),
            Event::Frozen => self.stands_still(now),
            Event::Released(outcome) => self.released(outcome, now),
            Event::Acknowledged(deadlines) => self.acknowledged(deadlines, now),
            Event::Signal(signal) => self.signal(signal, now),
            Event::GroupSignal(signal) => self.group_signal(signal, now),
            Event::Kill => self.kill(now),
            Event::Orphaned => self.on_orphaned(now),
            Event::Started if self.phase == Phase::Starting => {
                self.phase = Phase::Running;
                self.notice(Notice::Started);
            }
            Event::NotStarted(failure) => self.not_started(failure),
            Event::Reaped { command, empty } => self.reaped(command, empty, now),
            Event::Silent(request, endpoint) => self.silent(request, &endpoint, now),
            Event::Started | Event::Tick => {}
        }
        self.run_calls(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is wanted next, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let seeking = self.seek_until().filter(|_| self.seeking());
        let running = self.alive() && !self.losing() && self.frozen.is_none();
        let soft = self.lease.as_ref().filter(|_| running).map(|lease| lease.deadlines().soft);
        let frozen = self.wake_frozen().filter(|_| self.alive() && self.stop.is_none());
        let stop = self.stop.as_ref().filter(|_| self.alive()).map(|stop| stop.kill_at.max(stop.next_pass));
        let waits = seeking.into_iter().chain(self.warn_at());
        waits.chain(soft).chain(frozen).chain(stop).chain(self.calls.wake()).min()
    }

    /// The command or something that it left may run.
    fn alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Clearing(_))
    }

    fn losing(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| matches!(stop.reason, Reason::Lost(_)))
    }

    fn seeking(&self) -> bool {
        matches!(self.phase, Phase::Seeking | Phase::Held { .. })
    }

    /// When to give up seeking. A lock that is held already is worth a bit more, until only a renewal can save it; one that
    /// needs no renewal, anything.
    fn seek_until(&self) -> Option<Instant> {
        let until = self.wait_until().into_iter().chain(self.connect_until()).min()?;
        match self.phase {
            Phase::Seeking => Some(until),
            _ => self.lease.as_ref().map(|lease| lease.start_until().max(until)),
        }
    }

    fn wait_until(&self) -> Option<Instant> {
        self.plan.wait.filter(|wait| !wait.is_zero()).map(|wait| self.started + wait)
    }

    /// One try takes as long as a connection may take, since there is no other bound.
    fn connect_until(&self) -> Option<Instant> {
        let bounded = !self.answered || (self.plan.wait == Some(Duration::ZERO) && self.queue.is_none());
        bounded.then(|| self.started + self.plan.connect_timeout)
    }

    /// When to say that servers answer, and grant nothing: one that waits for ever is to know what for.
    fn warn_at(&self) -> Option<Instant> {
        let unserved = self.seeking() && self.answered && !self.served && !self.warned;
        unserved.then(|| self.started + self.plan.connect_timeout)
    }

    fn notice(&mut self, notice: Notice) {
        self.tell(FromKeeper::Notice(notice));
    }

    fn tell(&mut self, message: FromKeeper) {
        self.actions.push(Action::Tell(message));
    }

    fn check_deadlines(&mut self, now: Instant) {
        if self.alive() {
            self.check_lease(now);
            self.check_frozen(now);
            self.check_stop(now);
        }
        let over = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if self.seeking() && over(self.seek_until()) {
            self.give_up(now);
        } else if over(self.warn_at()) {
            self.warned = true;
            self.notice(Notice::NotServed(self.causes.last().cloned().unwrap_or_default()));
        }
    }

    fn check_lease(&mut self, now: Instant) {
        let Some(lease) = &self.lease else { return };
        let deadlines = lease.deadlines();
        if now < deadlines.soft || self.losing() || self.frozen.is_some() {
            return;
        }
        let cause = format!("no renewal was confirmed in {:.1?}", lease.terms().renewal_window());
        if self.relocks() {
            self.freeze(cause, deadlines.kill, now);
        } else {
            self.end(Reason::Lost(cause), deadlines.kill, now);
        }
    }

    fn check_stop(&mut self, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        if now < stop.kill_at || now < stop.next_pass {
            return;
        }
        let overdue = now >= stop.kill_at + KILL_BUDGET;
        let first = stop.next_pass <= stop.kill_at;
        stop.next_pass = now + if overdue { KILL_INTERVAL_STUCK } else { KILL_INTERVAL };
        self.tell(if first { FromKeeper::Notice(Notice::Ending("killed".into())) } else { FromKeeper::Killing });
        self.actions.push(Action::KillTree { overdue });
    }

    /// Lets what is due begin, and gives up what took too long.
    fn run_calls(&mut self, now: Instant) {
        if let Some(lease) = &self.lease
            && !matches!(self.phase, Phase::Releasing(_) | Phase::Done)
            && self.calls.idle(Request::Renew)
        {
            self.calls.schedule(Request::Renew, lease.due());
        }
        while let Some(due) = self.calls.next_due(now) {
            match due {
                Due::Begin(request) => {
                    let limit = self.limit(request, now);
                    self.calls.begin(request, limit);
                    self.entered |= request == Request::Enter;
                    self.actions.push(Action::Begin(request));
                }
                Due::Overdue(request) => {
                    self.calls.abandon(request);
                    self.actions.push(Action::Abandon(request));
                    self.actions.push(Action::NextEndpoint(request));
                }
            }
        }
    }

    fn limit(&self, request: Request, now: Instant) -> Option<Instant> {
        match request {
            Request::Enter | Request::VerifyContinuity => Some(now + MAX_ENTER),
            Request::Renew => self.lease.as_ref().map(|lease| now + lease.request_limit(now)),
            Request::Release => Some(self.release_until(now).min(now + MAX_ENTER)),
            // They wait for news, which may never come. That their connection lives, the renewals show.
            Request::Wait | Request::Watch => None,
        }
    }

    fn silent(&mut self, request: Request, endpoint: &str, now: Instant) {
        let silence = Trouble::no_answer(format!("{endpoint}: no answer in time"));
        match request {
            Request::Enter => self.entered(Err(silence), now),
            Request::Renew => {
                self.renewed(Err(silence), now);
                // What waits for news on the same connection would wait for ever.
                for request in [Request::Wait, Request::Watch] {
                    if self.calls.idle(request) {
                        continue;
                    }
                    if self.calls.abandon(request) {
                        self.actions.push(Action::Abandon(request));
                    }
                    self.calls.schedule(request, now);
                }
            }
            Request::VerifyContinuity => self.continuity_verified(Err(silence), now),
            Request::Release => self.released(Err(silence), now),
            Request::Wait | Request::Watch => {}
        }
    }
}

#[cfg(test)]
mod tests;
