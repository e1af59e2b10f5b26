//! Pauses between attempts. All retries use these formulas.

use std::time::Duration;

/// Returns `first`, doubled `doublings` times, but at most `max`.
#[must_use]
pub fn doubled(first: Duration, doublings: u32, max: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(max)
}

/// Returns the pause that follows `last`: twice as long, between `first` and `max`.
#[must_use]
pub fn next(last: Duration, first: Duration, max: Duration) -> Duration {
    last.saturating_mul(2).max(first).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let mut last = Duration::ZERO;
        for doublings in 0..100 {
            last = next(last, FIRST, MAX);
            assert_eq!(doubled(FIRST, doublings, MAX), last);
        }
        assert_eq!([0, 1, 4, 5].map(|doublings| doubled(FIRST, doublings, MAX).as_millis()), [50, 100, 800, 1000]);
    }

    #[test]
    fn pauses_do_not_overflow() {
        assert_eq!(doubled(FIRST, u32::MAX, Duration::MAX), FIRST.saturating_mul(u32::MAX));
        assert_eq!(next(Duration::MAX, FIRST, Duration::MAX), Duration::MAX);
        assert_eq!(next(Duration::ZERO, MAX, FIRST), FIRST);
    }
}
