//! The keeper's decisions: pure. Events come in with the moment at which they are handled; what to do comes out.
//!
//! ```text
//! Seeking --held, fresh, acknowledged--> Starting --> Running --command and tree gone--> Releasing --> Done
//!    ^  \                                                                                  ^
//!    |   +--- gave up, interrupted, refused -----------------------------------------------+
//!    +------- lost before the command ran
//! ```

use std::time::Duration;

use super::calls::{Calls, Due, Request};
use crate::backend::{Granted, Outcome, Place, Queue, Trouble};
use crate::clock::Instant;
use crate::error::{Failure, Kind};
use crate::lease::{K, Lease, Terms};
use crate::link::{FromKeeper, Verdict};

/// A release takes no longer than this.
pub const MAX_RELEASE: Duration = Duration::from_secs(5);
/// After a loss, the attempt to tell the server goes on for this long at least.
const MIN_RELEASE: Duration = Duration::from_secs(1);
/// The least time for which an exchange with the server that starts the whole thing is given.
const MAX_ENTER: Duration = Duration::from_secs(3);
/// How often the tree is killed again while it dies: soon enough to outrun one that forks.
const KILL_AGAIN: Duration = Duration::from_millis(2);
/// The same, for a tree that did not die within K.
const KILL_AGAIN_STUCK: Duration = Duration::from_millis(100);

/// What the user asked for, as far as the machine needs it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The lock's name, for messages.
    pub name: String,
    /// From TERM to KILL.
    pub grace: Duration,
    /// The longest wait; `None`: forever; zero: one try.
    pub wait: Option<Duration>,
    /// Give up when no server answered for this long.
    pub connect_timeout: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// `enter` answered.
    Entered(Outcome<(Granted, Place)>),
    /// `wait` answered.
    Moved(Outcome<Place>),
    /// `renew` answered.
    Renewed(Outcome<Instant>),
    /// `watch` returned.
    News(Trouble),
    /// `release` answered.
    Released(Outcome<()>),
    /// The supervisor has taken over the deadlines.
    Acknowledged,
    /// The supervisor forwards a signal.
    Signal(i32),
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
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin this request.
    Begin(Request),
    /// Drop this request, which is under way.
    Abandon(Request),
    /// Its server did not answer: go elsewhere.
    NextEndpoint,
    /// Tell the supervisor.
    Tell(FromKeeper),
    /// Start the command.
    Start,
    /// Send this signal to the command.
    SignalCommand(i32),
    /// Send the soft signal to the whole tree, and wake what is stopped.
    EndTree,
    /// Kill the whole tree; whether to tell what is left of it.
    KillTree {
        /// It should have been dead by now.
        overdue: bool,
    },
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

/// Why the tree is being ended, the weightiest last. Only a weightier reason replaces another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Leftover,
    Killed,
    Orphaned,
    Broken(String),
    Lost(String),
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
    rules: Rules,
    started: Instant,
    phase: Phase,
    lease: Option<Lease>,
    calls: Calls,
    stop: Option<Stop>,
    orphaned: bool,
    /// Something may stand on the server.
    entered: bool,
    answered: bool,
    queue: Option<Queue>,
    causes: Vec<String>,
    actions: Vec<Action>,
}

