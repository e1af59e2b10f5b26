//! The first attempt to acquire the lock, and joining the queue.

use distlock_core::consul::queue::{NextStep, Snapshot};
use distlock_core::consul::session::Role;
use distlock_core::outcome::{Outcome, Position};

use super::contender::Contender;
use super::txn::Op;

impl Contender {
    /// Acquires the lock if there are no waiters; otherwise joins the queue. Repeated calls continue.
    pub(super) async fn acquire_or_join(&self, session: &str) -> Outcome<Position> {
        if self.role() == Role::Outside {
            self.state.borrow_mut().role = Role::Contending;
            // An existing key may not be a lock; the contender reads it before it writes.
            let guard = vec![Op::check_absent(&self.keys.lock)];
            match self.acquire(session, guard, vec![Op::get_tree(&self.keys.queue)]).await? {
                Ok((lock, queue)) if queue.waiters.is_empty() => return Ok(self.set_held(&lock, queue.stale_keys)),
                Ok((lock, _)) => {
                    let mut state = self.state.borrow_mut();
                    (state.giving_back, state.in_doubt) = (Some(lock.modify_index), true);
                }
                Err(refusal) => self.state.borrow_mut().lock_delay = refusal.lock_delay(),
            }
        }
        let (giving_back, in_doubt) = {
            let state = self.state.borrow();
            (state.giving_back, state.in_doubt)
        };
        let snapshot = match giving_back {
            Some(modify_index) => self.give_back(session, modify_index).await?,
            None if in_doubt => self.read_snapshot().await?,
            None => Snapshot::default(),
        };
        let snapshot = match snapshot.next_step(&self.keys, session) {
            NextStep::Join => self.join(session).await?,
            _ => snapshot,
        };
        self.acquire_if_first(session, snapshot).await
    }

    /// Acquires the lock at once if the contender is the first waiter and the lock is free.
    async fn acquire_if_first(&self, session: &str, snapshot: Snapshot) -> Outcome<Position> {
        if snapshot.next_step(&self.keys, session) != NextStep::Acquire {
            return self.position(session, snapshot).await;
        }
        match self.acquire_in_turn(session, &snapshot).await? {
            Ok(held) => Ok(held),
            Err(refusal) => {
                self.state.borrow_mut().lock_delay = refusal.lock_delay();
                let snapshot = if refusal.lock_delay() { snapshot } else { self.read_snapshot().await? };
                self.position(session, snapshot).await
            }
        }
    }
}
