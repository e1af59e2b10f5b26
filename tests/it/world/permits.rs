//! Permits for tests that need a large part of the machine.
//!
//! Most tests wait for real time to pass, so many run at the same time (`RUST_TEST_THREADS` in `.cargo/config.toml`).
//! Two kinds need more:
//!
//! - a cluster runs several servers, so the number of clusters is limited,
//! - some tests start more processes than the processors can run; no cluster runs beside them, as its leases could
//!   expire.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Clusters that may run at the same time: three tests, each on every kind of server.
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

    /// Waits until `take` returns true, which means that it took a permit.
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

/// Permit to run a cluster. A thread must not take two.
pub struct ClusterPermit(());

impl ClusterPermit {
    /// Waits until fewer than [`CLUSTERS`] run and no test has all processors.
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

/// Permit to start more processes than the processors can run. A thread must not take two.
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

/// Permit to repeat an attempt that busy processors may have broken.
pub struct RetryPermit {
    /// False if this thread has all processors, so that no other permit matters.
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
