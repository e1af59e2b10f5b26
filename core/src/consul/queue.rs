//! The order of the waiters, and what a contender does next.
//!
//! A contender that finds the lock held creates a key under `.queue/`, bound to its session; the create indexes of these
//! keys are the order of the queue. Each waiter watches only the key before its own, so a release wakes one waiter. The
//! first watches the lock and, when it is free, acquires it and deletes its own key in one transaction. A newcomer reads
//! the queue in the transaction that acquires the lock; if there are waiters, it gives the lock back and joins the queue.
//!
//! `consul lock` and Terraform do not queue, and the first waiter can lose to them. If the waiters ahead leave a free lock
//! (their processes died and their sessions have not expired), they are passed after [`pass_delay`]. To notice that, a
//! waiter whose queue does not move watches the lock too, which costs no requests while the lock is held.

use std::time::Duration;

use super::keys::{Keys, LOCK_FLAGS};
use super::lockinfo;
use super::pair::Pair;
use crate::outcome::Queue;
use crate::record::Record;

/// How long a free lock is left to one waiter ahead before that waiter is passed.
const PASS_DELAY: Duration = Duration::from_secs(2);
/// What each further waiter ahead adds. All waiters learn at the same time that the lock is free, so this only needs to
/// exceed the duration of a transaction.
const PASS_DELAY_STEP: Duration = Duration::from_millis(250);
/// Most waiters that one transaction passes: it takes 64 operations.
const MAX_PASSED: usize = 50;

/// The lock and its queue, as last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The lock's key.
    pub lock: Option<Pair>,
    /// The key with the holder's record.
    pub info: Option<Pair>,
    /// The waiters' keys in order.
    pub waiters: Vec<Pair>,
    /// Keys of waiters whose sessions have ended.
    pub stale_keys: Vec<String>,
    /// Raft index after which to wait for the next change of the lock.
    pub watch_index: Option<u64>,
}

/// What a contender does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: it holds the lock, with this key.
    Held(Pair),
    /// Join the queue: it has no key there, or was passed.
    Join,
    /// Fail: the key is not a lock.
    NotALock,
    /// Acquire the lock: it is free, and no waiter is ahead.
    Acquire,
    /// Wait for the lock to change: it is held, and no waiter is ahead.
    WatchLock,
    /// Wait for this key of the waiter ahead to be deleted. After the duration, watch the lock too.
    WatchPredecessor(Pair, Duration),
    /// Wait for this key of the waiter ahead to be deleted. After the duration, pass the waiters ahead: the lock is free.
    PassAfter(Pair, Duration),
}

impl Snapshot {
    /// Sorts the keys that were read under the prefixes of the lock and of the queue.
    #[must_use]
    pub fn new(keys: &Keys, pairs: Vec<Pair>) -> Self {
        let mut snapshot = Self::default();
        for pair in pairs {
            if keys.is_waiter(&pair) {
                snapshot.waiters.push(pair);
            } else if keys.is_stale(&pair) {
                snapshot.stale_keys.push(pair.key);
            } else {
                snapshot.put(keys, pair);
            }
        }
        snapshot.waiters.sort_by_key(|waiter| waiter.create_index);
        snapshot.stale_keys.truncate(MAX_PASSED);
        snapshot.watch_index = snapshot.lock.iter().chain(&snapshot.info).map(|pair| pair.modify_index).max();
        snapshot
    }

    /// Returns the same queue with the lock as read later, at `watch_index`.
    #[must_use]
    pub fn with_lock(self, keys: &Keys, pairs: Vec<Pair>, watch_index: Option<u64>) -> Self {
        let mut snapshot = Self { lock: None, info: None, watch_index, ..self };
        for pair in pairs {
            snapshot.put(keys, pair);
        }
        snapshot
    }

    /// Stores the lock's keys. Locks with nested names share the prefix and are ignored.
    fn put(&mut self, keys: &Keys, pair: Pair) {
        if pair.key == keys.lock {
            self.lock = Some(pair);
        } else if pair.key == keys.info {
            self.info = Some(pair);
        }
    }

