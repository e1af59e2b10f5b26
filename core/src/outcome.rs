//! What a server's answer means for a contender.

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
    /// How long the server excludes other clients after `sent_at`: the granted TTL, on Consul at most the lock-delay. None if
    /// the lock does not expire (backend local).
    pub cover: Option<Duration>,
}

/// Position of a contender in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// The contender holds the lock, confirmed by a read that was sent after the predecessor left.
    Held {
        /// Fencing token. It grows with each acquisition of this lock.
        token: u64,
        /// Key or file that represents the lock, for messages.
        key: String,
    },
    /// The contender waits behind others.
    Queued(Queue),
}

/// The contenders ahead of this one, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Number of contenders ahead, the holder included; None if the backend does not know it.
    pub ahead: Option<u32>,
    /// Record of the holder, if it could be read. Other tools write almost empty ones.
    pub holder: Option<Record>,
    /// The lock is free, but a lock-delay excludes all clients.
    pub lock_delay: bool,
}

/// Why a request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or an answer that proves nothing about the lock. A retry or another endpoint may succeed.
    Uncertain {
        /// A server answered, possibly with an error, so it is reachable.
        answered: bool,
        /// Endpoint, request and error. Contains no secret.
        cause: String,
        /// What the user can do, if the answer shows it.
        hint: Option<String>,
    },
    /// The server says that the lease or session ended, or that the key was deleted or belongs to another client. Says why.
    Lost(String),
    /// The holder was asked to stop (`distlock break`). Names the requester.
    Broken(String),
    /// No retry can succeed: access denied, server not trusted, name not allowed.
    Fatal(Failure),
}

impl Trouble {
    /// Creates the trouble of a request that no server answered.
    pub fn no_answer(cause: impl Into<String>) -> Self {
        Self::Uncertain { answered: false, cause: cause.into(), hint: None }
    }

    /// Creates the trouble of a request whose answer proves nothing about the lock.
    pub fn inconclusive(cause: impl Into<String>) -> Self {
        Self::Uncertain { answered: true, cause: cause.into(), hint: None }
    }

    /// Returns the cause on one line.
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
