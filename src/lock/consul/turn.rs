//! The way to the lock: the first try, the queue, and taking the lock when the turn has come.
//!
//! What was read is taken out of [`super::SessionState`] before a request is sent that acts upon it. So a caller that drops the
//! future and calls again makes it read anew, and an answer that was not seen cannot mislead it.

use crate::sys::clock;
use std::time::Duration;

use super::txn::{Op, Refusal, Txn};
use super::{Contender, LONG_WAIT};
use distlock_core::consul::keys::{Keys, LOCK_FLAGS};
use distlock_core::consul::lockinfo;
use distlock_core::consul::pair::Pair;
use distlock_core::consul::queue::{Step, View};
use distlock_core::consul::session::{Role, Taken};
use distlock_core::error::Failure;
use distlock_core::outcome::{Outcome, Position, Trouble};

/// The server reads a wait of zero as its default of minutes.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// How often the first in the queue tries a lock that a lock-delay keeps closed: servers do not tell its end. Less than
/// half of what the next one's patience is, so that a first who lives is not passed then.
const LOCK_DELAY_POLL: Duration = Duration::from_millis(500);

impl Contender {
    /// Tries the lock where nobody queues, else joins the queue.
    pub(super) async fn first_place(&self, session: &str) -> Outcome<Position> {
        if self.role() == Role::Outside {
            self.life.borrow_mut().role = Role::Contending;
            // A lock's key that exists may be no lock at all; it is looked at before it is written.
            let guard = vec![Op::check_absent(&self.keys.lock)];
            match self.take(session, guard, vec![Op::get_tree(&self.keys.queue)]).await? {
                Ok((lock, queue)) if queue.places.is_empty() => return Ok(self.hold(&lock, queue.litter)),
                Ok((lock, _)) => {
                    let mut life = self.life.borrow_mut();
                    (life.passing, life.in_doubt) = (Some(lock.modify_index), true);
                }
                Err(refusal) => self.life.borrow_mut().lock_delay = refusal.lock_delay(),
            }
        }
        let (passing, in_doubt) = (self.life.borrow().passing, self.life.borrow().in_doubt);
        let view = match passing {
            Some(taking) => self.give_back(session, taking).await?,
            None if in_doubt => self.look().await?,
            None => View::default(),
        };
        let view = match view.step(&self.keys, session) {
            Step::Join => self.join(session, Vec::new()).await?.ok_or_else(|| ended(session))?,
            _ => view,
        };
        self.first_turn(session, view).await
    }

    /// Who is the first of the queue at once, where only a key was left behind, takes the lock at once.
    async fn first_turn(&self, session: &str, view: View) -> Outcome<Position> {
        if view.step(&self.keys, session) != Step::Take {
            return self.place(session, view).await;
        }
        match self.take_turn(session, &view).await? {
            Ok(held) => Ok(held),
            Err(refusal) => {
                self.life.borrow_mut().lock_delay = refusal.lock_delay();
                let view = if refusal.lock_delay() { view } else { self.look().await? };
                self.place(session, view).await
            }
        }
    }

    /// Gives a lock back by whose taking others in the queue were passed, and joins the queue. Only that very taking: the
    /// request may arrive late.
    async fn give_back(&self, session: &str, taking: u64) -> Outcome<View> {
        (self.note)("consul: others were first: giving the lock back".to_owned());
        let keys = &self.keys;
        let guard = vec![
            Op::check_index(&keys.lock, taking),
            Op::unlock(&keys.lock, session),
            Op::delete(&keys.lock),
            Op::delete(&keys.info),
        ];
        let joined = self.join(session, guard).await?;
        let mut life = self.life.borrow_mut();
        (life.passing, life.in_doubt) = (None, false);
        // It was given back before, or lost.
        Ok(joined.unwrap_or_default())
    }

    /// Waits until there is something to tell.
    pub(super) async fn await_turn(&self, session: &str) -> Outcome<Position> {
        loop {
            let read = self.life.borrow_mut().view.take();
            let view = match read {
                Some(view) => view,
                None => self.look().await?,
            };
            let step = view.step(&self.keys, session);
            if self.news(session, &view, &step) {
                return self.place(session, view).await;
            }
            if let Some(held) = self.advance(session, view, step).await? {
                return Ok(held);
            }
        }
    }

