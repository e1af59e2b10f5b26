//! What a server's answer means for one contender.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::record::Record;
use crate::time::Instant;

/// Lease or session that a server granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Sampled before the request was sent that created the lease or session (rule 1).
    pub sent_at: Instant,
    /// How long the server excludes other clients, counted from `sent_at`: the granted TTL, on Consul at most the
    /// lock-delay. None if the lock cannot expire (local).
    pub cover: Option<Duration>,
}

/// Position of a contender in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Holds the lock, confirmed by a read that was sent after the predecessor left.
    Held {
        /// Fencing token: grows with every acquisition of this lock.
        token: u64,
        /// The key (or file) that represents the lock, as users see it.
        key: String,
    },
    /// Waits behind other contenders.
    Queued(Queue),
}

/// The contenders ahead of this one, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Number of contenders ahead, the holder included; None if the backend does not tell.
    pub ahead: Option<u32>,
    /// The holder, if it could be read. A foreign holder has an almost empty record.
    pub holder: Option<Record>,
    /// The lock is free, but the lock-delay of a lost session keeps it closed.
    pub lock_delay: bool,
}

/// Why a request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or an answer that says nothing about the lock. A retry or another endpoint may succeed.
    Uncertain {
        /// A server answered, if only with an error, so it is reachable.
        answered: bool,
        /// What was tried, at which endpoint, and what failed. Holds no secret.
        cause: String,
        /// What the user can do about it, if the answer shows that.
        hint: Option<String>,
    },
    /// The server says that the lease, session or key is gone or belongs to another client.
    Lost(String),
    /// The holder was asked to stop (`distlock break`); names the requester.
    Broken(String),
    /// No retry can succeed: access denied, server not trusted, a name that the backend cannot hold.
    Fatal(Failure),
}

impl Trouble {
    /// Creates an uncertain outcome of a request that no server answered.
    pub fn no_answer(cause: impl Into<String>) -> Self {
        Self::Uncertain { answered: false, cause: cause.into(), hint: None }
    }

    /// Creates an uncertain outcome of a request whose answer says nothing about the lock.
    pub fn inconclusive(cause: impl Into<String>) -> Self {
        Self::Uncertain { answered: true, cause: cause.into(), hint: None }
    }

    /// Returns the description on one line.
    #[must_use]
    pub fn into_cause(self) -> String {
        match self {
            Self::Uncertain { cause, .. } | Self::Lost(cause) | Self::Broken(cause) => cause,
            Self::Fatal(failure) => failure.into_line(),
        }
    }
}

/// Result of a request about the lock.
pub type Outcome<T> = Result<T, Trouble>;
