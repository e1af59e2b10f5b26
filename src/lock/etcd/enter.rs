//! Entering the queue: a lease, and the key bound to it.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use distlock_core::outcome::{Granted, Outcome, Trouble};

use super::contender::{Contender, LeaseGrant};
use super::fault;
use super::lease_id::random_lease_id;
use super::transactions::{self, QueueSnapshot};
use crate::sys::clock;

/// Time between the lease grant and the transaction that needs the lease, on the same connection: long enough for the
/// grant to be applied first, and shorter than a round trip.
const GRANT_LEAD: Duration = Duration::from_millis(2);

impl Contender {
    /// Creates the lease and the key, unless an earlier call did, and reads the queue.
    pub(super) async fn enter_queue(&self) -> Outcome<(Granted, QueueSnapshot)> {
        let granted = self.state.borrow().granted;
        let (granted, queue) = match granted {
            Some(granted) => (granted, self.create_key_under_lease().await?),
            None => Box::pin(self.grant_and_enter()).await?,
        };
        self.state.borrow_mut().term = queue.term;
        Ok((granted, queue))
    }

    /// Creates the lease and, if that is safe without waiting for the grant's reply, also the key.
    async fn grant_and_enter(&self) -> Outcome<(Granted, QueueSnapshot)> {
        let connection = self.client.connection().await?;
        if !self.grant.is_pending() {
            self.start_grant()?;
        }
        // On a frozen connection both requests could be delayed, and applied after the release.
        let lead = if connection.answered_recently() { GRANT_LEAD } else { Duration::MAX };
        let enter = async {
            if let Ok(grant) = timeout(lead, self.grant_answer()).await {
                return (grant, Ok(None));
            }
            tokio::join!(self.grant_answer(), self.create_key())
        };
        let ((grant, early), ()) = tokio::join!(enter, self.revoke_unbound_leases());
        let granted = self.granted(&grant?);
        self.state.borrow_mut().granted = Some(granted);
        let queue = match early? {
            Some(queue) => queue,
            None => self.create_key_under_lease().await?,
        };
        Ok((granted, queue))
    }

    /// Requests the lease, under a new id if the old one may have been granted: a delayed request for that one could be
    /// applied after the release, and a key with it.
    fn start_grant(&self) -> Outcome<()> {
        let mut state = self.state.borrow_mut();
        if std::mem::replace(&mut state.grant_sent, true) {
            state.leases.replace(random_lease_id().map_err(Trouble::Fatal)?);
        }
        let (client, lease, ttl) = (Rc::clone(&self.client), state.leases.bound(), self.ttl);
        let sent_at = clock::now();
        self.grant.start(async move { Ok(LeaseGrant { sent_at, ttl: client.grant(lease, ttl).await? }) });
        Ok(())
    }

    /// Revokes earlier leases, which may have been granted, so that this contender does not wait behind its own old
    /// key.
    async fn revoke_unbound_leases(&self) {
        let leases = self.state.borrow().leases.others().to_vec();
        for lease in leases {
            // The grant reports a failure of the connection, and the release revokes these leases again.
            let _ = self.client.revoke(lease).await;
        }
    }

    async fn grant_answer(&self) -> Outcome<LeaseGrant> {
        let abandoned = || Err(Trouble::no_answer("no answer to the lease grant"));
        self.grant.answer().await.unwrap_or_else(abandoned)
    }

    /// Returns the terms of the lease: the TTL that the server granted, which can differ from the requested one.
    fn granted(&self, grant: &LeaseGrant) -> Granted {
        let LeaseGrant { sent_at, ttl } = *grant;
        if ttl > self.ttl {
            self.client.log(format!("etcd: granted a TTL of {ttl}s, the server's minimum, instead of {}s", self.ttl));
        }
        Granted { sent_at, cover: Some(Duration::from_secs(ttl.unsigned_abs())) }
    }

    /// Creates the key and reads the queue. Returns None if the server does not know the lease: it expired, or this
    /// request overtook the grant.
    async fn create_key(&self) -> Outcome<Option<QueueSnapshot>> {
        let lease = self.lease();
        let (key, value) = (self.key(), &self.record);
        let Some(reply) = self.client.txn(transactions::enter(&self.prefix, &key, lease, value)).await? else {
            return Ok(None);
        };
        self.client.parsed(QueueSnapshot::parse_enter(reply, &self.prefix, &key, lease, value)).map(Some)
    }

    async fn create_key_under_lease(&self) -> Outcome<QueueSnapshot> {
        self.create_key().await?.ok_or_else(fault::lease_lost)
    }
}
