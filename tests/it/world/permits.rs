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

/// Permit of a thread to run more processes than the processors can. A thread that has one must not ask for another.
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

/// Permit to try something again that busy processors may have spoiled.
pub struct RetryPermit {
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
