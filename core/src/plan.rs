//! What the user asked for, as far as the decisions depend on it.

use std::time::Duration;

use jiff::tz::TimeZone;

/// What follows a loss of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// The command is killed; exit 76.
    Kill,
    /// The command is killed, the lock acquired again and the command run again.
    Restart,
    /// The command is frozen until the lock is confirmed again.
    Relock,
}

/// What happens to processes that outlive the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// They are terminated before the release.
    Kill,
    /// The lock is held until they have exited.
    Wait,
    /// They run on without the lock.
    Leave,
}

/// Everything that the keeper's state machine needs to know of the job.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the lock, for messages.
    pub name: String,
    /// Setting that named the servers, for messages: a flag, a variable, a key or a default.
    pub endpoints_source: String,
    /// Time zone of times in messages.
    pub time_zone: TimeZone,
    /// Time from the soft signal to KILL.
    pub grace: Duration,
    /// Longest wait for the lock; None: no limit; zero: one try.
    pub wait: Option<Duration>,
    /// Time limit for the first answer of any server.
    pub connect_timeout: Duration,
    /// What happens to processes that outlive the command.
    pub leftover: Leftover,
    /// What follows a loss.
    pub on_lost: OnLost,
    /// How often the command may be run again; None: no limit.
    pub restarts: Option<u32>,
}
