//! Deadlines of a lease, and the schedule of its renewals. Every function takes the current time.
//!
//! Rule 1: a lease starts at `sent_at`, sampled **before** the request was sent that granted or last renewed it. The server
//! cannot have started the TTL earlier. Rule 2: three deadlines follow.
//!
//! ```text
//! lifetime       = cover * (1 - clock rate error) - timer allowance
//! hard deadline  = sent_at + lifetime            the process tree is confirmed dead
//! kill deadline  = hard deadline - kill budget   KILL
//! soft deadline  = kill deadline - grace         the soft signal
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff;
use crate::time::Instant;

/// Largest difference between the rates of two clocks, in percent.
pub const CLOCK_RATE_ERROR_PERCENT: u32 = 1;
/// Allowance for rounding and for the granularity of timers.
pub const TIMER_ALLOWANCE: Duration = Duration::from_millis(100);
/// Time from KILL until the whole process tree is reaped.
pub const KILL_BUDGET: Duration = Duration::from_millis(500);
/// Shortest renewal window that is accepted (rule 3): two renewals of half a second.
pub const MIN_RENEWAL_WINDOW: Duration = Duration::from_secs(1);
/// Longest time limit of a request that decides about a lease.
pub const MAX_REQUEST_TIME: Duration = Duration::from_secs(3);
/// Longest time that a release may take.
pub const MAX_RELEASE: Duration = Duration::from_secs(5);
/// Interval between two passes of KILL, or of SIGSTOP, over a process tree: short enough to outrun one that forks.
pub const KILL_INTERVAL: Duration = Duration::from_millis(2);
/// The same interval once the tree has survived [`KILL_BUDGET`].
pub const KILL_INTERVAL_STUCK: Duration = Duration::from_millis(100);

/// Pause before the second retry of a renewal, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two retries of a renewal.
const MAX_PAUSE: Duration = Duration::from_millis(800);

/// Lease time that the server granted, and the grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long the server excludes other clients, counted from `sent_at`: the granted TTL, on Consul at most the
    /// lock-delay.
    pub cover: Duration,
    /// Time from the soft signal to KILL.
    pub grace: Duration,
}

/// Times at which a command is stopped if its lease is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deadlines {
    /// The command gets the soft signal.
    pub soft: Instant,
    /// The process tree gets KILL.
    pub kill: Instant,
    /// The process tree is confirmed dead.
    pub hard: Instant,
}

impl Deadlines {
    /// Deadlines of a lock that does not expire: later than any machine runs.
    pub const NEVER: Self = {
        let never = Instant::from_boot(Duration::from_secs(1000 * 365 * 24 * 60 * 60));
        Self { soft: never, kill: never, hard: never }
    };
}

/// Terms that leave too little time to renew. Displays the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease of {cover:?} minus {CLOCK_RATE_ERROR_PERCENT} % clock rate error, {TIMER_ALLOWANCE:?} timer allowance, {KILL_BUDGET:?} kill budget and {grace:?} grace leaves a renewal window of {window:?}; the minimum is {MIN_RENEWAL_WINDOW:?}"
)]
pub struct WindowTooShort {
    cover: Duration,
    grace: Duration,
    window: Duration,
}

