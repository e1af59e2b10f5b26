//! The supervisor's decisions: pure. Events come in with the moment at which they are handled; what to do comes out.

mod signals;

use std::time::Duration;

use crate::signal::Signal;

use crate::error::Failure;
use crate::lease::{Deadlines, KILL_BUDGET, KILL_INTERVAL, KILL_INTERVAL_STUCK, MAX_RELEASE};
use crate::messages::{FromKeeper, FromSupervisor, Notice, Process, Step, Verdict};
use crate::time::Instant;

/// A second INT or TERM that comes sooner is the first one again: it was sent to the whole process group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// A process that runs is at its deadline sooner than this, and in this time the keeper has told the newest one.
const LATE: Duration = Duration::from_millis(100);
/// How long a keeper that gave its verdict may take to exit.
const PARTING: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The keeper said something.
    Message(FromKeeper),
    /// The keeper's end of the link is closed; its process ends or has ended.
    LinkClosed,
    /// The keeper's process ended.
    KeeperEnded,
    /// Nothing is left below.
    Empty,
    /// A signal came.
    Signal {
        /// Which.
        signal: Signal,
        /// The kernel sent it, as the terminal's driver does to a whole process group.
        keyboard: bool,
    },
    /// The witness says that the whole process group got this signal.
    Group(Signal),
    /// The witness has told all that it knew when it was asked.
    AllTold,
    /// The witness says nothing any more.
    WitnessGone,
    /// The witness woke this process up, as it does when the deadline has come or the keeper is gone.
    Woken,
    /// Time has passed.
    Tick,
}

/// Whose process group the command is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One of its own.
    Own,
    /// This process's: the terminal's signals reach it without help.
    Shared,
    /// The same, and a witness tells which other signals do.
    Witnessed,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the keeper.
    Post(FromSupervisor),
    /// Stop this process by the signal that stopped the command.
    StopSelf(Signal),
    /// Have the witness tell what it got, and that it is all ([`Event::AllTold`]).
    AskWitness,
    /// Kill everything below but the keeper.
    KillTree,
    /// Kill the keeper and everything below it.
    KillAll,
    /// Show who is left below, if anybody is.
    ShowStuck,
    /// Kill the keeper alone.
    KillKeeper,
    /// Give up the lease that the keeper left behind.
    Release,
    /// Close what is the command's own.
    CloseStreams,
    /// Show this to the user.
    Show(Notice),
    /// End with this verdict.
    Finish(Verdict),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The command does not run yet.
    Waiting,
    /// It may run at any moment: the deadlines hold.
    Armed,
    /// It does.
    Running,
    /// It stands still, whatever the deadlines: only the keeper's word or its death counts.
    Frozen,
    /// Nothing is left of it.
    Over,
}

/// The other process, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Keeper {
    Linked,
    /// It has closed the link; its process ends or has ended.
    Unlinked,
    Gone,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    name: String,
    group: Group,
    undecided: Vec<signals::Undecided>,
    /// The command was stopped by this signal.
    stopped: Option<Signal>,
    /// And so is this process to be.
    stopping: bool,
    /// What the witness told, and has not come here yet; until when that may be.
    witnessed: Vec<(Signal, Instant)>,
    /// What came here and needs no witness, who may tell of it all the same; until when.
    known: Vec<(Signal, Instant)>,
    /// The command may be run again, with the same descriptors.
    reruns: bool,
    phase: Phase,
    deadlines: Option<Deadlines>,
    lease: bool,
    first: Option<(Signal, Instant)>,
    /// Since when the user has wanted the command killed.
    kill_wanted: Option<Instant>,
    keeper: Keeper,
    heard: Instant,
    /// The next time to kill, once this process has to do it.
    killing: Option<Kill>,
    stuck: Vec<Process>,
    verdict: Option<Verdict>,
    /// The keeper was killed because it did not answer.
    silenced: bool,
    /// The keeper has given up the lock, as far as it could.
    released: bool,
    /// It stays behind, to end a lease whose servers do not answer.
    lingers: bool,
    /// A keeper that is not gone by then is stopped or hangs.
    keeper_exit_deadline: Option<Instant>,
    actions: Vec<Action>,
}

#[derive(Clone, Copy, Debug)]
struct Kill {
    since: Instant,
    next: Instant,
}

