//! What the supervisor's machine remembers.

use std::time::Duration;

use super::events::{Action, Group};
use crate::error::Failure;
use crate::lease::{Deadlines, KILL_BUDGET};
use crate::messages::{Notice, Process, Verdict};
use crate::signal::Signal;
use crate::time::Instant;

/// Time for the keeper to exit after its last message.
pub(super) const KEEPER_EXIT_BUDGET: Duration = Duration::from_secs(1);
/// Time for a signal to reach all members of a process group. After it the witness is asked.
const GROUP_DELIVERY: Duration = Duration::from_millis(5);
/// A witness that has not answered within this time is stopped.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The command does not run.
    Waiting,
    /// The command may start or continue at any time, so the deadlines apply.
    Armed,
    Running,
    /// The process tree is stopped. No deadline applies; the keeper decides, or its death does.
    Frozen,
    /// The process tree is empty.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeeperState {
    Connected,
    /// The link is closed; the process exits or has exited.
    Disconnected,
    Exited,
}

/// The supervisor kills the tree itself, repeatedly until it is empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) since: Instant,
    pub(super) next: Instant,
}

/// Signal that was sent either to the supervisor alone or to its whole process group; the witness knows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UndecidedSignal {
    pub(super) signal: Signal,
    pub(super) received_at: Instant,
    pub(super) witness_asked: bool,
}

impl UndecidedSignal {
    /// Returns when to ask the witness or, after that, when to decide without its answer.
    pub(super) fn due(&self) -> Instant {
        self.received_at + if self.witness_asked { WITNESS_TIMEOUT } else { GROUP_DELIVERY }
    }
}

/// State machine of the supervisor.
#[derive(Debug)]
pub struct Machine {
    pub(super) lock_name: String,
    pub(super) group: Group,
    pub(super) undecided: Vec<UndecidedSignal>,
    /// The command is stopped by this signal.
    pub(super) command_stopped_by: Option<Signal>,
    /// The supervisor stops too, unless it has something to do.
    pub(super) stop_pending: bool,
    /// Signals that the witness received and the supervisor did not yet, each with the time when it is forgotten.
    pub(super) witnessed: Vec<(Signal, Instant)>,
    /// Signals that were handled without the witness, which may still report them, each with the time when it is
    /// forgotten.
    pub(super) handled: Vec<(Signal, Instant)>,
    /// The command may be run again, with the same descriptors.
    pub(super) may_restart: bool,
    pub(super) phase: Phase,
    pub(super) deadlines: Option<Deadlines>,
    /// A lease may exist on the servers.
    pub(super) lease_exists: bool,
    /// The first INT or TERM.
    pub(super) first_signal: Option<(Signal, Instant)>,
    /// When the user first requested that the command is killed.
    pub(super) kill_requested_at: Option<Instant>,
    pub(super) keeper: KeeperState,
    /// When the keeper sent its last message.
    pub(super) last_message_at: Instant,
    pub(super) kill: Option<Kill>,
    /// The processes that were last shown as impossible to kill.
    pub(super) stuck: Vec<Process>,
    pub(super) verdict: Option<Verdict>,
    /// The keeper was killed because it did not respond.
    pub(super) keeper_unresponsive: bool,
    /// The keeper has released the lock as far as the servers could be reached.
    pub(super) lock_released: bool,
    /// The keeper stays to end a lease whose servers do not answer.
    pub(super) keeper_lingers: bool,
    /// A keeper that has not exited by then is stopped or hangs.
    pub(super) keeper_exit_deadline: Option<Instant>,
    pub(super) actions: Vec<Action>,
}

impl Machine {
    /// Creates a machine whose keeper was just forked. `may_restart`: the command may be run more than once.
    #[must_use]
    pub fn new(lock_name: &str, group: Group, may_restart: bool, now: Instant) -> Self {
        Self {
            lock_name: lock_name.to_owned(),
            group,
            undecided: Vec::new(),
            command_stopped_by: None,
            stop_pending: false,
            witnessed: Vec::new(),
            handled: Vec::new(),
            may_restart,
            phase: Phase::Waiting,
            deadlines: None,
            lease_exists: false,
            first_signal: None,
            kill_requested_at: None,
            keeper: KeeperState::Connected,
            last_message_at: now,
            kill: None,
            stuck: Vec::new(),
            verdict: None,
            keeper_unresponsive: false,
            lock_released: false,
            keeper_lingers: false,
            keeper_exit_deadline: None,
            actions: Vec::new(),
        }
    }

    /// Returns whether messages from the keeper can still arrive.
    #[must_use]
    pub fn link_open(&self) -> bool {
        self.keeper == KeeperState::Connected
    }

    /// Returns when [`super::Event::Tick`] is needed next, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let deadline = self
            .deadlines
            .filter(|_| matches!(self.phase, Phase::Armed | Phase::Running) && self.kill.is_none())
            .map(|deadlines| deadlines.kill);
        let kill = self.kill.map(|kill| kill.next);
        let unanswered = self.kill_request_deadline().filter(|_| self.kill.is_none());
        let undecided = self.undecided.iter().map(UndecidedSignal::due).min();
        deadline.into_iter().chain(kill).chain(unanswered).chain(undecided).chain(self.keeper_exit_deadline).min()
    }

    /// Returns when a keeper that has sent nothing since the user requested a kill counts as unresponsive.
    pub(super) fn kill_request_deadline(&self) -> Option<Instant> {
        let unanswered = self.tree_may_run() && !self.keeper_exited();
        self.kill_requested_at.filter(|at| unanswered && self.last_message_at <= *at).map(|at| at + KILL_BUDGET)
    }

    pub(super) fn tree_may_run(&self) -> bool {
        matches!(self.phase, Phase::Armed | Phase::Running | Phase::Frozen)
    }

    pub(super) fn keeper_exited(&self) -> bool {
        self.keeper == KeeperState::Exited
    }

    pub(super) fn show(&mut self, notice: Notice) {
        self.actions.push(Action::Show(notice));
    }

    pub(super) fn lost_verdict(&self, cause: &str) -> Verdict {
        Verdict::Failed(Failure::lost(&self.lock_name, cause))
    }

    pub(super) fn finish(&mut self) {
        let fault = || Verdict::Failed(Failure::fault("the keeper process exited without a verdict"));
        let verdict = self.verdict.clone().unwrap_or_else(fault);
        self.actions.push(Action::Finish(verdict));
    }

    /// Finishes in place of the keeper, which left its lease to the supervisor.
    pub(super) fn release_and_finish(&mut self) {
        if self.lease_exists {
            self.actions.push(Action::Release);
        }
        self.finish();
    }
}
