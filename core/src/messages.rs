//! Messages between supervisor and keeper. The program transports them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::lease::Deadlines;
use crate::outcome::Queue;
use crate::signal::Signal;
use crate::time::Instant;

/// Message from the keeper to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeeper {
    /// Id of a lease or session that exists or is requested next.
    Lease(String),
    /// These deadlines apply from now on.
    Deadlines(Deadlines),
    /// The command was stopped by this signal.
    Stopped(Signal),
    /// The command was continued after it was stopped.
    Continued,
    /// The process tree is being killed and not yet dead. Also shows that the keeper is alive.
    Killing,
    /// The process tree is dead. The verdict is final unless the release reports a loss.
    Ended(Verdict),
    /// Event for the user. Some also change the deadlines that the supervisor guards.
    Notice(Notice),
    /// Facts that only the keeper knows, sent before [`FromKeeper::Done`].
    Account(Account),
    /// The process tree is dead, and the lock is released if the servers could be reached.
    Done {
        /// Result of the job.
        verdict: Verdict,
        /// The keeper stays to end a lease because the servers do not answer.
        lingers: bool,
    },
}

impl FromKeeper {
    /// Returns how this message changes the kill deadline: None if it does not; `Some(None)` if no deadline applies any
    /// more, because the command does not run or is frozen.
    #[must_use]
    pub fn kill_at(&self) -> Option<Option<Instant>> {
        match self {
            Self::Deadlines(deadlines) => Some(Some(deadlines.kill)),
            Self::Notice(Notice::Rejoining(_) | Notice::Restarting(_) | Notice::Relock(Step::Frozen))
            | Self::Ended(_)
            | Self::Done { .. } => Some(None),
            _ => None,
        }
    }

    /// Returns whether this message makes an unsent `older` one obsolete.
    #[must_use]
    pub fn replaces(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::Deadlines(_), Self::Deadlines(_))
            | (Self::Killing, Self::Killing)
            | (Self::Continued | Self::Stopped(_), Self::Stopped(_)) => true,
            (Self::Notice(newer), Self::Notice(older)) => matches!(
                (newer, older),
                (Notice::Waiting(_), Notice::Waiting(_)) | (Notice::Stuck(_), Notice::Stuck(_))
            ),
            _ => false,
        }
    }

    /// Returns whether this message may be dropped if too many are unsent.
    #[must_use]
    pub fn is_droppable(&self) -> bool {
        matches!(self, Self::Notice(Notice::Note(_)))
    }
}

/// Event for the user, from the keeper or the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Other contenders are ahead in the queue.
    Waiting(Queue),
    /// The position in the queue was lost; the cause. The command does not run, so earlier deadlines are void.
    Rejoining(String),
    /// Servers answer but cannot grant the lock; the cause.
    NotServed(String),
    /// The lock is held.
    Acquired {
        /// Fencing token.
        token: u64,
    },
    /// The command runs.
    Started,
    /// The lock was lost; the cause. The command is dead, and the lock is acquired again for another run.
    Restarting(String),
    /// A step of `--on-lost relock`.
    Relock(Step),
    /// The command is being terminated; the reason. For the first KILL it is "killed".
    Ending(String),
    /// These processes continue without the lock (`--leftover leave`).
    Left(Vec<Process>),
    /// These processes cannot be killed.
    Stuck(Vec<Process>),
    /// The keeper died or does not answer; the details.
    KeeperLost(String),
    /// Detail that only `-v` shows.
    Note(String),
}

/// Step of `--on-lost relock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A renewal was not confirmed; the cause.
    Uncertain(String),
    /// The whole process tree is stopped. Deadlines are void until [`Step::Thawed`].
    Frozen,
    /// The lock was acquired again, and no other client held it in between (rule 9).
    Relocked {
        /// The new fencing token.
        token: u64,
    },
    /// The command was continued.
    Thawed,
}

/// Message from the supervisor to the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSupervisor {
    /// The supervisor guards these deadlines, the newest that it received.
    Acknowledged(Deadlines),
    /// Signal to forward to the command.
    Signal(Signal),
    /// Signal that the whole process group received: a running command has it already; otherwise it ends the wait.
    GroupSignal(Signal),
    /// Kill the process tree now.
    Kill,
}

impl FromSupervisor {
    /// Returns whether this message makes an unsent `older` one obsolete.
    #[must_use]
    pub fn replaces(&self, older: &Self) -> bool {
        self == older
    }
}

/// Result of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The command exited with this code.
    Exited(i32),
    /// A signal killed the command.
    Signaled(Signal),
    /// distlock failed.
    Failed(Failure),
}

/// Facts for the report that only the keeper knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Number of confirmed renewals.
    pub renewals: u64,
    /// Result of the command in its last run; None if it never ran.
    pub command: Option<Verdict>,
    /// Resources used by the process tree.
    pub usage: Usage,
}

/// Process, as messages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Process name, as `ps` shows it.
    pub name: String,
}

/// Resources that processes used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, serialized in seconds.
    #[serde(with = "seconds")]
    pub user: Duration,
    /// CPU time in the kernel, serialized in seconds.
    #[serde(with = "seconds")]
    pub system: Duration,
    /// Largest resident set of one process, in bytes.
    pub max_rss: u64,
}

/// Serializes durations as seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}
