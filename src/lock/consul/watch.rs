//! Watching the held lock.

use distlock_core::consul::queue::Snapshot;
use distlock_core::outcome::{Outcome, Trouble};

use super::contender::{Contender, MAX_WATCH};

impl Contender {
    /// Waits for a change of the held lock; fails if the lock is lost or its holder was asked to stop.
    pub(super) async fn watch_held(&self, session: &str) -> Outcome<()> {
        let from = self.state.borrow().watch_index;
        let (pairs, index) = self.api.watch(&self.keys.lock, true, from, MAX_WATCH).await?;
        let snapshot = Snapshot::new(&self.keys, pairs);
        match snapshot.holder() {
            Some(holder) if holder == session => {}
            Some(other) => return Err(Trouble::Lost(format!("{} is held by session {other}", self.keys.lock))),
            // A read leaves out keys that the token may not read; a transaction says that access is denied.
            None => return self.confirm_held(session).await.and(Err(self.unreadable())),
        }
        if let Some(stop) = snapshot.record().stop {
            return Err(Trouble::Broken(stop));
        }
        self.state.borrow_mut().watch_index = index;
        Ok(())
    }
}