impl Machine {
    /// A machine that begins at `now`.
    #[must_use]
    pub fn new(rules: Rules, now: Instant) -> Self {
        let mut calls = Calls::default();
        calls.schedule(Request::Enter, now);
        Self {
            rules,
            started: now,
            phase: Phase::Seeking,
            lease: None,
            calls,
            stop: None,
            orphaned: false,
            entered: false,
            answered: false,
            queue: None,
            causes: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in one event. Deadlines are checked before anything else: the machine may have been asleep.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.check_deadlines(now);
        match event {
            Event::Entered(outcome) => self.entered(outcome, now),
            Event::Moved(outcome) => self.moved(outcome, now),
            Event::Renewed(outcome) => self.renewed(outcome, now),
            Event::News(trouble) => self.news(trouble, now),
            Event::Released(outcome) => self.released(outcome, now),
            Event::Acknowledged => self.acknowledged(now),
            Event::Signal(signal) => self.signal(signal, now),
            Event::Kill => self.kill(now),
            Event::Orphaned => self.on_orphaned(now),
            Event::Started if self.phase == Phase::Starting => {
                self.phase = Phase::Running;
                self.tell(FromKeeper::Started);
            }
            Event::NotStarted(failure) => self.conclude(Verdict::Failed(failure), now),
            Event::Reaped { command, empty } => self.reaped(command, empty, now),
            Event::Started | Event::Tick => {}
        }
        self.run_calls(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is wanted next, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let seeking = [self.wait_until(), self.connect_until()].into_iter().flatten();
        let seeking = seeking.filter(|_| self.phase == Phase::Seeking);
        let soft = self.lease.as_ref().filter(|_| self.alive() && !self.losing()).map(|lease| lease.deadlines().soft);
        let stop = self.stop.as_ref().filter(|_| self.alive()).map(|stop| stop.kill_at.max(stop.next_pass));
        seeking.chain(soft).chain(stop).chain(self.calls.wake()).min()
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

    fn wait_until(&self) -> Option<Instant> {
        self.rules.wait.filter(|wait| !wait.is_zero()).map(|wait| self.started + wait)
    }

    /// One try takes as long as a connection may take, since there is no other bound.
    fn connect_until(&self) -> Option<Instant> {
        let bounded = !self.answered || (self.rules.wait == Some(Duration::ZERO) && self.queue.is_none());
        bounded.then(|| self.started + self.rules.connect_timeout)
    }

    fn tell(&mut self, message: FromKeeper) {
        self.actions.push(Action::Tell(message));
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    fn check_deadlines(&mut self, now: Instant) {
        if self.alive() {
            self.check_lease(now);
            self.check_stop(now);
        }
        let over = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if self.phase == Phase::Seeking && (over(self.wait_until()) || over(self.connect_until())) {
            self.give_up(now);
        }
    }

    fn check_lease(&mut self, now: Instant) {
        let Some(lease) = &self.lease else { return };
        let deadlines = lease.deadlines();
        if now >= deadlines.soft && !self.losing() {
            let reason = format!("no renewal was confirmed in {:.1?}", lease.terms().room());
            self.end(Reason::Lost(reason), deadlines.kill, now);
        }
    }

    fn check_stop(&mut self, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        if now < stop.kill_at || now < stop.next_pass {
            return;
        }
        let overdue = now >= stop.kill_at + K;
        let first = stop.next_pass <= stop.kill_at;
        stop.next_pass = now + if overdue { KILL_AGAIN_STUCK } else { KILL_AGAIN };
        if first {
            self.tell(FromKeeper::Ending("killed".into()));
        }
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
                    self.actions.push(Action::NextEndpoint);
                    self.overdue(request, now);
                }
            }
        }
    }

    fn limit(&self, request: Request, now: Instant) -> Option<Instant> {
        match request {
            Request::Enter => Some(now + MAX_ENTER),
            Request::Renew => self.lease.as_ref().map(|lease| now + lease.attempt(now)),
            Request::Release => Some(self.release_until(now).min(now + MAX_ENTER)),
            // They wait for news, which may never come. That their connection lives, the renewals show.
            Request::Wait | Request::Watch => None,
        }
    }

    fn overdue(&mut self, request: Request, now: Instant) {
        let silence = Trouble::Uncertain { answered: false, cause: "no answer in time".into() };
        match request {
            Request::Enter => self.entered(Err(silence), now),
            Request::Renew => {
                self.renewed(Err(silence), now);
                // What waits for news on the same connection would wait for ever.
                for request in [Request::Wait, Request::Watch] {
                    if self.calls.abandon(request) {
                        self.actions.push(Action::Abandon(request));
                        self.calls.schedule(request, now);
                    }
                }
            }
            Request::Release => self.released(Err(silence), now),
            Request::Wait | Request::Watch => {}
        }
    }

    // ---- the lock --------------------------------------------------------------------------------------------------

    fn entered(&mut self, outcome: Outcome<(Granted, Place)>, now: Instant) {
        if self.calls.done(Request::Enter).is_none() && outcome.is_ok() {
            return;
        }
        match outcome {
            Ok((granted, place)) => {
                self.calls.succeeded(Request::Enter);
                let terms = granted.cover.map(|cover| Terms { cover, grace: self.rules.grace });
                if let Some(Err(no_room)) = terms.map(|terms| terms.check()) {
                    let failure = Failure::usage("the lease that the server granted is too short")
                        .because(no_room)
                        .hint("ask for a longer --ttl or a shorter --grace");
                    return self.conclude(Verdict::Failed(failure), now);
                }
                self.lease = terms.map(|terms| Lease::new(terms, granted.s));
                self.placed(place, now);
            }
            Err(trouble) => self.not_yet(Request::Enter, trouble, now),
        }
    }

    fn moved(&mut self, outcome: Outcome<Place>, now: Instant) {
        if self.calls.done(Request::Wait).is_none() || self.phase != Phase::Seeking {
            return;
        }
        match outcome {
            Ok(place) => {
                self.calls.succeeded(Request::Wait);
                self.placed(place, now);
            }
            Err(trouble) => self.not_yet(Request::Wait, trouble, now),
        }
    }

    fn placed(&mut self, place: Place, now: Instant) {
        self.answered = true;
        match place {
            Place::Held { token, .. } => {
                self.phase = Phase::Held { offered: false, acknowledged: false };
                self.tell(FromKeeper::Held { token });
                self.calls.schedule(Request::Watch, now);
                self.settle(now);
            }
            Place::Queued(queue) => {
                self.tell(FromKeeper::Waiting(queue.clone()));
                self.queue = Some(queue);
                if self.rules.wait == Some(Duration::ZERO) {
                    self.give_up(now);
                } else {
                    self.calls.schedule(Request::Wait, now);
                }
            }
        }
    }

    /// The lock is not ours yet, and something went wrong.
    fn not_yet(&mut self, request: Request, trouble: Trouble, now: Instant) {
        match trouble {
            Trouble::Uncertain { answered, cause } => {
                self.answered |= answered;
                self.remember(cause);
                self.calls.retry(request, now);
            }
            Trouble::Lost(cause) | Trouble::Broken(cause) => self.rejoin(&cause, now),
            Trouble::Fatal(failure) => {
                self.answered |= failure.kind != Kind::Unreachable;
                self.conclude(Verdict::Failed(failure), now);
            }
        }
    }

    /// The place in the queue is gone, or the lock before the command ran: nothing is hurt, begin anew.
    fn rejoin(&mut self, cause: &str, now: Instant) {
        self.tell(FromKeeper::Rejoining(cause.to_owned()));
        self.abandon_all();
        self.lease = None;
        self.phase = Phase::Seeking;
        self.calls.retry(Request::Enter, now);
    }

    fn renewed(&mut self, outcome: Outcome<Instant>, now: Instant) {
        let _ = self.calls.done(Request::Renew);
        let seeking = self.seeking();
        let Some(lease) = &mut self.lease else { return };
        match outcome {
            Ok(s) => {
                let moved = lease.confirmed(s);
                let deadlines = lease.deadlines();
                let told = !matches!(self.phase, Phase::Seeking | Phase::Held { offered: false, .. });
                // Once the command is being ended for a loss, no renewal gives it time again.
                if moved && told && !self.losing() {
                    self.tell(FromKeeper::Deadlines(deadlines));
                }
                self.settle(now);
            }
            Err(trouble @ (Trouble::Lost(_) | Trouble::Broken(_))) => self.bad_news(trouble, now),
            Err(Trouble::Fatal(failure)) if seeking => self.conclude(Verdict::Failed(failure), now),
            Err(trouble) => {
                lease.failed(now);
                let cause = match trouble {
                    Trouble::Uncertain { cause, .. } => cause,
                    Trouble::Fatal(failure) => std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": "),
                    Trouble::Lost(cause) | Trouble::Broken(cause) => cause,
                };
                self.tell(FromKeeper::Note(format!("a renewal failed: {cause}")));
                self.remember(cause);
            }
        }
    }

