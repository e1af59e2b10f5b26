//! Who is next: decided from what was read, without I/O.
//!
//! Whoever finds the lock taken puts a key under `.queue/`, bound to its session; the order in which these keys came to
//! be is the queue. Each waiter watches only the place before its own, so a release wakes one, not all. The first in
//! the queue watches the lock and takes it when it is free, together with giving up its place in one transaction. A
//! newcomer's first try reads the queue along with taking the lock; where it passed somebody it gives the lock back and
//! queues. So nobody is passed, and a free lock that nobody waits for costs no request more.
//!
//! `consul lock` and Terraform do not queue; the first in the queue loses to them gracefully. A first that does not
//! take a free lock (it died, and its session has not expired) is passed by the next one, after [`patience`]. To notice
//! that, a waiter whose queue does not move watches the lock itself, which costs nothing while that is held.

use std::time::Duration;

use super::keys::{Keys, LOCK_FLAGS};
use super::lockinfo;
use super::pair::Pair;
use crate::outcome::Queue;
use crate::record::Record;

/// How long a free lock is left to the one place ahead, before it is passed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much longer for each further place ahead. All learn at the same time that the lock is free, so this need only
/// exceed what a transaction takes.
const STEP: Duration = Duration::from_millis(250);
/// A transaction takes 64 operations.
const MAX_PASSED: usize = 50;

/// The lock and its queue as last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The lock's key.
    pub lock: Option<Pair>,
    /// The holder's record.
    pub info: Option<Pair>,
    /// The places, the first one first.
    pub places: Vec<Pair>,
    /// Keys of places whose session ended without them.
    pub litter: Vec<String>,
    /// From where to wait for the next change of the lock.
    pub index: Option<u64>,
}

/// What a contender does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It holds the lock: its key.
    Held(Pair),
    /// Its place is gone: somebody passed it.
    Join,
    /// The key is not a lock.
    NotALock,
    /// It is first and the lock is free: take it.
    Take,
    /// It is first: wait for the lock to change.
    WatchLock,
    /// Wait for the place ahead to vanish, for so long; then watch the lock too, lest it is left to one who died.
    WatchPlace(Pair, Duration),
    /// The lock is free, and those ahead have not taken it: it is left to them for so long, unless the place just ahead
    /// vanishes.
    Neglected(Pair, Duration),
}

impl View {
    /// Sorts what was read under the prefixes of the lock and of the queue.
    #[must_use]
    pub fn new(keys: &Keys, pairs: Vec<Pair>) -> Self {
        let mut view = Self::default();
        for pair in pairs {
            if keys.is_place(&pair) {
                view.places.push(pair);
            } else if keys.is_litter(&pair) {
                view.litter.push(pair.key);
            } else {
                view.put(keys, pair);
            }
        }
        view.places.sort_by_key(|place| place.create_index);
        view.litter.truncate(MAX_PASSED);
        view.index = view.lock.iter().chain(&view.info).map(|pair| pair.modify_index).max();
        view
    }

    /// The same queue with the lock as it is now.
    #[must_use]
    pub fn with_lock(self, keys: &Keys, pairs: Vec<Pair>, index: Option<u64>) -> Self {
        let mut view = Self { lock: None, info: None, index, ..self };
        for pair in pairs {
            view.put(keys, pair);
        }
        view
    }

    /// Others (the locks of nested names) share the prefix.
    fn put(&mut self, keys: &Keys, pair: Pair) {
        if pair.key == keys.lock {
            self.lock = Some(pair);
        } else if pair.key == keys.info {
            self.info = Some(pair);
        }
    }

