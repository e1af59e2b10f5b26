//! One key of a contender, and what is known of it; and those that it had before. Pure.

use super::leases::Leases;
use super::queue::Line;
use crate::outcome::Granted;

/// One key of this contender, and what is known of it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub leases: Leases,
    /// A grant was sent, so something may stand on the server.
    pub asked: bool,
    pub granted: Option<Granted>,
    /// The revision that created our key, once it is known.
    pub created: Option<i64>,
    /// The last revision at which our key was seen; watching goes on from there.
    pub seen: Option<i64>,
    /// The last revision at which this contender was seen to hold the lock.
    pub held_at: Option<i64>,
    /// The Raft term of the last confirmed read.
    pub term: u64,
    pub line: Option<Line>,
    pub held: bool,
    /// How the lease or the key was lost.
    pub lost: Option<String>,
    /// The key's deletion was asked for.
    pub leaving: bool,
}

impl Entry {
    pub fn with_lease(lease: i64) -> Self {
        Self {
            leases: Leases::new(lease),
            asked: false,
            granted: None,
            created: None,
            seen: None,
            held_at: None,
            term: 0,
            line: None,
            held: false,
            lost: None,
            leaving: false,
        }
    }
}

/// The keys that this contender had and lost, in order.
#[derive(Debug, Default)]
pub struct Past(Vec<Former>);

#[derive(Debug)]
struct Former {
    key: String,
    created: Option<i64>,
    held_at: Option<i64>,
}

impl Past {
    /// Remembers an entry that is left behind. Before anything was held there is nothing to be remembered.
    pub fn add(&mut self, key: String, entry: &Entry) {
        if entry.held_at.is_some() || !self.0.is_empty() {
            self.0.push(Former { key, created: entry.created, held_at: entry.held_at });
        }
    }

    /// The revision up to which the key that was created at `token` is known to have held the lock, and that key with all
    /// that followed it. None where no such key was held.
    pub fn since(&self, token: u64) -> Option<(i64, Vec<String>)> {
        let is = |former: &Former| former.created.map(i64::unsigned_abs) == Some(token);
        let first = self.0.iter().position(is)?;
        let keys = self.0[first..].iter().map(|former| former.key.clone()).collect();
        Some((self.0[first].held_at?, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproved_key_does_not_take_the_place_of_the_one_that_the_command_ran_under() {
        let mut past = Past::default();
        let held = |created, held_at| Entry { created, held_at, ..Entry::with_lease(1) };
        past.add("/x/0".into(), &held(Some(2), None));
        past.add("/x/1".into(), &held(Some(5), Some(7)));
        past.add("/x/2".into(), &held(None, None));
        past.add("/x/3".into(), &held(Some(12), Some(13)));
        assert_eq!(past.since(5), Some((7, vec!["/x/1".into(), "/x/2".into(), "/x/3".into()])));
        assert_eq!(past.since(12), Some((13, vec!["/x/3".into()])));
        assert_eq!((past.since(2), past.since(6)), (None, None));
    }
}
