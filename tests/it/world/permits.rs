//! Permits that keep tests apart which need much of the machine.
//!
//! Most tests wait for real time to pass, so many of them run beside each other (`RUST_TEST_THREADS` in
//! `.cargo/config.toml`). Two kinds take more than their share:
//!
//! - a cluster runs several servers, so only some clusters run at a time,
//! - a few tests start more processes than the processors can run, which no lease of a cluster may depend on.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many clusters run at a time: those of three tests, on each kind of server.
const CLUSTERS: usize = 9;

static PERMITS: Mutex<Permits> = Mutex::new(Permits::NONE);
static RETURNED: Condvar = Condvar::new();

/// The permits in use.
#[derive(Debug, PartialEq, Eq)]
struct Permits {
    clusters: usize,
    retries: usize,
    exclusive: bool,
}

impl Permits {
    const NONE: Self = Self { clusters: 0, retries: 0, exclusive: false };

    fn take_cluster(&mut self) -> bool {
        let granted = self.clusters < CLUSTERS && !self.exclusive;
        self.clusters += usize::from(granted);
        granted
    }

    fn take_all_processors(&mut self) -> bool {
        let granted = self.clusters == 0 && self.retries == 0 && !self.exclusive;
        self.exclusive |= granted;
        granted
    }

    fn take_retry(&mut self) -> bool {
        self.retries += usize::from(!self.exclusive);
        !self.exclusive
    }

    fn lock() -> MutexGuard<'static, Self> {
        PERMITS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `take` takes a permit.
    fn wait(take: impl Fn(&mut Self) -> bool) {
        let mut permits = Self::lock();
        while !take(&mut permits) {
            permits = RETURNED.wait(permits).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(change: impl FnOnce(&mut Self)) {
        change(&mut Self::lock());
        RETURNED.notify_all();
    }
}

/// Permit to run a cluster. A thread that has one must not ask for another.
pub struct ClusterPermit(());

impl ClusterPermit {
    /// Waits until there is one of [`CLUSTERS`], and no test has all processors.
    pub fn wait() -> Self {
        Permits::wait(Permits::take_cluster);
        Self(())
    }
}

impl Drop for ClusterPermit {
    fn drop(&mut self) {
        Permits::give_back(|permits| permits.clusters -= 1);
    }
}

thread_local! {
    /// Whether this thread has all processors.
    static EXCLUSIVE: Cell<bool> = const { Cell::new(false) };
}

/// Permit of a thread to run more processes than the processors can. A thread that has one must not ask for another.
pub struct AllProcessors(());

impl AllProcessors {
    /// Waits until no cluster runs and no test retries.
    pub fn wait() -> Self {
        Permits::wait(Permits::take_all_processors);
        EXCLUSIVE.set(true);
        Self(())
    }
}

impl Drop for AllProcessors {
    fn drop(&mut self) {
        EXCLUSIVE.set(false);
        Permits::give_back(|permits| permits.exclusive = false);
    }
}

/// Permit to try something again that busy processors may have spoiled.
pub struct RetryPermit {
    counted: bool,
}

impl RetryPermit {
    /// Waits until no other thread has all processors.
    pub fn wait() -> Self {
        let counted = !EXCLUSIVE.get();
        if counted {
            Permits::wait(Permits::take_retry);
        }
        Self { counted }
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        if self.counted {
            Permits::give_back(|permits| permits.retries -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLUSTERS, EXCLUSIVE, Permits, RetryPermit};

    #[test]
    fn clusters_are_limited() {
        let mut permits = Permits::NONE;
        assert!((0..CLUSTERS).all(|_| permits.take_cluster()));
        assert!(!permits.take_cluster());
        assert_eq!(permits.clusters, CLUSTERS);
    }

    #[test]
    fn all_processors_exclude_every_other_permit() {
        let mut permits = Permits::NONE;
        assert!(permits.take_all_processors());
        assert!(!permits.take_all_processors() && !permits.take_cluster() && !permits.take_retry());
        assert_eq!(permits, Permits { exclusive: true, ..Permits::NONE });
        for mut used in [Permits { clusters: 1, ..Permits::NONE }, Permits { retries: 1, ..Permits::NONE }] {
            assert!(!used.take_all_processors() && used.take_cluster() && used.take_retry());
        }
    }

    #[test]
    fn a_thread_with_all_processors_may_retry() {
        EXCLUSIVE.set(true);
        assert!(!RetryPermit::wait().counted);
        EXCLUSIVE.set(false);
    }
}
