//! The arithmetic of a lease and its renewals. Pure: every function takes the present moment, none reads a clock.
//!
//! A lease is known to live until some time after `s`, the moment **before** the request was sent that granted or
//! last renewed it: the server cannot have started its TTL earlier. From `s` follow three deadlines:
//!
//! ```text
//! hard  D = s + cover * (1 - RHO) - EPS     the command's tree is confirmed empty by then
//! kill    = D - K                           KILL
//! soft    = D - K - G                       TERM
//! ```
//!
//! `cover` is the time that the server keeps others away after `s`: the TTL that it granted, on Consul never more
//! than the lock-delay. `G` is the grace between TERM and KILL.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// Parts per hundred by which the clocks' rates may differ (rho).
pub const RHO_PERCENT: u32 = 1;
/// Allowance for rounding and for the granularity of timers.
pub const EPS: Duration = Duration::from_millis(100);
/// Time budgeted for KILL and for reaping the whole tree.
pub const K: Duration = Duration::from_millis(500);
/// The least time that must lie between `s` and the soft deadline: two renewals of half a second.
pub const MIN_ROOM: Duration = Duration::from_secs(1);
/// No request to a server that decides about a lease is given longer than this.
pub const MAX_ATTEMPT: Duration = Duration::from_secs(3);

/// What was agreed with the server, and the grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long the server keeps everybody else away, counted from `s`.
    pub cover: Duration,
    /// From TERM to KILL (G).
    pub grace: Duration,
}

/// The three moments at which something happens to a command whose lease is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deadlines {
    /// TERM.
    pub soft: Instant,
    /// KILL.
    pub kill: Instant,
    /// Everything is confirmed dead.
    pub hard: Instant,
}

impl Deadlines {
    /// Those of a lock that does not expire: later than any machine runs.
    pub const NEVER: Self = {
        let never = Instant::from_boot(Duration::from_secs(1000 * 365 * 24 * 60 * 60));
        Self { soft: never, kill: never, hard: never }
    };
}

/// Terms that leave no time to renew; displays the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease of {cover:?} less {RHO_PERCENT} % clock error, {EPS:?} allowance, {K:?} to kill and {grace:?} grace leaves {room:?} to renew it in, and {MIN_ROOM:?} is the least"
)]
pub struct NoRoom {
    cover: Duration,
    grace: Duration,
    room: Duration,
}

impl Terms {
    /// The time from `s` to the hard deadline.
    #[must_use]
    pub fn life(&self) -> Duration {
        (self.cover.saturating_mul(100 - RHO_PERCENT) / 100).saturating_sub(EPS)
    }

    /// The time from `s` to the soft deadline; zero when there is none.
    #[must_use]
    pub fn room(&self) -> Duration {
        self.life().saturating_sub(K).saturating_sub(self.grace)
    }

    /// Refuses terms under which the lease could not be renewed in time.
    pub fn check(&self) -> Result<(), NoRoom> {
        let room = self.room();
        if room < MIN_ROOM {
            return Err(NoRoom { cover: self.cover, grace: self.grace, room });
        }
        Ok(())
    }

    /// The least cover that [`Terms::check`] accepts with this grace, rounded up to whole seconds; for hints.
    #[must_use]
    pub fn least_cover(grace: Duration) -> Duration {
        let needed = (MIN_ROOM + K + EPS).saturating_add(grace).saturating_mul(100) / (100 - RHO_PERCENT);
        Duration::from_secs(needed.as_secs() + u64::from(needed.subsec_nanos() > 0))
    }

    /// The deadlines that follow from `s`.
    #[must_use]
    pub fn deadlines(&self, s: Instant) -> Deadlines {
        let hard = s + self.life();
        Deadlines { soft: s + self.room(), kill: (hard - K).max(s), hard }
    }

    /// How long after `s` the first renewal starts: a third of the cover, earlier when the grace leaves less room.
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.cover / 3).min(self.room() / 2)
    }

    /// How long one request may take, so that three tries fit between a renewal's start and the soft deadline.
    #[must_use]
    pub fn attempt(&self) -> Duration {
        (self.room().saturating_sub(self.interval()) / 3).clamp(Duration::from_millis(150), MAX_ATTEMPT)
    }
}

/// A lease between its grant and its end: when to renew it, and until when it may be relied on.
///
/// The one who keeps it calls [`Lease::confirmed`] and [`Lease::failed`] as answers come in, and renews when
/// [`Lease::due`] has come.
#[derive(Clone, Debug)]
pub struct Lease {
    terms: Terms,
    s: Instant,
    due: Instant,
    failures: u32,
}

impl Lease {
    /// A lease whose grant was sent at `s`.
    #[must_use]
    pub fn new(terms: Terms, s: Instant) -> Self {
        Self { terms, s, due: s + terms.interval(), failures: 0 }
    }

    /// What was agreed.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// The deadlines that the last confirmed renewal gives.
    #[must_use]
    pub fn deadlines(&self) -> Deadlines {
        self.terms.deadlines(self.s)
    }

    /// When the next renewal is to be sent.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Renewals that failed since the last confirmed one.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A renewal sent at `s` was confirmed. A late confirmation counts with its own `s`; one that is older than what
    /// is known changes nothing. Returns whether the deadlines moved.
    #[must_use]
    pub fn confirmed(&mut self, s: Instant) -> bool {
        self.failures = 0;
        let moved = s > self.s;
        self.s = self.s.max(s);
        self.due = self.s + self.terms.interval();
        moved
    }

    /// A renewal got no answer, or one that says nothing, by `now`: the next try comes soon, on another endpoint.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        // The first retry is immediate, since it goes elsewhere. From then on an error that comes back at once must not
        // become a storm of requests.
        let pause = match self.failures {
            1 => Duration::ZERO,
            n => (Duration::from_millis(50) * 2_u32.saturating_pow(n.min(6) - 2)).min(self.terms.attempt()),
        };
        self.due = now + pause;
    }

    /// How long a renewal that starts at `now` may take. While the lease lives it ends before the soft deadline; after
    /// that there is nothing left to protect, and it may take its time.
    #[must_use]
    pub fn attempt(&self, now: Instant) -> Duration {
        let left = now.until(self.deadlines().soft);
        if left.is_zero() { self.terms.attempt() } else { self.terms.attempt().min(left) }
    }

    /// Until when a command may be started: half of rule 3's room is left then.
    #[must_use]
    pub fn fresh_until(&self) -> Instant {
        self.deadlines().soft - self.terms.room() / 2
    }

    /// Whether a command may be started at `now`.
    #[must_use]
    pub fn fresh(&self, now: Instant) -> bool {
        now <= self.fresh_until()
    }
}

#[cfg(test)]
mod tests;