    /// Does one step. What was read on the way, if anything, is kept for the next one.
    async fn advance(&self, session: &str, view: View, step: Step) -> Outcome<Option<Position>> {
        let next = match step {
            // Told already.
            Step::Held(_) | Step::NotALock => None,
            Step::Join => Some(self.join(session, Vec::new()).await?.ok_or_else(|| ended(session))?),
            Step::Take => match self.take_turn(session, &view).await? {
                Ok(held) => return Ok(Some(held)),
                Err(refusal) => self.closed(&refusal).await.then_some(view),
            },
            Step::WatchLock => Some(self.watch_lock(view, LONG_WAIT).await?),
            Step::WatchPlace(ahead, patience) => {
                let vanished = self.vanished(&ahead, patience).await?;
                if vanished { None } else { Some(self.watch_lock(view, LONG_WAIT).await?) }
            }
            Step::Neglected(ahead, patience) => return self.pass(session, view, ahead, patience).await,
        };
        self.life.borrow_mut().view = next;
        Ok(None)
    }

    /// The lock is free: leaves it to those ahead while they may be about to take it, then takes it. In the middle of
    /// that time no lock-delay must keep it closed, whose end the first in the queue learns of a moment late.
    async fn pass(&self, session: &str, view: View, ahead: Pair, patience: Duration) -> Outcome<Option<Position>> {
        // A lock-delay that is known takes its time.
        let known = self.life.borrow().lock_delay;
        if self.vanished(&ahead, if known { patience } else { patience / 2 }).await? {
            return Ok(None);
        }
        let view = self.watch_lock(view, SHORTEST_WAIT).await?;
        let lock_delay = view.free() && self.is_closed(session).await?;
        self.life.borrow_mut().lock_delay = lock_delay;
        if lock_delay || !view.free() {
            self.life.borrow_mut().view = Some(view);
            return Ok(None);
        }
        let before = self.look().await?;
        if self.vanished(&ahead, patience / 2).await? {
            return Ok(None);
        }
        let now = self.look().await?;
        if !now.stood_still(&before) || now.own(&self.keys, session).is_none() {
            self.life.borrow_mut().view = Some(now);
            return Ok(None);
        }
        (self.note)("consul: nobody ahead takes the free lock".to_owned());
        Ok(self.take_turn(session, &now).await?.ok())
    }

    /// Waits for a place to vanish; false: it was still there after so long.
    async fn vanished(&self, place: &Pair, wait: Duration) -> Outcome<bool> {
        let end = clock::now() + wait;
        let mut index = Some(place.modify_index);
        loop {
            let left = clock::now().until(end).max(SHORTEST_WAIT);
            let (pairs, next) = self.api.watch(&place.key, false, index, left).await?;
            if pairs.is_empty() {
                return Ok(true);
            }
            // A read may return early without a change.
            if clock::now() >= end {
                return Ok(false);
            }
            index = next;
        }
    }

    /// Takes the lock from the queue, in one transaction with giving up the place. Those who were passed lose theirs:
    /// else each of their successors would have to wait for them again. One who lives joins anew.
    async fn take_turn(&self, session: &str, view: &View) -> Outcome<Result<Position, Refusal>> {
        let keys = &self.keys;
        let guard = match &view.lock {
            Some(lock) => Op::check_index(&keys.lock, lock.modify_index),
            None => Op::check_absent(&keys.lock),
        };
        let mut after = vec![Op::delete(&keys.place(session))];
        after.extend(view.ahead(keys, session).iter().map(|passed| Op::delete(&passed.key)));
        let taken = self.take(session, vec![guard], after).await?;
        Ok(taken.map(|(lock, _)| self.hold(&lock, view.litter.clone())))
    }

