//! Bounds that Consul's servers set for a session.

use std::time::Duration;

use crate::duration::show;
use crate::error::Failure;

/// Shortest TTL of a session.
pub const MIN_TTL: Duration = Duration::from_secs(10);
/// Longest TTL of a session.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest lock-delay of a session.
pub const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);

/// Refuses a TTL that the servers do not grant.
///
/// # Errors
///
/// A usage failure that names the bounds.
pub fn check_ttl(ttl: Duration) -> Result<(), Failure> {
    if (MIN_TTL..=MAX_TTL).contains(&ttl) {
        return Ok(());
    }
    let hint = format!("choose one from {} to {} with --ttl", show(MIN_TTL), show(MAX_TTL));
    Err(Failure::usage(format!("Consul grants no TTL of {}", show(ttl))).hint(hint))
}

/// Refuses a lock-delay that the servers do not grant.
///
/// # Errors
///
/// A usage failure that names the bound.
pub fn check_lock_delay(lock_delay: Duration) -> Result<(), Failure> {
    if lock_delay <= MAX_LOCK_DELAY {
        return Ok(());
    }
    let hint = format!("choose {} or less as lock_delay in [consul]", show(MAX_LOCK_DELAY));
    Err(Failure::usage(format!("Consul grants no lock-delay of {}", show(lock_delay))).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn bounds_are_accepted_and_nothing_beyond_them() {
        assert_eq!((check_ttl(MIN_TTL), check_ttl(MAX_TTL)), (Ok(()), Ok(())));
        assert_eq!((check_lock_delay(Duration::ZERO), check_lock_delay(MAX_LOCK_DELAY)), (Ok(()), Ok(())));
        let beyond = [
            check_ttl(MIN_TTL.saturating_sub(MILLISECOND)),
            check_ttl(MAX_TTL + MILLISECOND),
            check_lock_delay(MAX_LOCK_DELAY + MILLISECOND),
        ];
        assert!(beyond.into_iter().all(|checked| checked.is_err_and(|failure| failure.hint.is_some())));
    }
}
