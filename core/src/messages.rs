//! The messages between supervisor and keeper. How they travel is the program's matter.

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
    /// Names a lease or session that was created or is about to be.
    Lease(String),
    /// These deadlines apply from now on.
    Deadlines(Deadlines),
    /// The command was stopped by this signal.
    Stopped(Signal),
    /// The command was continued after it was stopped.
    Continued,
    /// The process tree is being killed and not dead yet. Shows that the keeper is alive.
    Killing,
    /// The process tree is gone. This is the verdict unless the release reports a loss.
    Ended(Verdict),
    /// Tells the user something; some notices also change what the supervisor guards.
    Notice(Notice),
    /// What only the keeper knows, sent before [`FromKeeper::Done`].
    Account(Account),
    /// The process tree is gone, and the lock released as far as the servers could be reached.
    Done {
        /// How it ended.
        verdict: Verdict,
        /// The keeper stays to end a lease whose servers do not answer.
        lingers: bool,
    },
}

impl FromKeeper {
    /// Returns how this message changes the kill deadline: None if it does not, `Some(None)` if no deadline applies any
    /// more because the command does not run or is frozen.
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

/// Event that the user may be told, by the keeper or by the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Other contenders are ahead in the queue.
    Waiting(Queue),
    /// The position in the queue was lost, and why. The command does not run, so earlier deadlines are void.
    Rejoining(String),
    /// Servers answer but cannot grant the lock, and why.
    NotServed(String),
    /// The lock is held.
    Acquired {
        /// Fencing token.
        token: u64,
    },
    /// The command runs.
    Started,
    /// The lock was lost, and why. The command was terminated; the lock is acquired again for another run.
    Restarting(String),
    /// A step of `--on-lost relock`.
    Relock(Step),
    /// The command is being terminated, and why.
    Ending(String),
    /// These processes run on without the lock, as the user asked for.
    Left(Vec<Process>),
    /// These processes cannot be killed.
    Stuck(Vec<Process>),
    /// The keeper died or does not answer.
    KeeperLost(String),
    /// Shown by `-v` only.
    Note(String),
}

/// Step of `--on-lost relock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A renewal was not confirmed, and why.
    Uncertain(String),
    /// The whole process tree is stopped. Deadlines are void until [`Step::Thawed`].
    Frozen,
    /// The lock was acquired again, and no other client held it in between.
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
    /// The supervisor guards these deadlines, the last ones it was sent.
    Acknowledged(Deadlines),
    /// A signal to forward to the command.
    Signal(Signal),
    /// A signal that the whole process group got: the command has it already if it ran, otherwise it ends the wait.
    GroupSignal(Signal),
    /// Kill the command now.
    Kill,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The command exited with this code.
    Exited(i32),
    /// The command was killed by this signal.
    Signaled(Signal),
    /// distlock failed.
    Failed(Failure),
}

/// What only the keeper knows of a run, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Number of confirmed renewals.
    pub renewals: u64,
    /// How the command itself ended in its last run.
    pub command: Option<Verdict>,
    /// Resources used by the process tree.
    pub usage: Usage,
}

/// One process, as messages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Name, as `ps` shows it.
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

/// Serializes durations as numbers of seconds.
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