    /// Returns the session that holds the lock.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.lock.as_ref().and_then(Pair::holder)
    }

    /// Returns whether no session holds a key that an acquisition needs.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.holder().is_none() && self.info.as_ref().and_then(Pair::holder).is_none()
    }

    /// Returns what the contender with this session does next.
    #[must_use]
    pub fn next_step(&self, keys: &Keys, session: &str) -> NextStep {
        if let Some(lock) = &self.lock {
            if lock.flags != LOCK_FLAGS {
                return NextStep::NotALock;
            }
            if lock.holder() == Some(session) {
                return NextStep::Held(lock.clone());
            }
        }
        let Some(ahead) = self.number_ahead(keys, session) else { return NextStep::Join };
        match (ahead.checked_sub(1).map(|predecessor| &self.waiters[predecessor]), self.is_free()) {
            (None, true) => NextStep::Acquire,
            (None, false) => NextStep::WatchLock,
            (Some(predecessor), true) => NextStep::PassAfter(predecessor.clone(), pass_delay(ahead)),
            (Some(predecessor), false) => NextStep::WatchPredecessor(predecessor.clone(), pass_delay(ahead)),
        }
    }

    /// Returns the waiters that this session passes if it acquires the lock, limited to what one transaction can delete.
    #[must_use]
    pub fn ahead(&self, keys: &Keys, session: &str) -> &[Pair] {
        &self.waiters[..self.number_ahead(keys, session).unwrap_or_default().min(MAX_PASSED)]
    }

    /// Returns whether the lock was free all the time since `earlier`, as far as two reads can show: the first waiter is
    /// the same, and would have acquired it.
    #[must_use]
    pub fn stayed_free_since(&self, earlier: &Self) -> bool {
        let first = |snapshot: &Self| snapshot.waiters.first().map(|waiter| waiter.create_index);
        self.is_free() && earlier.is_free() && first(self) == first(earlier)
    }

    /// Returns the key of the waiter with this session, if it is in the queue.
    #[must_use]
    pub fn waiter<'a>(&'a self, keys: &Keys, session: &str) -> Option<&'a Pair> {
        self.number_ahead(keys, session).map(|ahead| &self.waiters[ahead])
    }

    /// Returns the contenders ahead, for messages.
    #[must_use]
    pub fn queue(&self, keys: &Keys, session: &str, lock_delay: bool) -> Queue {
        let held = self.holder().is_some();
        let waiters_ahead = self.number_ahead(keys, session).unwrap_or(self.waiters.len());
        Queue {
            ahead: u32::try_from(waiters_ahead + usize::from(held)).ok(),
            holder: held.then(|| self.record()),
            lock_delay: lock_delay && !held,
        }
    }

    /// Returns the holder's record; an empty one if the holder wrote none.
    #[must_use]
    pub fn record(&self) -> Record {
        // A record held by another session is not the holder's. No session holds Terraform's.
        let info = self.info.as_ref().filter(|info| info.holder().is_none() || info.holder() == self.holder());
        info.map(|pair| lockinfo::read(&pair.bytes())).unwrap_or_default()
    }

    fn number_ahead(&self, keys: &Keys, session: &str) -> Option<usize> {
        let key = keys.waiter_key(session);
        self.waiters.iter().position(|waiter| waiter.key == key)
    }
}

