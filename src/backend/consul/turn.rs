//! The way to the lock: the first try, the queue, and taking the lock when the turn has come.
//!
//! What was read is taken out of [`super::Life`] before a request is sent that acts upon it. So a caller that drops the
//! future and calls again makes it read anew, and an answer that was not seen cannot mislead it.

use std::time::Duration;

use super::api::{Op, Pair, Refusal, Txn};
use super::keys::LOCK_FLAGS;
use super::queue::{Step, View};
use super::{Contender, LONG_WAIT, Outcome, Place, Stand, Taken, Trouble, info};
use crate::clock::Instant;
use crate::error::Failure;

/// The server reads a wait of zero as its default of minutes.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// How often the first in the queue tries a lock that a lock-delay keeps closed: servers do not tell its end.
const LOCK_DELAY_POLL: Duration = Duration::from_secs(1);

impl Contender {
    /// Tries the lock where nobody queues, else joins the queue.
    pub(super) async fn first_place(&self, session: &str) -> Outcome<Place> {
        if self.stand() == Stand::Outside {
            self.life.borrow_mut().stand = Stand::Contending;
            let keys = &self.keys;
            // A lock's key that exists may be no lock at all; it is looked at before it is written.
            let guard = vec![Op::check_absent(&keys.next), Op::check_absent(&keys.lock)];
            match self.take(session, guard, Vec::new()).await? {
                Ok(held) => return Ok(held),
                Err(refusal) => self.life.borrow_mut().lock_delay = refusal.lock_delay(),
            }
        }
        let view = if self.life.borrow().in_doubt { self.look().await? } else { View::default() };
        let view = match view.step(&self.keys, session) {
            Step::Join => self.join(session).await?,
            _ => view,
        };
        self.place(session, view)
    }

    /// Waits until there is something to tell.
    pub(super) async fn await_turn(&self, session: &str) -> Outcome<Place> {
        loop {
            let read = self.life.borrow_mut().view.take();
            let view = match read {
                Some(view) => view,
                None => self.look().await?,
            };
            let step = view.step(&self.keys, session);
            if self.news(session, &view, &step) {
                return self.place(session, view);
            }
            if let Some(held) = self.advance(session, view, step).await? {
                return Ok(held);
            }
        }
    }

    /// Does one step. What was read on the way, if anything, is kept for the next one.
    async fn advance(&self, session: &str, view: View, step: Step) -> Outcome<Option<Place>> {
        let next = match step {
            // Told already.
            Step::Held(_) | Step::NotALock => None,
            Step::Join => Some(self.join(session).await?),
            Step::Take => match self.take_turn(session, &view).await? {
                Ok(held) => return Ok(Some(held)),
                Err(refusal) => self.closed(&refusal).await.then_some(view),
            },
            Step::WatchLock => {
                self.register(session).await?;
                Some(self.watch_lock(view, LONG_WAIT).await?)
            }
            Step::WatchPlace(place, patience) => {
                let (left, _) = self.api.watch(&place.key, false, Some(place.modify_index), patience).await?;
                let first = left.is_empty() && view.ahead(&self.keys, session).len() == 1;
                if first { self.look_as_first(session).await? } else { None }
            }
            Step::Neglected(patience) => return self.pass(session, view, patience).await,
        };
        self.life.borrow_mut().view = next;
        Ok(None)
    }

    /// The lock is free and those ahead leave it: takes it if it stays so, and no lock-delay is why.
    async fn pass(&self, session: &str, view: View, patience: Duration) -> Outcome<Option<Place>> {
        if self.probe(session).await? {
            self.life.borrow_mut().lock_delay = true;
            if let Some(before) = view.ahead(&self.keys, session).last() {
                self.api.watch(&before.key, false, Some(before.modify_index), patience).await?;
            }
            return Ok(None);
        }
        self.life.borrow_mut().lock_delay = false;
        let view = self.stays_free(view, patience).await?;
        if !view.free() {
            return Ok(None);
        }
        (self.note)("consul: nobody ahead takes the free lock".to_owned());
        Ok(self.take_turn(session, &view).await?.ok())
    }

