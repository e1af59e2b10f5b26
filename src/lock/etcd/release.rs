//! Release of the lock, and whether it was held until then.

use std::time::Duration;

use tokio::time::timeout;

use distlock_core::error::Kind;
use distlock_core::etcd::key::KeyState;
use distlock_core::etcd::queue::OwnKey;
use distlock_core::outcome::{Outcome, Trouble};

use super::contender::Contender;
use super::lease_id::random_lease_id;
use super::transactions::{self, DeleteResult};

/// Time limit of one attempt if there is another endpoint.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for the answer to a pending lease grant, whose lease must be revoked too.
const GRANT_TIMEOUT: Duration = Duration::from_millis(500);

/// Time limit for revoking the leases of a deleted key. Nothing is bound to them, and they expire by themselves.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(1);

impl Contender {
    /// Releases the lock, or leaves the queue. Fails with a loss if the lock was not held until then.
    pub(super) async fn release_with_retry(&self) -> Outcome<()> {
        match self.release_at_endpoint().await {
            // The next connection has a new login.
            Err(Trouble::Fatal(failure)) if failure.kind == Kind::Denied => self.release_at_endpoint().await,
            released => released,
        }
    }

    /// Releases a lost key and its leases before the next key is created, and remembers the key.
    pub(super) async fn release_lost_key(&self) -> Outcome<()> {
        if self.state.borrow().lost.is_none() {
            return Ok(());
        }
        let (key, lost) = (self.key(), self.state.borrow().clone());
        match self.release_key().await {
            Ok(()) | Err(Trouble::Lost(_)) => {
                self.earlier_keys.borrow_mut().add(key, &lost);
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn release_at_endpoint(&self) -> Outcome<()> {
        if self.client.has_one_endpoint() {
            return self.release_key().await;
        }
        let changes = self.client.endpoint_changes();
        timeout(ATTEMPT_TIMEOUT, self.release_key()).await.unwrap_or_else(|_| {
            self.client.leave_silent_endpoint(changes);
            let cause = format!("{}: no answer within {ATTEMPT_TIMEOUT:?}", self.client.url(changes));
            Err(Trouble::no_answer(cause))
        })
    }

    /// Deletes the key, which releases the lock, and then revokes the leases.
    async fn release_key(&self) -> Outcome<()> {
        let _ = timeout(GRANT_TIMEOUT, self.grant.answer()).await;
        let KeyState { grant_sent, create_revision, held, .. } = self.state.borrow().clone();
        if !grant_sent {
            return Ok(());
        }
        if held || create_revision.is_some() {
            self.delete_key().await?;
        }
        match create_revision {
            Some(_) => drop(timeout(REVOKE_TIMEOUT, self.revoke_all()).await),
            // A pending request may still create the key. It needs the lease, and is deleted with it.
            None => self.revoke_all().await?,
        }
        self.keep_alive.replace(None);
        self.renewals.clear();
        // The next key has another lease, so that no delayed request for this one can affect it.
        let released = self.state.replace(KeyState::with_lease(random_lease_id().map_err(Trouble::Fatal)?));
        match released.lost {
            Some(cause) if held => Err(Trouble::Lost(cause)),
            _ => Ok(()),
        }
    }

    async fn delete_key(&self) -> Outcome<()> {
        let key = self.key();
        let deleted_before = std::mem::replace(&mut self.state.borrow_mut().deletion_sent, true);
        let create_revision = self.state.borrow().create_revision;
        let reply = self.client.read(transactions::delete(&key, create_revision)).await?;
        let found = match self.client.parsed(DeleteResult::parse(reply, &key))? {
            DeleteResult::Deleted(own) => {
                self.record_lease_of(&own);
                Some(own)
            }
            // An earlier request may have deleted the key, so its absence is no loss.
            DeleteResult::NotFound if deleted_before => return Ok(()),
            DeleteResult::NotFound => None,
        };
        if let Err(trouble @ Trouble::Lost(_)) = self.checked(found) {
            self.record_failure(&trouble);
        }
        Ok(())
    }

    /// Records the lease of a key of another process, which may have bound the key to a fresh lease.
    fn record_lease_of(&self, own: &OwnKey) {
        let mut state = self.state.borrow_mut();
        if state.create_revision.is_none() && own.lease > 0 && !state.leases.contains(own.lease) {
            state.leases.bind(own.lease);
        }
    }

    async fn revoke_all(&self) -> Outcome<()> {
        let leases: Vec<_> = self.state.borrow().leases.all().collect();
        for lease in leases {
            self.client.revoke(lease).await?;
        }
        Ok(())
    }
}