/// Returns how long a free lock is left to this number of waiters ahead.
fn pass_delay(ahead: usize) -> Duration {
    PASS_DELAY + PASS_DELAY_STEP.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("a").expect("a name")
    }

    fn lock(session: Option<&str>) -> Pair {
        Pair {
            key: "a/.lock".into(),
            flags: LOCK_FLAGS,
            session: session.map(Into::into),
            create_index: 3,
            modify_index: 7,
            ..Pair::default()
        }
    }

    fn waiter(session: &str, create_index: u64) -> Pair {
        Pair {
            key: format!("a/.queue/{session}"),
            session: Some(session.into()),
            create_index,
            modify_index: create_index,
            ..Pair::default()
        }
    }

    fn snapshot(pairs: Vec<Pair>) -> Snapshot {
        Snapshot::new(&keys(), pairs)
    }

    #[test]
    fn queue_is_ordered_by_creation() {
        let snapshot = snapshot(vec![waiter("a", 9), waiter("z", 8), lock(Some("x"))]);
        assert_eq!(snapshot.next_step(&keys(), "z"), NextStep::WatchLock);
        assert_eq!(snapshot.next_step(&keys(), "a"), NextStep::WatchPredecessor(waiter("z", 8), PASS_DELAY));
        assert_eq!(snapshot.queue(&keys(), "a", false).ahead, Some(2));
        assert_eq!(snapshot.watch_index, Some(7));
    }

    #[test]
    fn nested_locks_are_not_waiters() {
        let nested = Pair { key: "a/.queue/.lock".into(), ..waiter("x", 3) };
        let deeper = Pair { key: "a/.queue/b/.lock".into(), ..waiter("x", 4) };
        let snapshot = snapshot(vec![nested, deeper, waiter("b", 9)]);
        assert_eq!(snapshot.waiters, [waiter("b", 9)]);
        assert_eq!(snapshot.stale_keys, [] as [String; 0]);
    }

    #[test]
    fn waiter_key_without_its_session_is_stale() {
        let session = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
        let left_behind = Pair { session: None, ..waiter(session, 5) };
        let other = Pair { session: None, ..waiter("not-a-session", 6) };
        let snapshot = snapshot(vec![left_behind.clone(), other, waiter(session, 5), waiter("b", 9)]);
        assert_eq!(snapshot.stale_keys, [left_behind.key]);
        assert_eq!(snapshot.waiters, [waiter(session, 5), waiter("b", 9)]);
    }

    #[test]
    fn lock_stayed_free_if_the_first_waiter_is_the_same() {
        let (free, held) = (lock(None), lock(Some("x")));
        let earlier = snapshot(vec![free.clone(), waiter("a", 8), waiter("b", 9)]);
        let with_newcomer = vec![free.clone(), waiter("a", 8), waiter("b", 9), waiter("c", 10)];
        assert!(snapshot(with_newcomer).stayed_free_since(&earlier));
        assert!(!snapshot(vec![free, waiter("b", 9)]).stayed_free_since(&earlier), "the first may have held it");
        assert!(!snapshot(vec![held, waiter("a", 8), waiter("b", 9)]).stayed_free_since(&earlier));
    }

    #[test]
    fn first_waiter_acquires_a_free_lock_and_others_wait() {
        for free in [vec![], vec![lock(None)], vec![lock(Some(""))]] {
            let queue = [waiter("a", 8), waiter("b", 9), waiter("c", 10)];
            let snapshot = snapshot(free.into_iter().chain(queue).collect());
            assert_eq!(snapshot.next_step(&keys(), "a"), NextStep::Acquire);
            assert_eq!(snapshot.next_step(&keys(), "b"), NextStep::PassAfter(waiter("a", 8), PASS_DELAY));
            let longer = PASS_DELAY + PASS_DELAY_STEP;
            assert_eq!(snapshot.next_step(&keys(), "c"), NextStep::PassAfter(waiter("b", 9), longer));
            assert_eq!(snapshot.ahead(&keys(), "c"), [waiter("a", 8), waiter("b", 9)]);
            assert_eq!(snapshot.ahead(&keys(), "a"), []);
        }
    }

    #[test]
    fn holder_holds_whatever_the_queue_contains() {
        let snapshot = snapshot(vec![lock(Some("a")), waiter("a", 4)]);
        assert_eq!(snapshot.next_step(&keys(), "a"), NextStep::Held(lock(Some("a"))));
    }

    #[test]
    fn contender_without_a_key_joins_the_queue() {
        assert_eq!(snapshot(vec![]).next_step(&keys(), "a"), NextStep::Join);
        assert_eq!(snapshot(vec![lock(Some("b")), waiter("c", 9)]).next_step(&keys(), "a"), NextStep::Join);
    }

    #[test]
    fn key_with_other_flags_is_not_a_lock() {
        let mut other = lock(None);
        other.flags = 0;
        assert_eq!(snapshot(vec![other]).next_step(&keys(), "a"), NextStep::NotALock);
        let nested = Pair { key: "a/.lock/.lock".into(), ..lock(Some("b")) };
        assert_eq!(snapshot(vec![nested]), Snapshot::default());
    }

    #[test]
    fn record_of_an_ended_holder_blocks_the_lock() {
        let info = Pair { key: "a/.lockinfo".into(), value: Some("eyJ1c2VyIjoiam9lIn0=".into()), ..lock(Some("old")) };
        let blocked = snapshot(vec![info.clone(), waiter("a", 9)]);
        assert!(!blocked.is_free());
        assert_eq!(blocked.next_step(&keys(), "a"), NextStep::WatchLock);
        assert_eq!(snapshot(vec![info.clone(), lock(Some("new"))]).record(), Record::default());
        assert_eq!(snapshot(vec![info, lock(Some("old"))]).record().user, "joe");
    }

    #[test]
    fn lock_delay_is_shown_while_the_lock_is_free() {
        let queue = snapshot(vec![waiter("a", 9)]).queue(&keys(), "a", true);
        assert_eq!(queue, Queue { ahead: Some(0), holder: None, lock_delay: true });
        let queue = snapshot(vec![waiter("a", 9), lock(Some("x"))]).queue(&keys(), "a", true);
        assert_eq!(queue, Queue { ahead: Some(1), holder: Some(Record::default()), lock_delay: false });
    }

    #[test]
    fn pass_delay_grows_by_less_than_a_second_per_waiter() {
        assert_eq!(pass_delay(1), PASS_DELAY);
        assert!((1..100).all(|ahead| pass_delay(ahead) < pass_delay(ahead + 1)));
        assert!(pass_delay(6) < Duration::from_secs(4), "{:?}", pass_delay(6));
    }

    proptest::proptest! {
        /// In any queue exactly the contender that was created first is first, and each further one leaves a free lock
        /// to those ahead for longer than all of them do.
        #[test]
        fn any_queue_has_one_first_waiter(indexes in proptest::collection::hash_set(1_u64..1000, 1..40), free: bool) {
            let waiters = indexes.iter().map(|index| waiter(&format!("s{index}"), *index));
            let snapshot = snapshot(waiters.chain([lock(Some("x").filter(|_| !free))]).collect());
            let mut longest_delay = Duration::ZERO;
            for (number_ahead, own) in snapshot.waiters.iter().enumerate() {
                match snapshot.next_step(&keys(), own.holder().unwrap_or_default()) {
                    NextStep::Acquire => assert!(number_ahead == 0 && free),
                    NextStep::WatchLock => assert!(number_ahead == 0 && !free),
                    NextStep::PassAfter(predecessor, delay) | NextStep::WatchPredecessor(predecessor, delay) => {
                        assert!(number_ahead > 0 && predecessor == snapshot.waiters[number_ahead - 1]);
                        assert!(predecessor.create_index < own.create_index);
                        assert!(delay > longest_delay);
                        longest_delay = delay;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