    /// Watches a free lock until it is taken, or for as long as given.
    async fn stays_free(&self, mut view: View, patience: Duration) -> Outcome<View> {
        // A read may return early without a change.
        let end = Instant::now() + patience;
        loop {
            let left = Instant::now().until(end);
            if left.is_zero() || !view.free() {
                return Ok(view);
            }
            view = self.watch_lock(view, left.max(SHORTEST_WAIT)).await?;
        }
    }

    /// Takes the lock from the queue, in one transaction with giving up the place. Those who were passed lose theirs:
    /// else each of their successors would have to wait for them again. One who lives joins anew.
    async fn take_turn(&self, session: &str, view: &View) -> Outcome<Result<Place, Refusal>> {
        let keys = &self.keys;
        let guard = match &view.lock {
            Some(lock) => Op::check_index(&keys.lock, lock.modify_index),
            None => Op::check_absent(&keys.lock),
        };
        let mut after = vec![Op::delete(&keys.place(session)), Op::delete(&keys.next)];
        after.extend(view.successor(keys, session).map(|successor| Op::lock(&keys.next, successor, 0, "")));
        after.extend(view.ahead(keys, session).iter().map(|passed| Op::delete(&passed.key)));
        self.take(session, vec![guard], after).await
    }

    /// One transaction that takes both keys if the guard holds.
    async fn take(&self, session: &str, guard: Vec<Op>, after: Vec<Op>) -> Outcome<Result<Place, Refusal>> {
        let mut ops = guard;
        ops.extend(self.locks(session));
        ops.extend(after);
        self.life.borrow_mut().in_doubt = true;
        let answer = self.take_keys(ops).await?;
        self.life.borrow_mut().in_doubt = false;
        match answer {
            Txn::Refused(refusal) if refusal.ended(session) => Err(ended(session)),
            Txn::Refused(refusal) => Ok(Err(refusal)),
            // A guard may return the key as it was before.
            Txn::Applied(pairs) => match pairs.into_iter().rfind(|pair| pair.key == self.keys.lock) {
                Some(pair) => Ok(Ok(self.hold(&pair))),
                None => Err(self.unreadable()),
            },
        }
    }

    /// Whether a lock-delay keeps the lock closed: a try that cannot succeed, because it demands that the own place is
    /// gone.
    async fn probe(&self, session: &str) -> Outcome<bool> {
        let mut ops = vec![Op::check_absent(&self.keys.place(session))];
        ops.extend(self.locks(session));
        match self.api.txn(ops).await? {
            Txn::Refused(refusal) => Ok(refusal.lock_delay()),
            // The place is gone, and the lock was taken: the next look shows it.
            Txn::Applied(_) => Ok(false),
        }
    }

    fn locks(&self, session: &str) -> [Op; 2] {
        let record = info::write(&self.keys.name, &self.want.record);
        [Op::lock(&self.keys.lock, session, LOCK_FLAGS, ""), Op::lock(&self.keys.info, session, 0, &record)]
    }

    /// Creates the place in the queue, or finds it there, and reads who else is in it.
    async fn join(&self, session: &str) -> Outcome<View> {
        let keys = &self.keys;
        let place = Op::lock(&keys.place(session), session, 0, &self.want.record.to_json());
        self.life.borrow_mut().next = false;
        match self.take_keys(vec![place, Op::get_tree(&keys.queue), Op::get_tree(&keys.lock)]).await? {
            // What was locked is answered first, without its value, and then read.
            Txn::Applied(pairs) => Ok(View::new(keys, pairs.into_iter().skip(1).collect())),
            // Nobody else has a reason to hold this key.
            Txn::Refused(_) => Err(ended(session)),
        }
    }