impl Terms {
    /// Returns the time from `sent_at` to the hard deadline.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        (self.cover.saturating_mul(100 - CLOCK_RATE_ERROR_PERCENT) / 100).saturating_sub(TIMER_ALLOWANCE)
    }

    /// Returns the time from `sent_at` to the soft deadline; zero if there is none.
    #[must_use]
    pub fn renewal_window(&self) -> Duration {
        self.lifetime().saturating_sub(KILL_BUDGET).saturating_sub(self.grace)
    }

    /// Refuses terms whose renewal window is shorter than [`MIN_RENEWAL_WINDOW`].
    ///
    /// # Errors
    ///
    /// The renewal window is too short.
    pub fn check(&self) -> Result<(), WindowTooShort> {
        let window = self.renewal_window();
        if window < MIN_RENEWAL_WINDOW {
            return Err(WindowTooShort { cover: self.cover, grace: self.grace, window });
        }
        Ok(())
    }

    /// Returns the shortest cover that [`Terms::check`] accepts with this grace, rounded up to whole seconds; for hints.
    #[must_use]
    pub fn min_cover(grace: Duration) -> Duration {
        let fixed = MIN_RENEWAL_WINDOW + KILL_BUDGET + TIMER_ALLOWANCE;
        let needed = fixed.saturating_add(grace).saturating_mul(100) / (100 - CLOCK_RATE_ERROR_PERCENT);
        Duration::from_secs(needed.as_secs() + u64::from(needed.subsec_nanos() > 0))
    }

    /// Returns the deadlines of a lease that was granted or renewed by a request sent at `sent_at`.
    #[must_use]
    pub fn deadlines(&self, sent_at: Instant) -> Deadlines {
        let hard = sent_at + self.lifetime();
        Deadlines { soft: sent_at + self.renewal_window(), kill: (hard - KILL_BUDGET).max(sent_at), hard }
    }

    /// Returns the time from `sent_at` to the first renewal: a third of the cover, or half of the renewal window if that
    /// is shorter (rule 3).
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.cover / 3).min(self.renewal_window() / 2)
    }

    /// Returns the time limit of one request: three of them fit between the start of a renewal and the soft deadline.
    #[must_use]
    pub fn request_limit(&self) -> Duration {
        let left = self.renewal_window().saturating_sub(self.interval());
        (left / 3).clamp(Duration::from_millis(150), MAX_REQUEST_TIME)
    }
}

/// Lease from its grant to its end: its deadlines, and when to renew it.
///
/// The owner reports each outcome with [`Lease::renewal_confirmed`] or [`Lease::renewal_failed`], and renews at
/// [`Lease::due`].
#[derive(Clone, Debug)]
pub struct Lease {
    terms: Terms,
    sent_at: Instant,
    due: Instant,
    failures: u32,
}

impl Lease {
    /// Creates a lease whose grant was sent at `sent_at`.
    #[must_use]
    pub fn new(terms: Terms, sent_at: Instant) -> Self {
        Self { terms, sent_at, due: sent_at + terms.interval(), failures: 0 }
    }

    /// Returns the terms.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Returns the deadlines that follow from the last confirmed renewal.
    #[must_use]
    pub fn deadlines(&self) -> Deadlines {
        self.terms.deadlines(self.sent_at)
    }

    /// Returns the time of the next renewal.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Returns how many renewals failed since the last confirmed one.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Records a confirmed renewal that was sent at `sent_at`; returns whether the deadlines moved.
    ///
    /// A late confirmation counts from its own `sent_at`. One that is older than the last confirmed renewal moves nothing.
    #[must_use]
    pub fn renewal_confirmed(&mut self, sent_at: Instant) -> bool {
        self.failures = 0;
        let moved = sent_at > self.sent_at;
        self.sent_at = self.sent_at.max(sent_at);
        self.due = self.sent_at + self.terms.interval();
        moved
    }

    /// Records a renewal that was not confirmed by `now`, and schedules the next attempt.
    pub fn renewal_failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        // The first retry is immediate, because it goes to another endpoint if there is one. After that, an error that is returned
        // immediately must not cause a storm of requests.
        let pause = match self.failures {
            1 => Duration::ZERO,
            failures => backoff::doubled(FIRST_PAUSE, failures - 2, MAX_PAUSE.min(self.terms.request_limit())),
        };
        self.due = now + pause;
    }

    /// Returns the time limit of a renewal that starts at `now`. It ends by the soft deadline; after that deadline there is
    /// nothing left to protect, and the full limit applies.
    #[must_use]
    pub fn request_limit(&self, now: Instant) -> Duration {
        let left = now.until(self.deadlines().soft);
        if left.is_zero() { self.terms.request_limit() } else { self.terms.request_limit().min(left) }
    }

    /// Returns the latest time at which a command may start: half of the renewal window is left then (rule 3).
    #[must_use]
    pub fn start_until(&self) -> Instant {
        self.deadlines().soft - self.terms.renewal_window() / 2
    }

    /// Returns whether a command may start at `now`.
    #[must_use]
    pub fn may_start(&self, now: Instant) -> bool {
        now <= self.start_until()
    }
}

#[cfg(test)]
mod tests;
