//! Clock and timers on `CLOCK_BOOTTIME`, which continues while the machine is suspended (rule 11).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;

use distlock_core::time::Instant;

/// Returns the current time.
#[must_use]
pub fn now() -> Instant {
    // CLOCK_BOOTTIME exists on every Linux since 2.6.39, so this cannot fail there.
    let time = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    Instant::from_boot(time.map_or(Duration::ZERO, Into::into))
}

/// Timer that becomes readable at its time, even if the machine was suspended then.
#[derive(Debug)]
pub(crate) struct Alarm(TimerFd);

impl Alarm {
    /// Returns an alarm that is not set.
    pub(crate) fn new() -> nix::Result<Self> {
        TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).map(Self)
    }

    /// Sets the alarm to `at`, or disarms it. A time in the past makes it readable immediately.
    pub(crate) fn set(&self, at: Option<Instant>) -> nix::Result<()> {
        let Some(at) = at else { return self.0.unset() };
        // An expiration of zero would disarm the timer.
        let at = at.since_boot().max(Duration::from_nanos(1));
        self.0.set(Expiration::OneShot(TimeSpec::from_duration(at)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
    }

    /// Makes the alarm unreadable after it has fired.
    pub(crate) fn clear(&self) {
        // The only error is EAGAIN: the alarm has not fired.
        let _ = self.0.wait();
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
