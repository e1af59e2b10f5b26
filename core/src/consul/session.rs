//! What a contender has on the server.

use super::queue::Snapshot;
use crate::outcome::Queue;
use crate::time::Instant;

/// What a contender has on the server, from the creation of its session to the release.
#[derive(Default)]
pub struct SessionState {
    /// The session; None before its creation and after the release. It may have ended meanwhile.
    pub session: Option<Session>,
    /// Relation of the contender to the lock.
    pub role: Role,
    /// A transaction that acquires or frees the lock was sent, and its effect is not known yet.
    pub in_doubt: bool,
    /// Modify index of an acquisition that passed waiters and is being given back.
    pub giving_back: Option<u64>,
    /// The last attempt was refused because of a lock-delay.
    pub lock_delay: bool,
    /// Last read that has not been acted on.
    pub snapshot: Option<Snapshot>,
    /// The last queue that was reported to the caller.
    pub reported: Option<Queue>,
    /// Index from which a holder watches its lock.
    pub watch_index: Option<u64>,
    /// Fencing token of the acquisition, and the acquisition.
    pub acquired: Option<(u64, Acquisition)>,
    /// Keys of ended waiters, to be deleted together with the lock.
    pub stale_keys: Vec<String>,
    /// The held lock turned out to be lost.
    pub lost: bool,
}

/// One acquisition of a lock, identified by what the server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquisition {
    /// Raft index at which the lock's key was created.
    pub create_index: u64,
    /// How often the key was acquired since, this acquisition included.
    pub lock_index: u64,
}

impl Acquisition {
    /// Returns whether the lock was acquired exactly `times` times since `earlier`, this acquisition included. If the
    /// contender itself has acquired it that often, no other client has (rule 9).
    pub fn follows(self, earlier: Self, times: usize) -> bool {
        self.create_index == earlier.create_index
            && self.lock_index.checked_sub(earlier.lock_index) == Some(times as u64)
    }
}

/// Session that the server created.
#[derive(Clone)]
pub struct Session {
    /// Its id, a UUID.
    pub id: String,
    /// Sampled before the request was sent that created it (rule 1).
    pub sent_at: Instant,
}

/// Relation of a contender to the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It has no key.
    #[default]
    Outside,
    /// It has tried to acquire the lock, and may be in the queue.
    Contending,
    /// It holds the lock.
    Holding,
    /// Another process created its session: only the server knows whether it holds the lock or waits.
    Adopted,
    /// It released the lock or found that it is lost.
    Left {
        /// The release found that another session held the lock, or none.
        lost: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acquisition_by_another_client_breaks_continuity() {
        let first = Acquisition { create_index: 7, lock_index: 1 };
        let third = Acquisition { lock_index: 3, ..first };
        assert!(third.follows(first, 2));
        assert!(!third.follows(first, 1));
        assert!(!first.follows(third, 2));
        assert!(!Acquisition { create_index: 8, ..third }.follows(first, 2));
    }
}