    fn news(&mut self, trouble: Trouble, now: Instant) {
        if self.calls.done(Request::Watch).is_none() {
            return;
        }
        match trouble {
            Trouble::Lost(_) | Trouble::Broken(_) => self.bad_news(trouble, now),
            Trouble::Uncertain { cause, .. } => self.watch_again(cause, now),
            Trouble::Fatal(failure) => self.watch_again(failure.message, now),
        }
    }

    /// A dead watch alone is no loss. The renewals go on, and they check the key as well.
    fn watch_again(&mut self, cause: String, now: Instant) {
        self.tell(FromKeeper::Note(format!("the watch broke: {cause}")));
        self.calls.retry(Request::Watch, now);
    }

    fn bad_news(&mut self, trouble: Trouble, now: Instant) {
        let deadline = self.lease.as_ref().map(|lease| lease.deadlines().kill);
        match (&self.phase, trouble) {
            (Phase::Seeking | Phase::Held { .. }, Trouble::Lost(cause) | Trouble::Broken(cause)) => self.rejoin(&cause, now),
            (Phase::Starting | Phase::Running | Phase::Clearing(_), Trouble::Lost(cause)) => {
                self.end(Reason::Lost(cause), now, now);
            }
            (Phase::Starting | Phase::Running | Phase::Clearing(_), Trouble::Broken(by)) => {
                let kill_at = now + self.rules.grace;
                self.end(Reason::Broken(by), deadline.map_or(kill_at, |deadline| deadline.min(kill_at)), now);
            }
            _ => {}
        }
    }

