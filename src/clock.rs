//! Instants and alarms on `CLOCK_BOOTTIME`.
//!
//! The clocks of std and tokio stand still while a machine is suspended, and the wall clock can be set.
//! A lease on a server does neither, so nothing that concerns a lease is measured with them.

use std::ops::{Add, Sub};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use serde::{Deserialize, Serialize};

/// A moment, as the time since the machine booted, suspend included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(Duration);

impl Instant {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        // CLOCK_BOOTTIME exists on every Linux since 2.6.39, so this cannot fail there.
        clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Self(Duration::ZERO), |t| Self(t.into()))
    }

    /// The moment that lies `since_boot` after the boot; for tests and for reading a message.
    #[must_use]
    pub const fn from_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// The time since the boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it is until `later`; zero when it has passed.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

/// A moment of the wall clock as programs read it: ISO 8601, UTC, always of the same width.
#[must_use]
pub fn iso(moment: Timestamp) -> String {
    format!("{moment:.3}")
}

/// A timerfd on `CLOCK_BOOTTIME`: readable once its moment has come, also when the machine slept through it.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// An alarm that is not set.
    pub fn new() -> nix::Result<Self> {
        TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).map(Self)
    }

    /// Sets the alarm to `at`, or switches it off. A moment that has passed rings at once.
    pub fn set(&self, at: Option<Instant>) -> nix::Result<()> {
        let Some(at) = at else { return self.0.unset() };
        // An expiration of zero would switch the timer off.
        let at = at.since_boot().max(Duration::from_nanos(1));
        self.0.set(Expiration::OneShot(TimeSpec::from_duration(at)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
    }

    /// Takes note that it rang, so that the descriptor is no longer readable.
    pub fn clear(&self) {
        // The only error is EAGAIN: it has not rung, so there is nothing to clear.
        let _ = self.0.wait();
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Alarm {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0.as_fd())
    }
}
