//! Giving the lock up, and the truth about it.

use std::time::Duration;

use tokio::time::timeout;

use super::Contender;
use super::view::{self, Left};
use distlock_core::error::Kind;
use distlock_core::etcd::entry::Entry;
use distlock_core::etcd::queue::Own;
use distlock_core::outcome::{Outcome, Trouble};

/// How long one try may take where there is another endpoint.
const ONE_TRY: Duration = Duration::from_secs(1);

/// How long a release waits for the answer to a grant that it finds under way.
const SETTLE: Duration = Duration::from_millis(500);

/// How long the leases are waited for, once the key is gone: nothing is bound to them any more, and they end by themselves.
const AFTERWARDS: Duration = Duration::from_secs(1);

impl Contender {
    pub(super) async fn give_up(&self) -> Outcome<()> {
        match self.try_release_here().await {
            // The next connection logs in anew.
            Err(Trouble::Fatal(failure)) if failure.kind == Kind::Denied => self.try_release_here().await,
            released => released,
        }
    }

    async fn try_release_here(&self) -> Outcome<()> {
        if self.client.is_alone() {
            return self.try_release().await;
        }
        let turn = self.client.turn();
        timeout(ONE_TRY, self.try_release()).await.unwrap_or_else(|_| {
            self.client.overdue(turn);
            let cause = format!("{}: no answer within {ONE_TRY:?}", self.client.url(turn));
            Err(Trouble::no_answer(cause))
        })
    }

    /// Deletes the key, which frees the lock and tells whether it was there to the end; then ends the leases.
    pub(super) async fn try_release(&self) -> Outcome<()> {
        // What it grants is to be given up too.
        let _ = timeout(SETTLE, self.granting.answer()).await;
        let Entry { asked, created, held, .. } = self.entry.borrow().clone();
        if !asked {
            return Ok(());
        }
        if held || created.is_some() {
            self.delete_key().await?;
        }
        match created {
            Some(_) => drop(timeout(AFTERWARDS, self.revoke_all()).await),
            // A request that creates the key may still be under way: it needs the lease, with which the key goes.
            None => self.revoke_all().await?,
        }
        self.keep_alive.replace(None);
        self.renewing.clear();
        // Its successor needs another lease, so that nothing that is still under way can touch it.
        let entry = self.entry.replace(Entry::with_lease(super::random_lease().map_err(Trouble::Fatal)?));
        match entry.lost {
            Some(cause) if held => Err(Trouble::Lost(cause)),
            _ => Ok(()),
        }
    }

    async fn delete_key(&self) -> Outcome<()> {
        let key = self.key();
        // Whether an earlier request may have deleted it.
        let in_doubt = std::mem::replace(&mut self.entry.borrow_mut().leaving, true);
        let created = self.entry.borrow().created;
        let reply = self.client.read(view::leave(&key, created)).await?;
        let found = match self.client.understood(Left::of(reply, &key))? {
            Left::Deleted(own) => {
                self.learn_lease(&own);
                Some(own)
            }
            Left::Untouched if in_doubt => return Ok(()),
            Left::Untouched => None,
        };
        if let Err(trouble @ Trouble::Lost(_)) = self.checked(found) {
            self.note(&trouble);
        }
        Ok(())
    }

    /// Another process's contender may have bound its key to another lease than the one that it is named after.
    fn learn_lease(&self, own: &Own) {
        let mut entry = self.entry.borrow_mut();
        if entry.created.is_none() && own.lease > 0 && !entry.leases.ours(own.lease) {
            entry.leases.changed_to(own.lease);
        }
    }

    async fn revoke_all(&self) -> Outcome<()> {
        let leases: Vec<_> = self.entry.borrow().leases.all().collect();
        for lease in leases {
            self.client.revoke(lease).await?;
        }
        Ok(())
    }
}