    // ---- the command -----------------------------------------------------------------------------------------------

    /// Starts the command once the lock is held, with time left, and the supervisor knows the deadlines.
    fn settle(&mut self, now: Instant) {
        let Phase::Held { offered, acknowledged } = self.phase else { return };
        let Some(lease) = &self.lease else { return self.start() };
        if !lease.fresh(now) {
            if self.calls.idle(Request::Renew) {
                self.calls.schedule(Request::Renew, now);
            }
        } else if !offered {
            let deadlines = lease.deadlines();
            self.phase = Phase::Held { offered: true, acknowledged };
            self.tell(FromKeeper::Deadlines(deadlines));
        } else if acknowledged {
            self.start();
        }
    }

    fn start(&mut self) {
        self.phase = Phase::Starting;
        self.actions.push(Action::Start);
    }

    fn acknowledged(&mut self, now: Instant) {
        if let Phase::Held { offered: true, acknowledged } = &mut self.phase {
            *acknowledged = true;
            self.settle(now);
        }
    }

    fn signal(&mut self, signal: i32, now: Instant) {
        if self.seeking() {
            let failure = Failure::new(Kind::Interrupted(signal), "interrupted while waiting for the lock");
            self.conclude(Verdict::Failed(failure), now);
        } else if self.alive() {
            self.actions.push(Action::SignalCommand(signal));
        }
    }

    fn kill(&mut self, now: Instant) {
        if self.alive() {
            self.end(Reason::Killed, now, now);
        } else if let Phase::Releasing(verdict) = &self.phase {
            let verdict = verdict.clone();
            self.finish(verdict);
        }
    }

    fn on_orphaned(&mut self, now: Instant) {
        self.orphaned = true;
        if self.alive() {
            self.end(Reason::Orphaned, now, now);
        } else if self.seeking() {
            self.conclude(Verdict::Failed(Failure::fault("the supervisor died")), now);
        }
    }

    fn end(&mut self, reason: Reason, kill_at: Instant, now: Instant) {
        if self.stop.as_ref().is_some_and(|stop| stop.reason >= reason) {
            return;
        }
        let kill_at = self.stop.as_ref().map_or(kill_at, |stop| stop.kill_at.min(kill_at));
        if self.stop.is_none() && now < kill_at {
            self.actions.push(Action::EndTree);
        }
        if let Reason::Lost(cause) | Reason::Broken(cause) = &reason {
            self.tell(FromKeeper::Ending(cause.clone()));
        }
        self.stop = Some(Stop { reason, kill_at, next_pass: kill_at });
        self.check_stop(now);
    }

    fn reaped(&mut self, command: Option<Verdict>, empty: bool, now: Instant) {
        if let (Some(verdict), Phase::Starting | Phase::Running) = (command, &self.phase) {
            self.phase = Phase::Clearing(verdict);
            if !empty {
                self.end(Reason::Leftover, now + self.rules.grace, now);
            }
        }
        if let (Phase::Clearing(verdict), true) = (&self.phase, empty) {
            let verdict = self.judged(verdict.clone());
            self.conclude(verdict, now);
        }
    }

    /// A loss weighs more than whatever the command returned.
    fn judged(&self, verdict: Verdict) -> Verdict {
        match self.stop.as_ref().map(|stop| &stop.reason) {
            Some(Reason::Lost(cause)) => self.lost(cause),
            Some(Reason::Broken(by)) => Verdict::Failed(
                Failure::new(Kind::Lost, format!("the lock {} was broken and the command ended", self.rules.name))
                    .because(format!("asked to stop by {by}")),
            ),
            _ => verdict,
        }
    }

