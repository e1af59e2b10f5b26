//! Rule 3: terms without time to renew the lease are refused before anything runs, with the arithmetic.

use std::time::Duration;

use crate::lock::Settings;
use distlock_core::duration::show;
use distlock_core::error::Failure;
use distlock_core::lease::{MIN_RENEWAL_WINDOW, Terms};

const CONSUL_TTL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(24 * 60 * 60));
const LONGEST_GRACE: Duration = Duration::from_secs(5);

/// The grace that a lease of this length leaves when nobody asks for one, in whole milliseconds, as it is told.
#[must_use]
pub(super) fn default_grace(ttl: Duration) -> Duration {
    let third = u64::try_from((ttl / 3).as_millis()).map_or(LONGEST_GRACE, Duration::from_millis);
    LONGEST_GRACE.min(third)
}

/// Refuses a lease that the backend cannot give, or that could not be renewed in time.
///
/// # Errors
///
/// A usage failure with the arithmetic, and the least TTL or the longest grace that would do.
pub(super) fn check(settings: &Settings, ttl: Duration, asked_grace: Option<Duration>) -> Result<(), Failure> {
    let cover = match settings {
        Settings::Local(_) => return Ok(()),
        Settings::Etcd(_) => ttl,
        Settings::Consul(_, options) => {
            if ttl < CONSUL_TTL.0 || ttl > CONSUL_TTL.1 {
                return Err(Failure::usage(format!("Consul grants no TTL of {}", show(ttl))).hint(format!(
                    "choose one from {} to {} with --ttl",
                    show(CONSUL_TTL.0),
                    show(CONSUL_TTL.1)
                )));
            }
            ttl.min(options.lock_delay)
        }
    };
    let terms = Terms { cover, grace: asked_grace.unwrap_or_else(|| default_grace(ttl)) };
    terms.check().map_err(|no_room| {
        let failure = format!("a TTL of {} with a grace of {} is too short to be kept", show(ttl), show(terms.grace));
        Failure::usage(failure).because(no_room).hint(way_out(settings, ttl, cover, asked_grace))
    })
}

fn way_out(settings: &Settings, ttl: Duration, cover: Duration, asked_grace: Option<Duration>) -> String {
    let least = asked_grace.map_or_else(least_with_default_grace, Terms::min_cover);
    // The default grace follows the TTL, so a short lock-delay is measured against the grace of the long TTL.
    let least_delay = Terms::min_cover(asked_grace.unwrap_or_else(|| default_grace(ttl.max(least))));
    let mut longer = Vec::new();
    if ttl < least {
        longer.push(format!("--ttl {} or more", show(least)));
    }
    if matches!(settings, Settings::Consul(..)) && cover < ttl.min(least_delay) {
        longer.push(format!("a lock_delay of {} or more in [consul]", show(least_delay)));
    }
    // Consul's lock-delay ends at a minute, whatever the TTL: beyond it, only a shorter grace helps.
    let possible = least <= Duration::from_secs(60) || !matches!(settings, Settings::Consul(..));
    let longest_grace = Terms { cover, grace: Duration::ZERO }.renewal_window().saturating_sub(MIN_RENEWAL_WINDOW);
    let shorter = (asked_grace.is_some() && !longest_grace.is_zero())
        .then(|| format!("--grace {}ms or less", longest_grace.as_millis()));
    let ways: Vec<_> = possible.then(|| longer.join(" and ")).into_iter().chain(shorter).collect();
    format!("choose {}", ways.join(", or "))
}

/// The least TTL in whole seconds that has room with its default grace.
fn least_with_default_grace() -> Duration {
    let has_room = |ttl: &Duration| Terms { cover: *ttl, grace: default_grace(*ttl) }.check().is_ok();
    (1..=LONGEST_GRACE.as_secs() * 3).map(Duration::from_secs).find(has_room).unwrap_or(LONGEST_GRACE * 3)
}
