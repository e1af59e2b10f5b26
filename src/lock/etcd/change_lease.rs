//! Change to a fresh lease after the leader changed.
//!
//! A paused leader that was replaced asks, when it resumes, for the revocation of all leases it knew, although its
//! successor renewed them (etcd issue 15247). It does not know leases that were granted later. So the key is bound to a
//! fresh lease, which keeps its position and token, and the loss of the old lease does no harm.

use std::time::Duration;

use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

use super::contender::Contender;
use super::lease_id::random_lease_id;
use super::transactions::{self, BindResult};
use crate::sys::clock;

/// Number of attempts to bind the key if other clients write it at the same time.
const MAX_ATTEMPTS: usize = 3;

impl Contender {
    /// Binds the key to a fresh lease and returns `sent_at` of its grant. No renewal is needed: no replaced leader can
    /// have granted and bound the lease, because a majority committed both.
    ///
    /// A request whose reply is missing may be applied at any time later. So it demands that the key was not written
    /// since it was read, and only a successful one ends the change: that is a write, which makes all earlier requests
    /// fail.
    pub(super) async fn change_lease(&self) -> Outcome<Instant> {
        // Renewals of the old lease prove nothing any more.
        self.renewals.clear();
        let lease = random_lease_id().map_err(Trouble::Fatal)?;
        self.state.borrow_mut().leases.add_candidate(lease);
        let sent_at = clock::now();
        let (mut own, ()) = tokio::try_join!(self.confirm(), self.grant_no_shorter(lease))?;
        for _ in 0..MAX_ATTEMPTS {
            let bind = transactions::bind(&self.key(), own.create_revision, own.mod_revision, lease);
            let Some(reply) = self.client.txn(bind).await? else { break };
            match self.client.parsed(BindResult::parse(reply, &self.key()))? {
                BindResult::Bound { revision, term } => {
                    self.record_change(lease, revision, term);
                    return Ok(sent_at);
                }
                BindResult::KeyChanged(now) => own = self.checked(now)?,
            }
        }
        let cause = format!("{}: the key could not be bound to a fresh lease", self.client.endpoint());
        Err(Trouble::inconclusive(cause))
    }

    fn record_change(&self, lease: i64, revision: i64, term: u64) {
        let mut state = self.state.borrow_mut();
        state.leases.bind(lease);
        state.term = term;
        if state.held {
            state.held_revision = Some(revision);
        }
        self.client.log("etcd: the leader changed: the key has a fresh lease".to_owned());
    }

    /// Grants a lease that is not shorter than the first one, which the deadlines are based on.
    async fn grant_no_shorter(&self, lease: i64) -> Outcome<()> {
        let first = self.state.borrow().granted.and_then(|granted| granted.cover);
        let ttl = Duration::from_secs(self.client.grant(lease, self.ttl).await?.unsigned_abs());
        if first.is_none_or(|first| ttl >= first) {
            return Ok(());
        }
        let cause = format!("{}: granted a TTL of only {ttl:?}", self.client.endpoint());
        Err(Trouble::inconclusive(cause))
    }
}
