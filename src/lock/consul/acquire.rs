//! The transactions that acquire the lock or join the queue, and what their results mean.

use std::rc::Rc;

use distlock_core::consul::keys::LOCK_FLAGS;
use distlock_core::consul::lockinfo;
use distlock_core::consul::pair::Pair;
use distlock_core::consul::queue::{NextStep, Snapshot};
use distlock_core::consul::session::{Acquisition, Role};
use distlock_core::outcome::{Outcome, Position, Trouble};

use super::contender::{Contender, no_session, not_a_lock, session_ended};
use super::txn::{Op, Refusal, TxnResult};

impl Contender {
    /// Acquires the lock from the queue and leaves the queue in one transaction. The keys of passed waiters are deleted
    /// too, because otherwise each of their successors would have to pass them again; a passed waiter that is alive joins
    /// the queue again.
    pub(super) async fn acquire_in_turn(
        &self,
        session: &str,
        snapshot: &Snapshot,
    ) -> Outcome<Result<Position, Refusal>> {
        let keys = &self.keys;
        let guard = match &snapshot.lock {
            Some(lock) => Op::check_index(&keys.lock, lock.modify_index),
            None => Op::check_absent(&keys.lock),
        };
        let mut then = vec![Op::delete(&keys.waiter_key(session))];
        then.extend(snapshot.ahead(keys, session).iter().map(|passed| Op::delete(&passed.key)));
        let acquired = self.acquire(session, vec![guard], then).await?;
        Ok(acquired.map(|(lock, _)| self.set_held(&lock, snapshot.stale_keys.clone())))
    }

    /// Locks both keys in one transaction, if `guard` holds. Returns the lock's key and what `then` read.
    pub(super) async fn acquire(
        &self,
        session: &str,
        guard: Vec<Op>,
        then: Vec<Op>,
    ) -> Outcome<Result<(Pair, Snapshot), Refusal>> {
        let mut ops = guard;
        ops.extend(self.lock_ops(session));
        ops.extend(then);
        self.state.borrow_mut().in_doubt = true;
        let result = self.send_locking(ops).await?;
        self.state.borrow_mut().in_doubt = false;
        match result {
            TxnResult::Refused(refusal) if refusal.session_ended(session) => Err(session_ended(session)),
            TxnResult::Refused(refusal) => Ok(Err(refusal)),
            // A guard can return the key too, as it was before; the snapshot keeps the last one.
            TxnResult::Applied(pairs) => {
                let snapshot = Snapshot::new(&self.keys, pairs);
                snapshot.lock.clone().map(|lock| Ok((lock, snapshot))).ok_or_else(|| self.unreadable())
            }
        }
    }

    /// Returns whether the lock is in its lock-delay. Sends an attempt that always fails, because it finally demands that
    /// the lock's key does not exist.
    pub(super) async fn is_in_lock_delay(&self, session: &str) -> Outcome<bool> {
        let mut ops = Vec::from(self.lock_ops(session));
        ops.push(Op::check_absent(&self.keys.lock));
        match self.api.txn(ops).await? {
            TxnResult::Refused(refusal) => Ok(refusal.lock_delay()),
            TxnResult::Applied(_) => Err(self.unreadable()),
        }
    }

    fn lock_ops(&self, session: &str) -> [Op; 2] {
        let record = lockinfo::write(&self.keys.name, &self.spec.record, jiff::Timestamp::now());
        [Op::lock(&self.keys.lock, session, LOCK_FLAGS, ""), Op::lock(&self.keys.info, session, 0, &record)]
    }

    /// Gives back an acquisition that passed waiters, and joins the queue. Names the index of the acquisition, because
    /// the request may be applied late (rule 10).
    pub(super) async fn give_back(&self, session: &str, modify_index: u64) -> Outcome<Snapshot> {
        (self.log)("consul: other contenders were first: giving the lock back".to_owned());
        let keys = &self.keys;
        let guard = vec![
            Op::check_index(&keys.lock, modify_index),
            Op::unlock(&keys.lock, session),
            Op::delete(&keys.lock),
            Op::delete(&keys.info),
        ];
        let joined = self.try_join(session, guard).await?;
        let mut state = self.state.borrow_mut();
        (state.giving_back, state.in_doubt) = (None, false);
        // A refusal means that it was given back before, or lost.
        Ok(joined.unwrap_or_default())
    }

    /// Joins the queue, unless the contender is in it, and reads the queue.
    pub(super) async fn join(&self, session: &str) -> Outcome<Snapshot> {
        self.try_join(session, Vec::new()).await?.ok_or_else(|| session_ended(session))
    }

    /// Like [`Self::join`]; None if the guard does not hold or the session has ended.
    async fn try_join(&self, session: &str, guard: Vec<Op>) -> Outcome<Option<Snapshot>> {
        let keys = &self.keys;
        let own = keys.waiter_key(session);
        let mut ops = guard;
        ops.push(Op::lock(&own, session, 0, &self.spec.record.to_json()));
        ops.extend([Op::get_tree(&keys.queue), Op::get_tree(&keys.lock)]);
        Ok(match self.send_locking(ops).await? {
            // The results begin with those of the writes, without values. The last write is that of the own key.
            TxnResult::Applied(pairs) => {
                let read = pairs.into_iter().skip_while(|pair| pair.key != own).skip(1);
                Some(Snapshot::new(keys, read.collect()))
            }
            // No other session locks this key.
            TxnResult::Refused(_) => None,
        })
    }

    /// Sends a transaction that locks a key. Its reply is kept if this call is dropped.
    async fn send_locking(&self, ops: Vec<Op>) -> Outcome<TxnResult> {
        let api = Rc::clone(&self.api);
        self.locking_request.start(async move { api.txn(ops).await });
        self.locking_request.answer().await.unwrap_or_else(|| Err(no_session()))
    }

    /// Returns the position that `snapshot` shows, and keeps the snapshot for the next step.
    pub(super) async fn position(&self, session: &str, snapshot: Snapshot) -> Outcome<Position> {
        match snapshot.next_step(&self.keys, session) {
            NextStep::Held(lock) => {
                // An attempt whose reply was lost can be applied after the contender joined the queue.
                if let Some(own) = snapshot.waiter(&self.keys, session) {
                    self.api.txn(vec![Op::delete(&own.key)]).await?;
                }
                Ok(self.set_held(&lock, snapshot.stale_keys))
            }
            NextStep::NotALock => Err(Trouble::Fatal(not_a_lock(&self.keys))),
            _ => {
                let mut state = self.state.borrow_mut();
                let queue = snapshot.queue(&self.keys, session, state.lock_delay);
                state.reported = Some(queue.clone());
                state.snapshot = Some(snapshot);
                Ok(Position::Queued(queue))
            }
        }
    }

    pub(super) fn set_held(&self, lock: &Pair, stale_keys: Vec<String>) -> Position {
        let token = lock.modify_index;
        let acquisition = Acquisition { create_index: lock.create_index, lock_index: lock.lock_index };
        let mut state = self.state.borrow_mut();
        state.role = Role::Holding;
        state.in_doubt = false;
        state.watch_index = Some(token);
        state.acquired = Some((token, acquisition));
        state.stale_keys = stale_keys;
        Position::Held { token, key: self.keys.lock.clone() }
    }
}