    /// One transaction that takes both keys if the guard holds. What it reads after that comes with the lock's key.
    async fn take(&self, session: &str, guard: Vec<Op>, after: Vec<Op>) -> Outcome<Result<(Pair, View), Refusal>> {
        let mut ops = guard;
        ops.extend(self.locks(session));
        ops.extend(after);
        self.life.borrow_mut().in_doubt = true;
        let answer = self.take_keys(ops).await?;
        self.life.borrow_mut().in_doubt = false;
        match answer {
            Txn::Refused(refusal) if refusal.ended(session) => Err(ended(session)),
            Txn::Refused(refusal) => Ok(Err(refusal)),
            // A guard may return the key as it was before; the last one counts.
            Txn::Applied(pairs) => {
                let view = View::new(&self.keys, pairs);
                view.lock.clone().map(|lock| Ok((lock, view))).ok_or_else(|| self.unreadable())
            }
        }
    }

    /// Whether a lock-delay keeps the lock closed: a try that undoes itself, because it demands in the end that nothing
    /// was taken.
    async fn is_closed(&self, session: &str) -> Outcome<bool> {
        let mut ops = Vec::from(self.locks(session));
        ops.push(Op::check_absent(&self.keys.lock));
        match self.api.txn(ops).await? {
            Txn::Refused(refusal) => Ok(refusal.lock_delay()),
            Txn::Applied(_) => Err(self.unreadable()),
        }
    }

    fn locks(&self, session: &str) -> [Op; 2] {
        let record = lockinfo::write(&self.keys.name, &self.want.record, jiff::Timestamp::now());
        [Op::lock(&self.keys.lock, session, LOCK_FLAGS, ""), Op::lock(&self.keys.info, session, 0, &record)]
    }

    /// Creates the place in the queue, or finds it there, and reads who else is in it. None where the guard, or the
    /// session, does not hold.
    async fn join(&self, session: &str, guard: Vec<Op>) -> Outcome<Option<View>> {
        let keys = &self.keys;
        let place = keys.place(session);
        let mut ops = guard;
        ops.push(Op::lock(&place, session, 0, &self.want.record.to_json()));
        ops.extend([Op::get_tree(&keys.queue), Op::get_tree(&keys.lock)]);
        Ok(match self.take_keys(ops).await? {
            // What was locked is answered first, without its value, and then read.
            Txn::Applied(pairs) => {
                let read = pairs.into_iter().skip_while(|pair| pair.key != place).skip(1);
                Some(View::new(keys, read.collect()))
            }
            // Nobody else has a reason to hold this key.
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

    pub(super) fn unreadable(&self) -> Trouble {
        Trouble::inconclusive(format!("{}: the lock cannot be read", self.api.http.endpoint()))
    }

    async fn watch_lock(&self, view: View, wait: Duration) -> Outcome<View> {
        let (pairs, index) = self.api.watch(&self.keys.lock, true, view.index, wait).await?;
        Ok(view.with_lock(&self.keys, pairs, index))
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
    async fn place(&self, session: &str, view: View) -> Outcome<Position> {
        match view.step(&self.keys, session) {
            Step::Held(lock) => {
                // A try whose answer was not seen may have been granted after its place was taken.
                if let Some(own) = view.own(&self.keys, session) {
                    self.api.txn(vec![Op::delete(&own.key)]).await?;
                }
                Ok(self.hold(&lock, view.litter))
            }
            Step::NotALock => Err(Trouble::Fatal(not_a_lock(&self.keys))),
            _ => {
                let mut life = self.life.borrow_mut();
                let queue = view.queue(&self.keys, session, life.lock_delay);
                life.told = Some(queue.clone());
                life.view = Some(view);
                Ok(Position::Queued(queue))
            }
        }
    }

    fn hold(&self, lock: &Pair, litter: Vec<String>) -> Position {
        let token = lock.modify_index;
        let mut life = self.life.borrow_mut();
        life.role = Role::Holding;
        life.in_doubt = false;
        life.seen = Some(token);
        life.taken = Some((token, Taken { create_index: lock.create_index, lock_index: lock.lock_index }));
        life.litter = litter;
        Position::Held { token, key: self.keys.lock.clone() }
    }
}

pub(super) fn not_a_lock(keys: &Keys) -> Failure {
    Failure::usage(format!("the key {} is not a lock", keys.lock)).hint("choose another name")
}

pub(super) fn ended(session: &str) -> Trouble {
    Trouble::Lost(format!("session {session} has ended"))
}