impl Machine {
    /// A machine whose keeper was just forked. `reruns`: the command may be run more than once.
    #[must_use]
    pub fn new(name: &str, group: Group, reruns: bool, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            group,
            undecided: Vec::new(),
            stopped: None,
            stopping: false,
            witnessed: Vec::new(),
            known: Vec::new(),
            reruns,
            phase: Phase::Waiting,
            deadlines: None,
            lease: false,
            first: None,
            kill_wanted: None,
            keeper: Keeper::Linked,
            heard: now,
            killing: None,
            stuck: Vec::new(),
            verdict: None,
            silenced: false,
            released: false,
            lingers: false,
            keeper_exit_deadline: None,
            actions: Vec::new(),
        }
    }

    /// Takes in one event. What the keeper said is followed by [`Event::Tick`] once all of it was read: a newer deadline
    /// may stand behind an older one that passed while this process was stopped.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let more_to_come = matches!(event, Event::Message(_));
        match event {
            Event::Message(message) => self.message(message, now),
            Event::LinkClosed => self.keeper = self.keeper.max(Keeper::Unlinked),
            Event::KeeperEnded => self.keeper_ended(now),
            Event::Empty => self.empty(),
            Event::Signal { signal, keyboard } => self.signal(signal, keyboard, now),
            Event::Group(signal) => self.testified(signal, now),
            Event::AllTold => self.all_told(now),
            // Where that is not so any more, the job is as suspended as before.
            Event::Woken => self.stopping = true,
            Event::WitnessGone => self.group = Group::Shared,
            Event::Tick => {}
        }
        self.decide(now);
        if !more_to_come {
            self.check(now);
            self.stop();
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is wanted next, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let deadline = self
            .deadlines
            .filter(|_| matches!(self.phase, Phase::Armed | Phase::Running) && self.killing.is_none())
            .map(|d| d.kill);
        let killing = self.killing.map(|kill| kill.next);
        let unheard = self.unheard().filter(|_| self.killing.is_none());
        let undecided = self.undecided.iter().map(signals::Undecided::due).min();
        deadline.into_iter().chain(killing).chain(unheard).chain(undecided).chain(self.keeper_exit_deadline).min()
    }

    /// When a keeper that said nothing since the user wanted the command killed is taken to be stopped.
    fn unheard(&self) -> Option<Instant> {
        let runs = matches!(self.phase, Phase::Armed | Phase::Running | Phase::Frozen);
        self.kill_wanted
            .filter(|at| runs && self.keeper != Keeper::Gone && self.heard <= *at)
            .map(|at| at + KILL_BUDGET)
    }

    /// Whether there is anything to read from the keeper.
    #[must_use]
    pub fn link_open(&self) -> bool {
        self.keeper == Keeper::Linked
    }

    fn show(&mut self, notice: Notice) {
        self.actions.push(Action::Show(notice));
    }

    fn message(&mut self, message: FromKeeper, now: Instant) {
        self.heard = now;
        match message {
            FromKeeper::Lease(_) => self.lease = true,
            FromKeeper::Deadlines(deadlines) => self.guard(deadlines),
            FromKeeper::Stopped(signal) => self.command_stopped(signal),
            FromKeeper::Continued => self.command_continued(),
            FromKeeper::Killing | FromKeeper::Account(_) => {}
            FromKeeper::Notice(notice) => self.keeper_notice(notice),
            FromKeeper::Ended(verdict) => {
                self.phase = Phase::Over;
                self.killing = None;
                self.verdict = Some(verdict);
                self.keeper_exit_deadline = Some(now + MAX_RELEASE + PARTING);
            }
            FromKeeper::Done { verdict, lingers } => {
                self.phase = Phase::Over;
                self.killing = None;
                self.verdict = Some(verdict);
                (self.released, self.lingers) = (true, lingers);
                self.keeper_exit_deadline = Some(if lingers { now } else { now + PARTING });
            }
        }
    }

    fn guard(&mut self, deadlines: Deadlines) {
        self.deadlines = Some(deadlines);
        if matches!(self.phase, Phase::Waiting | Phase::Frozen) {
            self.phase = Phase::Armed;
            self.keeper_exit_deadline = None;
        }
        if self.phase == Phase::Armed {
            // From here on this process kills at the deadline, so the command may start.
            self.actions.push(Action::Post(FromSupervisor::Acknowledged(deadlines)));
        }
    }

    /// Takes in what the keeper tells the user, as far as it changes what is guarded, and shows it.
    fn keeper_notice(&mut self, notice: Notice) {
        match &notice {
            Notice::Rejoining(_) => (self.phase, self.deadlines) = (Phase::Waiting, None),
            Notice::Restarting(_) => {
                self.phase = Phase::Waiting;
                (self.deadlines, self.killing, self.keeper_exit_deadline) = (None, None, None);
            }
            Notice::Started => {
                self.phase = Phase::Running;
                self.command_continued();
                if !self.reruns {
                    self.actions.push(Action::CloseStreams);
                }
            }
            Notice::Relock(Step::Frozen) => {
                (self.phase, self.deadlines, self.killing) = (Phase::Frozen, None, None);
            }
            Notice::Relock(Step::Thawed) => self.phase = Phase::Running,
            Notice::Stuck(processes) => return self.stuck(processes.clone()),
            _ => {}
        }
        self.show(notice);
    }

    /// The keeper says so again and again, which shows that it lives; the user is told once.
    fn stuck(&mut self, processes: Vec<Process>) {
        if processes != self.stuck {
            self.stuck.clone_from(&processes);
            if !processes.is_empty() {
                self.show(Notice::Stuck(processes));
            }
        }
    }

    fn keeper_ended(&mut self, now: Instant) {
        (self.keeper, self.keeper_exit_deadline) = (Keeper::Gone, None);
        if self.released {
            return self.finish();
        }
        match self.phase {
            Phase::Over => return self.abandoned(),
            Phase::Waiting => {
                let fault = || Verdict::Failed(Failure::fault("the process that kept the place in the queue died"));
                self.verdict.get_or_insert_with(fault);
            }
            Phase::Armed | Phase::Running | Phase::Frozen => {
                if !self.silenced {
                    self.show(Notice::KeeperLost("the process that kept the lock died".into()));
                    self.verdict = Some(self.lost("the process that kept it died"));
                }
            }
        }
        // Even where it was not heard that a command started: it may have.
        self.killing = Some(Kill { since: now, next: now });
    }

    /// The keeper left something on the server.
    fn abandoned(&mut self) {
        if self.lease {
            self.actions.push(Action::Release);
        }
        self.finish();
    }

    fn finish(&mut self) {
        let nothing = || Verdict::Failed(Failure::fault("the keeper ended without a word"));
        let verdict = self.verdict.clone().unwrap_or_else(nothing);
        self.actions.push(Action::Finish(verdict));
    }

    fn lost(&self, cause: &str) -> Verdict {
        Verdict::Failed(Failure::lost(&self.name, cause))
    }

    /// Only counts once the keeper is gone: before, the keeper itself is below.
    fn empty(&mut self) {
        if self.keeper == Keeper::Gone && self.killing.take().is_some() {
            self.phase = Phase::Over;
            self.abandoned();
        }
    }

    fn check(&mut self, now: Instant) {
        if self.keeper_exit_deadline.is_some_and(|at| now >= at) {
            self.keeper_exit_deadline = None;
            if !self.lingers {
                self.actions.push(Action::KillKeeper);
            }
            // What it left undone is for later, once it has ended.
            if self.released {
                return self.finish();
            }
        }
        if matches!(self.phase, Phase::Armed | Phase::Running)
            && self.killing.is_none()
            && let Some(deadlines) = self.deadlines
            && now >= deadlines.kill
        {
            // Who comes late was stopped. The link may hold old news only, and takes the newest once those are read.
            let late = self.keeper == Keeper::Linked && now.since(deadlines.kill) > LATE;
            let next = if late { now + LATE } else { now };
            self.killing = Some(Kill { since: now, next });
        }
        // A keeper that kills says so; one that is stopped cannot, and this process does it.
        if let Some(at) = self.unheard()
            && now >= at
            && self.killing.is_none()
        {
            self.killing = Some(Kill { since: at - KILL_BUDGET, next: now });
        }
        let Some(kill) = &mut self.killing else { return };
        if now < kill.next {
            return;
        }
        let age = now.since(kill.since);
        // The keeper reports as soon as it kills. One that does not is stopped or hangs.
        let alive = self.keeper != Keeper::Gone;
        let silent = alive && age >= KILL_BUDGET / 2 && now.since(self.heard) >= KILL_BUDGET / 2;
        let renewed = alive && !silent && self.deadlines.is_some_and(|deadlines| now < deadlines.kill);
        kill.next = now + if age < KILL_BUDGET { KILL_INTERVAL } else { KILL_INTERVAL_STUCK };
        if renewed {
            // A deadline that came late: what was killed is the keeper's to report.
            self.killing = None;
        } else if silent || self.silenced {
            if !std::mem::replace(&mut self.silenced, true) {
                self.show(Notice::KeeperLost("the process that kept the lock did not answer".into()));
                self.verdict = Some(self.lost("the process that kept it did not answer"));
            }
            self.actions.push(Action::KillAll);
        } else {
            self.actions.push(if alive { Action::KillTree } else { Action::KillAll });
        }
        if !alive && age >= KILL_BUDGET {
            // Nobody else tells any more, and nobody renews: the lease ends, and they live on.
            self.actions.push(Action::ShowStuck);
        }
    }
}

#[cfg(test)]
mod tests;
