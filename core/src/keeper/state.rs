//! What the keeper's machine remembers, and the questions that all its parts ask.

use super::events::{Action, Request};
use super::requests::Requests;
use super::restarts::Restarts;
use crate::lease::{Deadlines, Lease};
use crate::messages::{FromKeeper, Notice, Verdict};
use crate::outcome::Queue;
use crate::plan::Plan;
use crate::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the queue, or not connected.
    Seeking,
    /// The lock is held; the command does not run yet.
    Held {
        /// The deadlines were sent to the supervisor.
        offered: bool,
        /// The supervisor has acknowledged them.
        acknowledged: bool,
    },
    /// The command is forked; its program does not run yet.
    Starting,
    Running,
    /// The command has exited with this verdict; its descendants are left.
    Clearing(Verdict),
    /// The process tree is empty; the lock is released before this verdict is sent.
    Releasing(Verdict),
    Done,
}

/// Why the process tree is terminated. Later variants take precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TerminationReason {
    Leftover,
    Killed,
    Orphaned,
    Broken(String),
    Lost(String),
}

impl TerminationReason {
    pub(super) fn precedence(&self) -> u8 {
        match self {
            Self::Leftover => 0,
            Self::Killed => 1,
            Self::Orphaned => 2,
            Self::Broken(_) => 3,
            Self::Lost(_) => 4,
        }
    }
}

/// The process tree is being terminated: KILL is sent at `kill_at`, then at each `next_kill` until the tree is empty.
#[derive(Clone, Debug)]
pub(super) struct Termination {
    pub(super) reason: TerminationReason,
    pub(super) kill_at: Instant,
    pub(super) next_kill: Instant,
}

/// The process tree is stopped while the lock is uncertain (rule 9).
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) since: Instant,
    /// When the tree is killed if it is not stopped yet.
    pub(super) kill_at: Instant,
    /// When SIGSTOP is sent again.
    pub(super) next_stop: Instant,
    pub(super) stage: FreezeStage,
    /// The lease that the command ran under is lost. A new one counts only once it is verified that no other client
    /// held the lock in between.
    pub(super) reacquiring: bool,
    /// Fencing token of the lock that the command ran under. Tokens of later, unverified acquisitions do not count.
    pub(super) last_run_token: u64,
    pub(super) cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FreezeStage {
    /// Some processes are not stopped yet.
    Stopping,
    /// The whole tree is stopped.
    Stopped,
    /// The lock is confirmed again, and its deadlines were sent to the supervisor.
    Offered,
}

/// Failed request, and what the user can do about it if the answer showed that.
#[derive(Debug)]
pub(super) struct RecentFailure {
    cause: String,
    hint: Option<String>,
}

/// How many failed requests are remembered.
const MAX_RECENT_FAILURES: usize = 4;

/// State machine of the keeper.
#[derive(Debug)]
pub struct Machine {
    pub(super) plan: Plan,
    /// Start of `--wait` and `--connect-timeout`.
    pub(super) seeking_since: Instant,
    pub(super) phase: Phase,
    /// The current lease; None if there is none or if the lock cannot expire.
    pub(super) lease: Option<Lease>,
    pub(super) requests: Requests,
    pub(super) termination: Option<Termination>,
    pub(super) frozen: Option<Frozen>,
    /// The last deadlines that the supervisor must acknowledge.
    pub(super) offered_deadlines: Option<Deadlines>,
    pub(super) orphaned: bool,
    /// A signal was received that asks the command to end.
    pub(super) asked_to_end: bool,
    pub(super) restarts: Restarts,
    /// Cause of the loss that ended the last run, until the command starts again.
    pub(super) previous_loss: Option<String>,
    /// Fencing token; zero before the first acquisition.
    pub(super) token: u64,
    /// A contender was requested, so the servers may hold a lease or key of it.
    pub(super) may_have_entered: bool,
    /// A server has answered, if only with an error.
    pub(super) server_answered: bool,
    /// A server has accepted the contender once.
    pub(super) accepted_once: bool,
    /// [`Notice::NotServed`] was sent.
    pub(super) warned_not_served: bool,
    pub(super) queue: Option<Queue>,
    /// The last few failed requests, for the final message.
    pub(super) recent_failures: Vec<RecentFailure>,
    pub(super) actions: Vec<Action>,
}

impl Machine {
    /// Creates a machine that starts to seek the lock at `now`.
    #[must_use]
    pub fn new(plan: Plan, now: Instant) -> Self {
        let mut requests = Requests::default();
        requests.schedule(Request::Enter, now);
        Self {
            plan,
            seeking_since: now,
            phase: Phase::Seeking,
            lease: None,
            requests,
            termination: None,
            frozen: None,
            offered_deadlines: None,
            orphaned: false,
            asked_to_end: false,
            restarts: Restarts::default(),
            previous_loss: None,
            token: 0,
            may_have_entered: false,
            server_answered: false,
            accepted_once: false,
            warned_not_served: false,
            queue: None,
            recent_failures: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Returns the fencing token of the lock that the command ran under; continuity is verified from there on.
    #[must_use]
    pub fn last_run_token(&self) -> u64 {
        self.frozen.as_ref().map_or(self.token, |frozen| frozen.last_run_token)
    }

    pub(super) fn seeking(&self) -> bool {
        matches!(self.phase, Phase::Seeking | Phase::Held { .. })
    }

    /// Returns whether the command or a descendant may run.
    pub(super) fn tree_may_run(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Clearing(_))
    }

    pub(super) fn terminating_for_loss(&self) -> bool {
        self.termination.as_ref().is_some_and(|termination| matches!(termination.reason, TerminationReason::Lost(_)))
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.send(FromKeeper::Notice(notice));
    }

    pub(super) fn send(&mut self, message: FromKeeper) {
        self.actions.push(Action::Send(message));
    }

    pub(super) fn abandon_all(&mut self) {
        for request in Request::ALL {
            if self.requests.abandon(request) {
                self.actions.push(Action::Abandon(request));
            }
        }
    }

    /// Keeps the cause among the last few, for the final message; returns whether it is a new one.
    pub(super) fn remember_cause(&mut self, cause: String, hint: Option<String>) -> bool {
        let known = self.recent_failures.len();
        self.recent_failures.retain(|failure| failure.cause != cause);
        let new = self.recent_failures.len() == known;
        self.recent_failures.push(RecentFailure { cause, hint });
        if self.recent_failures.len() > MAX_RECENT_FAILURES {
            self.recent_failures.remove(0);
        }
        new
    }

    pub(super) fn recent_causes(&self) -> impl Iterator<Item = String> {
        self.recent_failures.iter().map(|failure| failure.cause.clone())
    }

    /// Returns the hint of the last failure that has one.
    pub(super) fn recent_hint(&self) -> Option<String> {
        self.recent_failures.iter().rev().find_map(|failure| failure.hint.clone())
    }
}
