//! Position in the queue, and watching for its changes and for the loss of the key.

use distlock_core::etcd::key::KeyState;
use distlock_core::outcome::{Outcome, Position, Queue};
use distlock_core::record::Record;

use super::contender::Contender;
use super::transactions::{self, QueueSnapshot};
use super::watch;

impl Contender {
    /// Waits until the key or its predecessor in the queue changes, and returns the position then.
    pub(super) async fn wait_for_change(&self) -> Outcome<Position> {
        let KeyState { seen_revision, ahead, .. } = self.state.borrow().clone();
        // Without a revision to watch from, a change may have been missed, so the queue is read immediately.
        if let (Some(seen_revision), Some(ahead)) = (seen_revision, ahead) {
            let key = self.key();
            let keys = [key.as_bytes(), ahead.predecessor.as_slice()];
            tokio::select! {
                change = watch::next_change(&self.client, &keys, seen_revision) => drop(change?),
                () = self.queue_moved.notified() => {}
            }
        }
        self.read_position().await
    }

    async fn read_position(&self) -> Outcome<Position> {
        let key = self.key();
        let reply = self.client.read(transactions::read_queue(&self.prefix, &key)).await?;
        self.position(self.client.parsed(QueueSnapshot::parse_read(reply, &self.prefix, &key))?).await
    }

    /// Reads the remaining pages of the queue, and records and returns the position.
    pub(super) async fn position(&self, mut queue: QueueSnapshot) -> Outcome<Position> {
        let own = self.checked(queue.own.take())?;
        while let Some(start) = queue.next_page() {
            let page = self.client.read(transactions::read_page(&self.prefix, start, queue.revision)).await?;
            self.client.parsed(queue.parse_page(page, &self.prefix))?;
        }
        let ahead = queue.ahead(own.create_revision);
        {
            let mut state = self.state.borrow_mut();
            state.create_revision = Some(own.create_revision);
            state.seen_revision = Some(queue.revision);
            state.ahead.clone_from(&ahead);
            state.held = ahead.is_none();
            state.held_revision = state.held.then_some(queue.revision);
        }
        let Some(ahead) = ahead else {
            // Revisions are positive.
            return Ok(Position::Held { token: own.create_revision.unsigned_abs(), key: self.key() });
        };
        let holder = match queue.oldest {
            Some((key, value)) if key == ahead.holder => Some(Record::parse(&value)),
            _ => self.client.value(&ahead.holder).await?.map(|value| Record::parse(&value)),
        };
        Ok(Position::Queued(Queue { ahead: Some(ahead.count), holder, lock_delay: false }))
    }

    /// Waits for the next change of the key, or reads it if no revision is known to watch from. Fails if the key is lost or
    /// the lock broken.
    pub(super) async fn watch_own_key(&self) -> Outcome<()> {
        let seen_revision = self.state.borrow().seen_revision;
        let Some(seen_revision) = seen_revision else { return self.confirm().await.map(drop) };
        let change = watch::next_change(&self.client, &[self.key().as_bytes()], seen_revision).await?;
        self.checked(change.now)?;
        self.state.borrow_mut().seen_revision = Some(change.revision);
        Ok(())
    }

    /// Returns whether the history since this contender held the lock with `token` shows no other contender.
    pub(super) async fn is_only_contender_since(&self, token: u64) -> Outcome<bool> {
        let (since, create_revision) = (self.earlier_keys.borrow().since(token), self.state.borrow().create_revision);
        let (Some((held_revision, keys)), Some(create_revision)) = (since, create_revision) else { return Ok(false) };
        watch::no_other_contender_between(&self.client, &self.prefix, held_revision, &keys, create_revision).await
    }
}
