//! Instants on `CLOCK_BOOTTIME`. Reading that clock is left to the program.
//!
//! The clocks of std and tokio stop while a machine is suspended, and the wall clock can be set. A lease on a server is
//! affected by neither, so everything that concerns a lease is measured on this clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Time since the machine booted, suspend included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(Duration);

impl Instant {
    /// Creates the instant `since_boot` after the boot.
    #[must_use]
    pub const fn from_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Returns the time since the boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// Returns the time that has passed since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the time left until `later`; zero if it has passed.
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

/// Formats a wall-clock time for programs: ISO 8601, UTC, milliseconds, always of the same width.
#[must_use]
pub fn iso(time: Timestamp) -> String {
    format!("{time:.3}")
}
