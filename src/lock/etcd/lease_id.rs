//! Lease ids, which the client chooses so that a request can name a lease before its grant is answered.

use distlock_core::error::Failure;

/// Returns a random id. It is positive: etcd prints ids as signed numbers in some places, and lets the server choose an
/// id for zero.
pub(super) fn random_lease_id() -> Result<i64, Failure> {
    let random = getrandom::u64().map_err(|error| Failure::fault("cannot get a random number").because(error))?;
    Ok(i64::try_from(random >> 1).unwrap_or(i64::MAX).max(1))
}