    /// The session that holds the lock.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.lock.as_ref().and_then(Pair::holder)
    }

    /// Nobody holds anything that taking the lock needs.
    #[must_use]
    pub fn free(&self) -> bool {
        self.holder().is_none() && self.info.as_ref().and_then(Pair::holder).is_none()
    }

    /// What the contender with this session does next.
    #[must_use]
    pub fn step(&self, keys: &Keys, session: &str) -> Step {
        if let Some(lock) = &self.lock {
            if lock.flags != LOCK_FLAGS {
                return Step::NotALock;
            }
            if lock.holder() == Some(session) {
                return Step::Held(lock.clone());
            }
        }
        let Some(position) = self.position(keys, session) else { return Step::Join };
        match (position.checked_sub(1).map(|before| &self.places[before]), self.free()) {
            (None, true) => Step::Take,
            (None, false) => Step::WatchLock,
            (Some(before), true) => Step::Neglected(before.clone(), patience(position)),
            (Some(before), false) => Step::WatchPlace(before.clone(), patience(position)),
        }
    }

    /// Those ahead in the queue, who are passed by taking the lock.
    #[must_use]
    pub fn ahead(&self, keys: &Keys, session: &str) -> &[Pair] {
        &self.places[..self.position(keys, session).unwrap_or_default().min(MAX_PASSED)]
    }

    /// Whether the lock was free all the time since `before`, as far as two looks can tell: the first in the queue is
    /// the same, and would have taken it.
    #[must_use]
    pub fn stood_still(&self, before: &Self) -> bool {
        let first = |view: &Self| view.places.first().map(|place| place.create_index);
        self.free() && before.free() && first(self) == first(before)
    }

    /// The own place, while it is in the queue.
    #[must_use]
    pub fn own<'a>(&'a self, keys: &Keys, session: &str) -> Option<&'a Pair> {
        self.position(keys, session).map(|position| &self.places[position])
    }

    /// What a user is told while the contender waits.
    #[must_use]
    pub fn queue(&self, keys: &Keys, session: &str, lock_delay: bool) -> Queue {
        let held = self.holder().is_some();
        let position = self.position(keys, session).unwrap_or(self.places.len());
        Queue {
            ahead: u32::try_from(position + usize::from(held)).ok(),
            holder: held.then(|| self.record()),
            lock_delay: lock_delay && !held,
        }
    }

    /// The holder's record; an empty one where the holder wrote none.
    #[must_use]
    pub fn record(&self) -> Record {
        // One that another session holds is not the holder's; Terraform's is held by none.
        let info = self.info.as_ref().filter(|info| info.holder().is_none() || info.holder() == self.holder());
        info.map(|pair| lockinfo::read(&pair.bytes())).unwrap_or_default()
    }

    fn position(&self, keys: &Keys, session: &str) -> Option<usize> {
        let place = keys.place(session);
        self.places.iter().position(|pair| pair.key == place)
    }
}