    fn lost(&self, cause: &str) -> Verdict {
        let message = format!("the lock {} was lost and the command killed", self.rules.name);
        let mut failure = Failure::new(Kind::Lost, message).because(cause);
        failure.causes.extend(self.causes.iter().cloned());
        Verdict::Failed(failure)
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    fn give_up(&mut self, now: Instant) {
        let name = &self.rules.name;
        let failure = match &self.queue {
            Some(queue) => busy(name, queue, self.rules.wait),
            None => {
                let waited = now.since(self.started);
                let mut failure = Failure::new(Kind::Unreachable, format!("no server could be reached in {waited:.1?}"));
                failure.causes.clone_from(&self.causes);
                failure.hint("check the addresses given by --endpoints, and that the servers have a leader")
            }
        };
        self.conclude(Verdict::Failed(failure), now);
    }

    /// The command is over or never will be: give up what stands on the server, then finish.
    fn conclude(&mut self, verdict: Verdict, now: Instant) {
        if matches!(self.phase, Phase::Releasing(_) | Phase::Done) {
            return;
        }
        // A renewal in flight must not bring back what is released.
        self.abandon_all();
        if matches!(verdict, Verdict::Exited(_) | Verdict::Signaled(_)) || self.stop.is_some() {
            self.tell(FromKeeper::Ended(verdict.clone()));
        }
        if !self.entered || self.nothing_there(&verdict) {
            return self.finish(verdict);
        }
        self.phase = Phase::Releasing(verdict);
        self.calls.schedule_until(Request::Release, now, self.release_limit(now));
    }

    /// Nobody ever answered, so nothing stands anywhere, and nobody would answer now.
    fn nothing_there(&self, verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Failed(Failure { kind: Kind::Unreachable, .. })) && !self.answered
    }

    fn release_limit(&self, now: Instant) -> Instant {
        let hard = self.lease.as_ref().map_or(now + MAX_RELEASE, |lease| lease.deadlines().hard);
        hard.min(now + MAX_RELEASE).max(now + MIN_RELEASE)
    }

    fn release_until(&self, now: Instant) -> Instant {
        self.calls.until(Request::Release).unwrap_or(now + MAX_RELEASE)
    }

    fn released(&mut self, outcome: Outcome<()>, now: Instant) {
        let _ = self.calls.done(Request::Release);
        let Phase::Releasing(verdict) = &self.phase else { return };
        let verdict = verdict.clone();
        match outcome {
            Err(Trouble::Uncertain { cause, .. }) if self.answered && now < self.release_until(now) => {
                self.remember(cause);
                self.calls.retry(Request::Release, now);
            }
            Err(Trouble::Lost(cause)) if matches!(verdict, Verdict::Exited(_) | Verdict::Signaled(_)) => {
                let message = format!("the lock {} was lost before the command ended", self.rules.name);
                self.finish(Verdict::Failed(Failure::new(Kind::Lost, message).because(cause)));
            }
            Err(Trouble::Uncertain { cause, .. }) => {
                self.tell(FromKeeper::Note(format!("could not release the lock, its lease will end by itself: {cause}")));
                self.finish(verdict);
            }
            Err(Trouble::Fatal(failure)) => {
                self.tell(FromKeeper::Note(format!("could not release the lock: {failure}")));
                self.finish(verdict);
            }
            Ok(()) | Err(_) => self.finish(verdict),
        }
    }

    fn finish(&mut self, verdict: Verdict) {
        self.abandon_all();
        self.phase = Phase::Done;
        self.actions.push(Action::Finish(verdict));
    }

    fn abandon_all(&mut self) {
        for request in Request::ALL {
            if self.calls.abandon(request) {
                self.actions.push(Action::Abandon(request));
            }
        }
    }

    /// Keeps the last few causes, for the message that ends it all.
    fn remember(&mut self, cause: String) {
        self.causes.retain(|known| *known != cause);
        self.causes.push(cause);
        if self.causes.len() > 4 {
            self.causes.remove(0);
        }
    }
}

fn busy(name: &str, queue: &Queue, wait: Option<Duration>) -> Failure {
    let who = match &queue.holder {
        _ if queue.lock_delay => "is closed by the lock-delay of a session that ended".to_owned(),
        Some(holder) => format!("is held by {}", holder.describe()),
        None => "is held by somebody else".to_owned(),
    };
    let waited = match wait {
        Some(wait) if !wait.is_zero() => format!("; not acquired within {wait:?}"),
        _ => String::new(),
    };
    Failure::new(Kind::Busy, format!("{name} {who}{waited}"))
}
