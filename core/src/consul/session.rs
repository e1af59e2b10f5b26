//! What a contender has on the server.

use super::queue::View;
use crate::outcome::Queue;
use crate::time::Instant;

/// What a contender has on the server, from its session's creation to its end.
#[derive(Default)]
pub struct SessionState {
    pub session: Option<Session>,
    pub role: Role,
    /// A transaction that takes or frees the lock was sent, and no answer seen.
    pub in_doubt: bool,
    /// The taking of the lock by which those in the queue were passed, and which is being given back.
    pub passing: Option<u64>,
    /// The last try was refused for a lock-delay.
    pub lock_delay: bool,
    /// What was read and not yet acted upon.
    pub view: Option<View>,
    /// What the caller was told last.
    pub told: Option<Queue>,
    /// From where a holder waits for the next change of its lock.
    pub seen: Option<u64>,
    /// Which taking of the lock it was, and its token.
    pub taken: Option<(u64, Taken)>,
    /// Places that others left behind, to be deleted together with the lock.
    pub litter: Vec<String>,
    /// The held lock turned out to be lost.
    pub lost: bool,
}

/// One taking of the lock among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When the key came to be.
    pub create_index: u64,
    /// How often it was taken since, this time included.
    pub lock_index: u64,
}

impl Taken {
    /// Nobody took the lock since `before`, but for so many times, this one included.
    pub fn follows(self, before: Self, times: usize) -> bool {
        self.create_index == before.create_index && self.lock_index.checked_sub(before.lock_index) == Some(times as u64)
    }
}

/// A session.
#[derive(Clone)]
pub struct Session {
    pub id: String,
    pub sent_at: Instant,
}

/// How a contender stands to the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It has no key.
    #[default]
    Outside,
    /// It tried the lock, and may have a place in the queue.
    Contending,
    /// It has the lock.
    Holding,
    /// Another process made its session: whether it holds the lock or waits only the server knows.
    Adopted,
    /// The lock was given up, or found to be lost.
    Left { lost: bool },
}