/// How long a free lock is left to so many places ahead: those farther back leave it to those before them.
fn patience(ahead: usize) -> Duration {
    PATIENCE + STEP.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX).saturating_sub(1))
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

    fn place(session: &str, create_index: u64) -> Pair {
        Pair {
            key: format!("a/.queue/{session}"),
            session: Some(session.into()),
            create_index,
            modify_index: create_index,
            ..Pair::default()
        }
    }

    fn view(pairs: Vec<Pair>) -> View {
        View::new(&keys(), pairs)
    }

    #[test]
    fn the_queue_is_in_the_order_of_creation() {
        let view = view(vec![place("a", 9), place("z", 8), lock(Some("x"))]);
        assert_eq!(view.step(&keys(), "z"), Step::WatchLock);
        assert_eq!(view.step(&keys(), "a"), Step::WatchPlace(place("z", 8), PATIENCE));
        assert_eq!(view.queue(&keys(), "a", false).ahead, Some(2));
        assert_eq!(view.index, Some(7));
    }

    #[test]
    fn what_else_lies_below_is_nobody_s_place() {
        let nested = Pair { key: "a/.queue/.lock".into(), ..place("x", 3) };
        let deeper = Pair { key: "a/.queue/b/.lock".into(), ..place("x", 4) };
        let view = view(vec![nested, deeper, place("b", 9)]);
        assert_eq!(view.places, [place("b", 9)]);
        assert_eq!(view.litter, [] as [String; 0]);
    }

    #[test]
    fn a_place_without_its_session_is_litter() {
        let session = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
        let left_behind = Pair { session: None, ..place(session, 5) };
        let other = Pair { session: None, ..place("not-a-session", 6) };
        let view = view(vec![left_behind.clone(), other, place(session, 5), place("b", 9)]);
        assert_eq!(view.litter, [left_behind.key]);
        assert_eq!(view.places, [place(session, 5), place("b", 9)]);
    }

    #[test]
    fn a_queue_stands_still_while_its_first_leaves_the_lock() {
        let (free, held) = (lock(None), lock(Some("x")));
        let before = view(vec![free.clone(), place("a", 8), place("b", 9)]);
        assert!(view(vec![free.clone(), place("a", 8), place("b", 9), place("c", 10)]).stood_still(&before));
        assert!(!view(vec![free, place("b", 9)]).stood_still(&before), "the first had its turn");
        assert!(!view(vec![held, place("a", 8), place("b", 9)]).stood_still(&before));
    }

    #[test]
    fn the_first_takes_a_free_lock_and_others_leave_it_to_those_ahead() {
        for free in [vec![], vec![lock(None)], vec![lock(Some(""))]] {
            let view = view(free.into_iter().chain([place("a", 8), place("b", 9), place("c", 10)]).collect());
            assert_eq!(view.step(&keys(), "a"), Step::Take);
            assert_eq!(view.step(&keys(), "b"), Step::Neglected(place("a", 8), PATIENCE));
            assert_eq!(view.step(&keys(), "c"), Step::Neglected(place("b", 9), PATIENCE + STEP));
            assert_eq!(view.ahead(&keys(), "c"), [place("a", 8), place("b", 9)]);
            assert_eq!(view.ahead(&keys(), "a"), []);
        }
    }

    #[test]
    fn the_holder_holds_whatever_the_queue_says() {
        assert_eq!(view(vec![lock(Some("a")), place("a", 4)]).step(&keys(), "a"), Step::Held(lock(Some("a"))));
    }

    #[test]
    fn who_has_no_place_joins() {
        assert_eq!(view(vec![]).step(&keys(), "a"), Step::Join);
        assert_eq!(view(vec![lock(Some("b")), place("c", 9)]).step(&keys(), "a"), Step::Join);
    }

    #[test]
    fn other_keys_are_no_locks() {
        let mut other = lock(None);
        other.flags = 0;
        assert_eq!(view(vec![other]).step(&keys(), "a"), Step::NotALock);
        let nested = Pair { key: "a/.lock/.lock".into(), ..lock(Some("b")) };
        assert_eq!(view(vec![nested]), View::default());
    }

    #[test]
    fn a_record_bound_to_a_dead_holder_keeps_the_lock_closed_and_names_nobody() {
        let info = Pair { key: "a/.lockinfo".into(), value: Some("eyJ1c2VyIjoiam9lIn0=".into()), ..lock(Some("old")) };
        let closed = view(vec![info.clone(), place("a", 9)]);
        assert!(!closed.free());
        assert_eq!(closed.step(&keys(), "a"), Step::WatchLock);
        assert_eq!(view(vec![info.clone(), lock(Some("new"))]).record(), Record::default());
        assert_eq!(view(vec![info, lock(Some("old"))]).record().user, "joe");
    }

    #[test]
    fn the_lock_delay_is_told_while_nobody_holds() {
        let queue = view(vec![place("a", 9)]).queue(&keys(), "a", true);
        assert_eq!(queue, Queue { ahead: Some(0), holder: None, lock_delay: true });
        let queue = view(vec![place("a", 9), lock(Some("x"))]).queue(&keys(), "a", true);
        assert_eq!(queue, Queue { ahead: Some(1), holder: Some(Record::default()), lock_delay: false });
    }

    #[test]
    fn who_is_farther_back_is_more_patient_by_less_than_a_second_each() {
        assert_eq!(patience(1), PATIENCE);
        assert!((1..100).all(|n| patience(n) < patience(n + 1)));
        assert!(patience(6) < Duration::from_secs(4), "{:?}", patience(6));
    }

    proptest::proptest! {
        /// Whoever came first is first, whatever order they are read in, and each of the others leaves a free lock longer
        /// to those ahead than all of them do.
        #[test]
        fn of_any_queue_one_is_first(indexes in proptest::collection::hash_set(1_u64..1000, 1..40), free: bool) {
            let places = indexes.iter().map(|index| place(&format!("s{index}"), *index));
            let view = view(places.chain([lock(Some("x").filter(|_| !free))]).collect());
            let mut patient = Duration::ZERO;
            for (n, own) in view.places.iter().enumerate() {
                match view.step(&keys(), own.holder().unwrap_or_default()) {
                    Step::Take => assert!(n == 0 && free),
                    Step::WatchLock => assert!(n == 0 && !free),
                    Step::Neglected(ahead, patience) | Step::WatchPlace(ahead, patience) => {
                        assert!(n > 0 && ahead == view.places[n - 1] && ahead.create_index < own.create_index);
                        assert!(patience > patient);
                        patient = patience;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
