//! The way out: giving up the lock, or a place in the queue.

use super::Contender;
use super::txn::{Op, Txn};
use distlock_core::consul::queue::Step;
use distlock_core::consul::session::Role;
use distlock_core::outcome::Outcome;

impl Contender {
    /// Frees the lock. False: it was not this session's.
    async fn unlock(&self, session: &str) -> Outcome<bool> {
        let keys = &self.keys;
        let mut ops = vec![Op::unlock(&keys.lock, session), Op::delete(&keys.lock), Op::delete(&keys.info)];
        ops.extend(self.life.borrow().litter.iter().map(|key| Op::delete(key)));
        let in_doubt = std::mem::replace(&mut self.life.borrow_mut().in_doubt, true);
        let freed = match self.api.txn(ops).await {
            Ok(Txn::Applied(_)) => true,
            // An unlock that was sent before may have been applied. Then the session lives; one that lost the lock
            // so shortly before has most likely ended.
            Ok(Txn::Refused(_)) if in_doubt && self.role() == Role::Holding => self.api.renew_session(session).await?,
            Ok(Txn::Refused(_)) => {
                self.unlock_record(session).await?;
                false
            }
            Err(trouble) => return Err(trouble),
        };
        self.life.borrow_mut().in_doubt = false;
        Ok(freed)
    }

    /// Frees the record where only the lock was taken away: one that goes with the session would leave a lock-delay.
    pub(super) async fn unlock_record(&self, session: &str) -> Outcome<()> {
        let info = &self.keys.info;
        self.api.txn(vec![Op::unlock(info, session), Op::delete(info)]).await.map(drop)
    }

    /// Gives up a place in the queue, which only ends with its session where that deletes its keys.
    async fn leave_queue(&self, session: &str) -> Outcome<()> {
        if self.want.relock {
            self.api.txn(vec![Op::delete(&self.keys.place(session))]).await?;
        }
        Ok(())
    }

    /// Gives up a place that another process took. False: there is none.
    async fn leave_if_queued(&self, session: &str) -> Outcome<bool> {
        let queued = self.look().await?.step(&self.keys, session) != Step::Join;
        if queued {
            self.leave_queue(session).await?;
        }
        Ok(queued)
    }

    /// Gives up what the session has. Its end alone would leave a lock-delay.
    pub(super) async fn let_go(&self, session: &str) -> Outcome<()> {
        match self.role() {
            Role::Holding => {
                let lost = !self.unlock(session).await?;
                self.life.borrow_mut().role = Role::Left { lost };
            }
            Role::Contending => {
                if !self.life.borrow().in_doubt || !self.unlock(session).await? {
                    self.leave_queue(session).await?;
                }
            }
            Role::Adopted => {
                let lost = !self.unlock(session).await? && !self.leave_if_queued(session).await?;
                self.life.borrow_mut().role = Role::Left { lost };
            }
            Role::Outside | Role::Left { .. } => {}
        }
        Ok(())
    }
}
