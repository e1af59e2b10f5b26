//! TTL and grace, checked together: the renewal window must be at least a second (rule 3).

use std::time::Duration;

use distlock_core::consul::limits;
use distlock_core::duration::{self, show};
use distlock_core::error::Failure;
use distlock_core::lease::{MIN_RENEWAL_WINDOW, Terms};

use super::sources::Sources;
use crate::lock::BackendSettings;

const DEFAULT_TTL: Duration = Duration::from_secs(15);
const MAX_DEFAULT_GRACE: Duration = Duration::from_secs(5);

pub(super) fn ttl(sources: &Sources) -> Result<Duration, Failure> {
    Ok(sources.parse("ttl", duration::parse)?.unwrap_or(DEFAULT_TTL))
}

pub(super) fn grace(sources: &Sources) -> Result<Duration, Failure> {
    let ttl = ttl(sources)?;
    Ok(requested_grace(sources)?.unwrap_or_else(|| default_grace(ttl)))
}

fn requested_grace(sources: &Sources) -> Result<Option<Duration>, Failure> {
    sources.parse("grace", duration::parse)
}

/// Returns the default grace for this TTL, in whole milliseconds.
fn default_grace(ttl: Duration) -> Duration {
    let third = u64::try_from((ttl / 3).as_millis()).map_or(MAX_DEFAULT_GRACE, Duration::from_millis);
    MAX_DEFAULT_GRACE.min(third)
}

/// Refuses a TTL that the backend does not accept, and a renewal window that is too short.
///
/// # Errors
///
/// A usage failure with the arithmetic, and the shortest TTL or the longest grace that would be accepted.
pub(super) fn check(sources: &Sources, settings: &BackendSettings) -> Result<(), Failure> {
    let ttl = ttl(sources)?;
    let requested_grace = requested_grace(sources)?;
    let cover = match settings {
        BackendSettings::Local(_) => return Ok(()),
        BackendSettings::Etcd(_) => ttl,
        BackendSettings::Consul(_, options) => {
            limits::check_ttl(ttl)?;
            ttl.min(options.lock_delay)
        }
    };
    let terms = Terms { cover, grace: requested_grace.unwrap_or_else(|| default_grace(ttl)) };
    terms.check().map_err(|too_short| {
        Failure::usage(format!("a TTL of {} is too short with a grace of {}", show(ttl), show(terms.grace)))
            .because(too_short)
            .hint(suggestion(settings, ttl, cover, requested_grace))
    })
}

/// Returns the changes of TTL, lock-delay and grace that would be accepted.
fn suggestion(settings: &BackendSettings, ttl: Duration, cover: Duration, requested_grace: Option<Duration>) -> String {
    let is_consul = matches!(settings, BackendSettings::Consul(..));
    let min_ttl = requested_grace.map_or_else(min_ttl_with_default_grace, Terms::min_cover);
    // The default grace depends on the TTL, so the lock-delay must suffice for the grace of the longer TTL.
    let min_lock_delay = Terms::min_cover(requested_grace.unwrap_or_else(|| default_grace(ttl.max(min_ttl))));
    let mut longer = Vec::new();
    if ttl < min_ttl {
        longer.push(format!("--ttl {} or more", show(min_ttl)));
    }
    if is_consul && cover < ttl.min(min_lock_delay) {
        longer.push(format!("a lock_delay of {} or more in [consul]", show(min_lock_delay)));
    }
    // If the lock-delay cannot be long enough, only a shorter grace helps.
    let longer_suffices = !is_consul || min_ttl <= limits::MAX_LOCK_DELAY;
    let max_grace = Terms { cover, grace: Duration::ZERO }.renewal_window().saturating_sub(MIN_RENEWAL_WINDOW);
    let shorter = (requested_grace.is_some() && !max_grace.is_zero())
        .then(|| format!("--grace {}ms or less", max_grace.as_millis()));
    let choices: Vec<_> = longer_suffices.then(|| longer.join(" and ")).into_iter().chain(shorter).collect();
    format!("choose {}", choices.join(", or "))
}

/// Returns the shortest TTL, in whole seconds, that is accepted with its default grace.
fn min_ttl_with_default_grace() -> Duration {
    let is_accepted = |ttl: &Duration| Terms { cover: *ttl, grace: default_grace(*ttl) }.check().is_ok();
    let longest = MAX_DEFAULT_GRACE * 3;
    (1..=longest.as_secs()).map(Duration::from_secs).find(is_accepted).unwrap_or(longest)
}
