//! What is known about a contender's key, and about the keys that it held before.

use super::leases::Leases;
use super::queue::ContendersAhead;
use crate::outcome::Granted;

/// What a contender knows about its key. Revisions are those of etcd's store.
#[derive(Clone, Debug)]
pub struct KeyState {
    /// The contender's leases.
    pub leases: Leases,
    /// A grant was sent, so a lease and a key may exist on the server.
    pub grant_sent: bool,
    /// The lease, if its grant was answered.
    pub granted: Option<Granted>,
    /// Revision that created the key; None until it is known.
    pub create_revision: Option<i64>,
    /// Last revision at which the key was seen to exist; the watch continues from there.
    pub seen_revision: Option<i64>,
    /// Last revision at which the contender was seen to hold the lock.
    pub held_revision: Option<i64>,
    /// Raft term of the last confirmed read; 0 before the first one.
    pub term: u64,
    /// The contenders ahead in the queue; None if there are none or the queue was not read yet.
    pub ahead: Option<ContendersAhead>,
    /// The lock is held.
    pub held: bool,
    /// Why the lease or the key was lost.
    pub lost: Option<String>,
    /// A deletion of the key was sent, so it may have been applied.
    pub deletion_sent: bool,
}

impl KeyState {
    /// Creates the state of a contender that has sent nothing yet and will use this lease id.
    pub fn with_lease(lease: i64) -> Self {
        Self {
            leases: Leases::new(lease),
            grant_sent: false,
            granted: None,
            create_revision: None,
            seen_revision: None,
            held_revision: None,
            term: 0,
            ahead: None,
            held: false,
            lost: None,
            deletion_sent: false,
        }
    }
}

/// The keys that this contender has lost, in order, starting with the first that held the lock.
#[derive(Debug, Default)]
pub struct EarlierKeys(Vec<EarlierKey>);

#[derive(Debug)]
struct EarlierKey {
    key: String,
    create_revision: Option<i64>,
    held_revision: Option<i64>,
}

impl EarlierKeys {
    /// Adds a key that the contender has left. Does nothing until a key has held the lock.
    pub fn add(&mut self, key: String, state: &KeyState) {
        if state.held_revision.is_some() || !self.0.is_empty() {
            self.0.push(EarlierKey { key, create_revision: state.create_revision, held_revision: state.held_revision });
        }
    }

    /// Returns the last revision at which the key with this fencing token was seen to hold the lock, and that key with
    /// all later ones. None if there is no such key, or it was never seen to hold the lock.
    pub fn since(&self, token: u64) -> Option<(i64, Vec<String>)> {
        let has_token = |key: &EarlierKey| key.create_revision.map(i64::unsigned_abs) == Some(token);
        let first = self.0.iter().position(has_token)?;
        let keys = self.0[first..].iter().map(|earlier| earlier.key.clone()).collect();
        Some((self.0[first].held_revision?, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_starts_at_the_key_with_the_token() {
        let mut earlier = EarlierKeys::default();
        let state =
            |create_revision, held_revision| KeyState { create_revision, held_revision, ..KeyState::with_lease(1) };
        earlier.add("/x/0".into(), &state(Some(2), None));
        earlier.add("/x/1".into(), &state(Some(5), Some(7)));
        earlier.add("/x/2".into(), &state(None, None));
        earlier.add("/x/3".into(), &state(Some(12), Some(13)));
        assert_eq!(earlier.since(5), Some((7, vec!["/x/1".into(), "/x/2".into(), "/x/3".into()])));
        assert_eq!(earlier.since(12), Some((13, vec!["/x/3".into()])));
        assert_eq!((earlier.since(2), earlier.since(6)), (None, None));
    }
}
