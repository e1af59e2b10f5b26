//! The leases of one contender, and the change to a fresh one.
//!
//! A leader of etcd that stood still while it was replaced takes every lease that it had for expired when it goes on, and
//! asks its successor to revoke them, although they were renewed there (etcd's issue 15247). It knows nothing of leases
//! that were granted after its time. So once another leader is seen, the key is bound to a fresh lease: its place in the
//! queue and its token stay, and the old lease may end as it likes.

use super::view::{self, Rebound};
use super::{Contender, random_lease};
use crate::backend::{Outcome, Trouble};
use crate::clock::Instant;

/// How often the key may be written by others during one change.
const WRITES: usize = 3;
/// So many leases are remembered, to be revoked with the lock. Older ones have expired by themselves.
const REMEMBERED: usize = 8;

/// Which leases are a contender's own. Pure.
#[derive(Clone, Debug)]
pub struct Leases {
    first: i64,
    bound: i64,
    others: Vec<i64>,
    changing: bool,
}

impl Leases {
    /// One lease, to which the key is going to be bound.
    pub fn new(lease: i64) -> Self {
        Self { first: lease, bound: lease, others: Vec::new(), changing: false }
    }

    /// The lease that the key is named after.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// The lease that the key is bound to, unless a change is under way.
    pub fn bound(&self) -> i64 {
        self.bound
    }

    /// Whether the key may be bound to another lease already, or is to be.
    pub fn changing(&self) -> bool {
        self.changing
    }

    /// Whether it is one of ours.
    pub fn ours(&self, lease: i64) -> bool {
        self.bound == lease || self.others.contains(&lease)
    }

    /// Nothing is known of what became of the first, and of its key: another one takes its place.
    pub fn start_anew(&mut self, lease: i64) {
        self.remember(self.bound);
        (self.first, self.bound) = (lease, lease);
    }

    /// Those that the key is not known to be bound to.
    pub fn others(&self) -> &[i64] {
        &self.others
    }

    /// All of them, the bound one first.
    pub fn all(&self) -> impl Iterator<Item = i64> {
        std::iter::once(self.bound).chain(self.others.iter().copied())
    }

    /// The key must get another lease. Until it has one, nothing is known of the old one.
    pub fn change(&mut self) {
        self.changing = true;
    }

    /// A lease that the key may be bound to from now on.
    pub fn try_another(&mut self, lease: i64) {
        self.changing = true;
        self.remember(lease);
    }

    fn remember(&mut self, lease: i64) {
        if self.others.len() == REMEMBERED {
            self.others.remove(0);
        }
        self.others.push(lease);
    }

    /// The key is bound to this one, and no request that is still under way can bind it to another.
    pub fn changed_to(&mut self, lease: i64) {
        self.others.retain(|other| *other != lease);
        self.others.push(std::mem::replace(&mut self.bound, lease));
        self.changing = false;
    }
}

impl Contender {
    /// Binds the key to a fresh lease. Returns the `s` of that lease: no renewal is needed, since what a majority has granted
    /// and bound no replaced leader can have made up.
    ///
    /// A request whose reply is missed may be applied at any time later. So it demands that the key was not written
    /// since it was read, and only one that succeeded ends the change: it is a write, so it voids all before it.
    pub(super) async fn change_lease(&self) -> Outcome<Instant> {
        // Those of the old lease prove nothing any more.
        self.renewing.clear();
        let lease = random_lease().map_err(Trouble::Fatal)?;
        self.entry.borrow_mut().leases.try_another(lease);
        let s = Instant::now();
        let ((mut own, _), ()) = tokio::try_join!(self.confirm(), self.grant_no_less(lease))?;
        for _ in 0..WRITES {
            let rebind = view::rebind(&self.key(), own.created, own.modified, lease);
            let Some(reply) = self.client.txn(rebind).await? else { break };
            match self.client.understood(Rebound::of(reply, &self.key()))? {
                Rebound::Done { revision, term } => {
                    self.changed(lease, revision, term);
                    return Ok(s);
                }
                Rebound::Written(now) => own = self.checked(now)?,
            }
        }
        let cause = format!("{}: the key could not be bound to a fresh lease", self.client.endpoint());
        Err(Trouble::Uncertain { answered: true, cause })
    }

    fn changed(&self, lease: i64, revision: i64, term: u64) {
        let mut entry = self.entry.borrow_mut();
        entry.leases.changed_to(lease);
        entry.term = term;
        if entry.held {
            entry.held_at = Some(revision);
        }
        self.client.note("etcd: another leader: the key has a fresh lease".to_owned());
    }

    /// The deadlines are those of the first lease, so another must not be shorter.
    async fn grant_no_less(&self, lease: i64) -> Outcome<()> {
        let before = self.entry.borrow().granted.and_then(|granted| granted.cover);
        let ttl = std::time::Duration::from_secs(self.client.grant(lease, self.ttl).await?.unsigned_abs());
        if before.is_none_or(|before| ttl >= before) {
            return Ok(());
        }
        let cause = format!("{}: granted a TTL of {ttl:?} only", self.client.endpoint());
        Err(Trouble::Uncertain { answered: true, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_over_when_one_succeeded() {
        let mut leases = Leases::new(1);
        assert!(leases.ours(1) && !leases.ours(2) && !leases.changing());
        leases.try_another(2);
        leases.try_another(3);
        assert!(leases.changing() && leases.ours(1) && leases.ours(2) && leases.ours(3));
        assert_eq!(leases.bound(), 1);
        leases.changed_to(3);
        assert!(!leases.changing());
        assert_eq!((leases.first(), leases.bound()), (1, 3));
        assert_eq!(leases.all().collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn one_that_may_have_been_granted_is_remembered() {
        let mut leases = Leases::new(1);
        leases.start_anew(2);
        assert_eq!((leases.first(), leases.bound(), leases.others()), (2, 2, &[1][..]));
        assert!(!leases.changing());
    }

    #[test]
    fn not_all_are_remembered() {
        let mut leases = Leases::new(1);
        for lease in 2..100 {
            leases.try_another(lease);
            leases.changed_to(lease);
        }
        assert_eq!(leases.all().next(), Some(99));
        assert!(leases.all().count() <= REMEMBERED + 2);
        assert!(leases.ours(98) && !leases.ours(1));
    }
}
