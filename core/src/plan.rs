//! The part of the configuration that the decisions depend on.

use std::time::Duration;

use jiff::tz::TimeZone;

/// Reaction to a loss of the lock (`--on-lost`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// The command is killed; exit code 76.
    Kill,
    /// The command is killed, the lock acquired again and the command run again.
    Restart,
    /// The command is frozen until the lock is confirmed again.
    Relock,
}

/// Treatment of processes that outlive the command (`--leftover`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// They are terminated before the release.
    Kill,
    /// The lock is held until they have exited.
    Wait,
    /// They continue to run without the lock.
    Leave,
}

/// The job as the keeper's state machine sees it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the lock, for messages.
    pub name: String,
    /// Origin of the endpoints, for messages: a flag, a variable, a key of the file or a default.
    pub endpoints_origin: String,
    /// Returns the time zone for times in messages. Only called for a message: to read it, many files are opened.
    pub time_zone: fn() -> TimeZone,
    /// Time from the soft signal to KILL.
    pub grace: Duration,
    /// Longest wait for the lock, and longest time for which a tree stays frozen; None: no limit; zero: one attempt.
    pub wait: Option<Duration>,
    /// Time limit for the first answer from any server and for a single attempt; when it is over while servers answer but
    /// grant nothing, a warning follows.
    pub connect_timeout: Duration,
    /// Treatment of processes that outlive the command.
    pub leftover: Leftover,
    /// Reaction to a loss of the lock.
    pub on_lost: OnLost,
    /// How often the command may run again after a loss; None: no limit.
    pub restarts: Option<u32>,
}
