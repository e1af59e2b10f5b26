//! Releasing the lock, or leaving the queue.

use distlock_core::consul::queue::NextStep;
use distlock_core::consul::session::Role;
use distlock_core::outcome::Outcome;

use super::contender::Contender;
use super::txn::{Op, TxnResult};

impl Contender {
    /// Unlocks the lock and removes its keys, or the key of a waiter. If the session were only destroyed, a lock-delay would
    /// follow.
    pub(super) async fn remove_keys(&self, session: &str) -> Outcome<()> {
        match self.role() {
            Role::Holding => {
                let lost = !self.unlock(session).await?;
                self.state.borrow_mut().role = Role::Left { lost };
            }
            Role::Contending => {
                if !self.state.borrow().in_doubt || !self.unlock(session).await? {
                    self.leave_queue(session).await?;
                }
            }
            Role::Adopted => {
                let lost = !self.unlock(session).await? && !self.leave_queue_if_in_it(session).await?;
                self.state.borrow_mut().role = Role::Left { lost };
            }
            Role::Outside | Role::Left { .. } => {}
        }
        Ok(())
    }

    /// Unlocks and deletes the lock's keys; returns false if the session did not hold the lock.
    async fn unlock(&self, session: &str) -> Outcome<bool> {
        let keys = &self.keys;
        let mut ops = vec![Op::unlock(&keys.lock, session), Op::delete(&keys.lock), Op::delete(&keys.info)];
        ops.extend(self.state.borrow().stale_keys.iter().map(|key| Op::delete(key)));
        let in_doubt = std::mem::replace(&mut self.state.borrow_mut().in_doubt, true);
        let unlocked = match self.api.txn(ops).await {
            Ok(TxnResult::Applied(_)) => true,
            // An earlier unlock may have been applied. Then the session is alive; a session that has just lost the lock
            // has most likely ended.
            Ok(TxnResult::Refused(_)) if in_doubt && self.role() == Role::Holding => {
                self.api.renew_session(session).await?
            }
            Ok(TxnResult::Refused(_)) => {
                self.unlock_record(session).await?;
                false
            }
            Err(trouble) => return Err(trouble),
        };
        self.state.borrow_mut().in_doubt = false;
        Ok(unlocked)
    }

    /// Unlocks the record if only the lock was taken away: if it ended with the session, a lock-delay would follow.
    async fn unlock_record(&self, session: &str) -> Outcome<()> {
        let info = &self.keys.info;
        self.api.txn(vec![Op::unlock(info, session), Op::delete(info)]).await.map(drop)
    }

    /// Leaves the queue. Only sessions for relock keep their keys when they are destroyed.
    async fn leave_queue(&self, session: &str) -> Outcome<()> {
        if self.spec.relock {
            self.api.txn(vec![Op::delete(&self.keys.waiter_key(session))]).await?;
        }
        Ok(())
    }

    /// Leaves the queue for another process; returns false if its session is not in the queue.
    async fn leave_queue_if_in_it(&self, session: &str) -> Outcome<bool> {
        let queued = self.read_snapshot().await?.next_step(&self.keys, session) != NextStep::Join;
        if queued {
            self.leave_queue(session).await?;
        }
        Ok(queued)
    }

    /// Abandons a lost lock and destroys its session, which may be alive. Does nothing if no lock was lost.
    pub(super) async fn abandon_lost_lock(&self) -> Outcome<()> {
        if !self.state.borrow().lost {
            return Ok(());
        }
        let session = self.session_id()?;
        self.unlock_record(&session).await?;
        self.api.destroy_session(&session).await?;
        let lost = std::mem::take(&mut *self.state.borrow_mut());
        self.lost_acquisitions.borrow_mut().extend(lost.acquired);
        Ok(())
    }
}