    /// Reads the lock and the queue, and makes newcomers queue. Nothing where `.next` is held by one who died.
    async fn look_as_first(&self, session: &str) -> Outcome<Option<View>> {
        let keys = &self.keys;
        self.life.borrow_mut().next = true;
        let next = Op::lock(&keys.next, session, 0, "");
        Ok(match self.take_keys(vec![next, Op::get_tree(&keys.queue), Op::get_tree(&keys.lock)]).await? {
            Txn::Applied(pairs) => Some(View::new(keys, pairs.into_iter().skip(1).collect())),
            Txn::Refused(_) => None,
        })
    }

    /// Reads the lock and the queue.
    pub(super) async fn look(&self) -> Outcome<View> {
        let keys = &self.keys;
        match self.api.txn(vec![Op::get_tree(&keys.queue), Op::get_tree(&keys.lock)]).await? {
            Txn::Applied(pairs) => Ok(View::new(keys, pairs)),
            Txn::Refused(_) => Err(self.unreadable()),
        }
    }

    fn unreadable(&self) -> Trouble {
        Trouble::Uncertain { answered: true, cause: format!("{}: the lock cannot be read", self.api.http.endpoint()) }
    }

    async fn watch_lock(&self, view: View, wait: Duration) -> Outcome<View> {
        let (pairs, index) = self.api.watch(&self.keys.lock, true, view.index, wait).await?;
        Ok(view.with_lock(&self.keys, pairs, index))
    }

    /// Makes newcomers queue. Refused while the key of one who died is left, which serves as well.
    async fn register(&self, session: &str) -> Outcome<()> {
        if !self.life.borrow().next {
            self.life.borrow_mut().next = true;
            self.take_keys(vec![Op::lock(&self.keys.next, session, 0, "")]).await?;
        }
        Ok(())
    }

    /// After a refused try: true when a lock-delay is why, and then there is nothing to wait for but time.
    async fn closed(&self, refusal: &Refusal) -> bool {
        let lock_delay = refusal.lock_delay();
        self.life.borrow_mut().lock_delay = lock_delay;
        if lock_delay {
            tokio::time::sleep(LOCK_DELAY_POLL).await;
        }
        lock_delay
    }

    /// Whether the caller does not know yet what was read.
    fn news(&self, session: &str, view: &View, step: &Step) -> bool {
        let life = self.life.borrow();
        match step {
            Step::Held(_) | Step::NotALock => true,
            Step::Join => false,
            // Its turn has come: there is nothing to tell unless it must wait for the lock-delay.
            Step::Take if !life.lock_delay => false,
            _ => life.told.as_ref() != Some(&view.queue(&self.keys, session, life.lock_delay)),
        }
    }

    /// Tells the caller where it stands, and keeps what was read to act upon it.
    fn place(&self, session: &str, view: View) -> Outcome<Place> {
        match view.step(&self.keys, session) {
            Step::Held(lock) => Ok(self.hold(&lock)),
            Step::NotALock => Err(Trouble::Fatal(
                Failure::usage(format!("the key {} is not a lock", self.keys.lock)).hint("choose another name"),
            )),
            _ => {
                let mut life = self.life.borrow_mut();
                let queue = view.queue(&self.keys, session, life.lock_delay);
                life.told = Some(queue.clone());
                life.view = Some(view);
                Ok(Place::Queued(queue))
            }
        }
    }

    fn hold(&self, lock: &Pair) -> Place {
        let token = lock.modify_index;
        let mut life = self.life.borrow_mut();
        life.stand = Stand::Holding;
        life.in_doubt = false;
        life.seen = Some(token);
        life.taken = Some((token, Taken { create_index: lock.create_index, lock_index: lock.lock_index }));
        Place::Held { token, key: self.keys.lock.clone() }
    }
}

pub(super) fn ended(session: &str) -> Trouble {
    Trouble::Lost(format!("session {session} has ended"))
}
