//! The leases of one contender, and the change to a fresh one.
//!
//! A leader of etcd that stood still while it was replaced takes every lease that it had for expired when it goes on, and
//! asks its successor to revoke them, although they were renewed there (etcd's issue 15247). It knows nothing of leases
//! that were granted after its time. So once another leader is seen, the key is bound to a fresh lease: its place in the
//! queue and its token stay, and the old lease may end as it likes.

use super::view::{self, Rebound};
use super::{Contender, random_lease};
use crate::sys::clock;
use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

/// How often the key may be written by others during one change.
const WRITES: usize = 3;
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
        let s = clock::now();
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
        Err(Trouble::inconclusive(cause))
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
        Err(Trouble::inconclusive(cause))
    }
}
