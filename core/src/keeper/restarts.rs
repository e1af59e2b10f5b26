//! Number of runs that `--on-lost restart` has added, and the pauses between them.

use std::time::Duration;

use crate::backoff;
use crate::time::Instant;

/// First pause after a run that held the lock for less than its cover; doubles with each further such run.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Restarts so far. The pauses keep a command that destroys its own lock from spinning.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    pub(super) count: u32,
    /// When the lock was acquired, and the cover of its lease.
    acquired: Option<(Instant, Duration)>,
    pause: Duration,
}

impl Restarts {
    pub(super) fn lock_acquired(&mut self, cover: Duration, now: Instant) {
        self.acquired = Some((now, cover));
    }

    /// Counts a restart after a loss; returns the pause before it, which is zero if the lock was held for its cover.
    pub(super) fn next_pause(&mut self, now: Instant) -> Duration {
        self.count = self.count.saturating_add(1);
        self.pause = match self.acquired.take() {
            Some((acquired_at, cover)) if now.since(acquired_at) < cover => {
                backoff::next(self.pause, FIRST_PAUSE, cover)
            }
            _ => Duration::ZERO,
        };
        self.pause
    }
}
