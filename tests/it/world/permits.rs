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

static PERMITS: Mutex<Permits> = Mutex::new(Permits { clusters: 0, retries: 0, exclusive: false });
static RETURNED: Condvar = Condvar::new();

/// The permits in use.
struct Permits {
    clusters: usize,
    retries: usize,
    exclusive: bool,
}

impl Permits {
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
        Permits::wait(|permits| {
            let granted = permits.clusters < CLUSTERS && !permits.exclusive;
            permits.clusters += usize::from(granted);
            granted
        });
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
        Permits::wait(|permits| {
            let granted = permits.clusters == 0 && permits.retries == 0 && !permits.exclusive;
            permits.exclusive |= granted;
            granted
        });
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
            Permits::wait(|permits| {
                permits.retries += usize::from(!permits.exclusive);
                !permits.exclusive
            });
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
