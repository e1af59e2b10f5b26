//! Waiting in the queue, and acquiring the lock when it is this contender's turn.

use std::time::Duration;

use distlock_core::consul::pair::Pair;
use distlock_core::consul::queue::{NextStep, Snapshot};
use distlock_core::outcome::{Outcome, Position};

use super::contender::{Contender, MAX_WATCH};
use super::txn::Refusal;
use crate::sys::clock;

/// The server takes a wait of zero for its default of minutes.
const MIN_WATCH: Duration = Duration::from_millis(10);
/// Interval at which the first waiter retries a lock in its lock-delay, whose end servers do not report. Less than half of
/// the time after which the next waiter passes it, so that a first waiter that is alive is not passed then.
const LOCK_DELAY_POLL: Duration = Duration::from_millis(500);

impl Contender {
    /// Waits until the lock is held or the reported queue has changed.
    pub(super) async fn await_turn(&self, session: &str) -> Outcome<Position> {
        loop {
            let kept = self.state.borrow_mut().snapshot.take();
            let snapshot = match kept {
                Some(snapshot) => snapshot,
                None => self.read_snapshot().await?,
            };
            let step = snapshot.next_step(&self.keys, session);
            if self.should_report(session, &snapshot, &step) {
                return self.position(session, snapshot).await;
            }
            if let Some(held) = self.perform(session, snapshot, step).await? {
                return Ok(held);
            }
        }
    }

    /// Performs one step. Keeps what was read for the next one.
    async fn perform(&self, session: &str, snapshot: Snapshot, step: NextStep) -> Outcome<Option<Position>> {
        let next = match step {
            // Reported before.
            NextStep::Held(_) | NextStep::NotALock => None,
            NextStep::Join => Some(self.join(session).await?),
            NextStep::Acquire => match self.acquire_in_turn(session, &snapshot).await? {
                Ok(held) => return Ok(Some(held)),
                Err(refusal) => self.sleep_if_lock_delay(&refusal).await.then_some(snapshot),
            },
            NextStep::WatchLock => Some(self.watch_lock(snapshot, MAX_WATCH).await?),
            NextStep::WatchPredecessor(predecessor, time) => {
                let deleted = self.wait_for_deletion(&predecessor, time).await?;
                if deleted { None } else { Some(self.watch_lock(snapshot, MAX_WATCH).await?) }
            }
            NextStep::PassAfter(predecessor, time) => return self.pass(session, snapshot, predecessor, time).await,
        };
        self.state.borrow_mut().snapshot = next;
        Ok(None)
    }

    /// Leaves a free lock to the waiters ahead for `time`, then acquires it. The check in the middle ensures that no
    /// lock-delay prevented them from acquiring it: the first waiter learns a moment late that a lock-delay is over.
    async fn pass(
        &self,
        session: &str,
        snapshot: Snapshot,
        predecessor: Pair,
        time: Duration,
    ) -> Outcome<Option<Position>> {
        let known_lock_delay = self.state.borrow().lock_delay;
        if self.wait_for_deletion(&predecessor, if known_lock_delay { time } else { time / 2 }).await? {
            return Ok(None);
        }
        let snapshot = self.watch_lock(snapshot, MIN_WATCH).await?;
        let lock_delay = snapshot.is_free() && self.is_in_lock_delay(session).await?;
        self.state.borrow_mut().lock_delay = lock_delay;
        if lock_delay || !snapshot.is_free() {
            self.state.borrow_mut().snapshot = Some(snapshot);
            return Ok(None);
        }
        let before = self.read_snapshot().await?;
        if self.wait_for_deletion(&predecessor, time / 2).await? {
            return Ok(None);
        }
        let now = self.read_snapshot().await?;
        if !now.stayed_free_since(&before) || now.waiter(&self.keys, session).is_none() {
            self.state.borrow_mut().snapshot = Some(now);
            return Ok(None);
        }
        (self.log)("consul: no waiter ahead acquires the free lock: passing them".to_owned());
        Ok(self.acquire_in_turn(session, &now).await?.ok())
    }

    /// Waits until the key is deleted; returns false if it still exists after `time`.
    async fn wait_for_deletion(&self, waiter: &Pair, time: Duration) -> Outcome<bool> {
        let end = clock::now() + time;
        let mut index = Some(waiter.modify_index);
        loop {
            let left = clock::now().until(end).max(MIN_WATCH);
            let (pairs, next) = self.api.watch(&waiter.key, false, index, left).await?;
            if pairs.is_empty() {
                return Ok(true);
            }
            // A blocking read can return early without a change.
            if clock::now() >= end {
                return Ok(false);
            }
            index = next;
        }
    }

    async fn watch_lock(&self, snapshot: Snapshot, time: Duration) -> Outcome<Snapshot> {
        let (pairs, index) = self.api.watch(&self.keys.lock, true, snapshot.watch_index, time).await?;
        Ok(snapshot.with_lock(&self.keys, pairs, index))
    }

    /// Sleeps if a lock-delay is the reason of the refusal: nothing else can be waited for. Returns whether it is.
    async fn sleep_if_lock_delay(&self, refusal: &Refusal) -> bool {
        let lock_delay = refusal.lock_delay();
        self.state.borrow_mut().lock_delay = lock_delay;
        if lock_delay {
            tokio::time::sleep(LOCK_DELAY_POLL).await;
        }
        lock_delay
    }

    /// Returns whether `snapshot` shows anything that the caller does not know yet.
    fn should_report(&self, session: &str, snapshot: &Snapshot, step: &NextStep) -> bool {
        let state = self.state.borrow();
        match step {
            NextStep::Held(_) | NextStep::NotALock => true,
            NextStep::Join => false,
            // The lock is acquired next, unless its lock-delay prevents it.
            NextStep::Acquire if !state.lock_delay => false,
            _ => state.reported.as_ref() != Some(&snapshot.queue(&self.keys, session, state.lock_delay)),
        }
    }
}
