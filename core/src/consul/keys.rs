//! Names of the keys of one lock.

use super::pair::Pair;
use crate::error::Failure;

/// Flags of a lock's key, as `consul lock` sets and requires them.
pub const LOCK_FLAGS: u64 = 3_304_740_253_564_472_344;

/// The keys of one lock. `consul lock` and Terraform use the lock and the record, and ignore the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The name without a leading slash.
    pub name: String,
    /// The lock.
    pub lock: String,
    /// The holder's record, locked by the same session.
    pub info: String,
    /// Prefix of the waiters' keys. Each is named after its session; their create indexes give the order.
    pub queue: String,
}

impl Keys {
    /// Returns the keys of the lock `name`.
    ///
    /// # Errors
    ///
    /// A usage failure with a hint, if `consul lock` would map the name to another key.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(segment) = bare.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(Failure::usage(format!("the name {name:?} cannot be a lock on Consul"))
                .because(format!("`consul lock` would drop its segment {segment:?} and lock another key"))
                .hint("use a path such as jobs/backup"));
        }
        Ok(Self {
            name: bare.to_owned(),
            lock: format!("{bare}/.lock"),
            info: format!("{bare}/.lockinfo"),
            queue: format!("{bare}/.queue/"),
        })
    }

    /// Returns the key of the waiter with this session.
    #[must_use]
    pub fn waiter_key(&self, session: &str) -> String {
        format!("{}{session}", self.queue)
    }

    /// Returns whether `pair` is a waiter's key: held by the session that it is named after. Other keys under the prefix
    /// belong to locks with nested names, such as `NAME/.queue`.
    #[must_use]
    pub fn is_waiter(&self, pair: &Pair) -> bool {
        pair.key.strip_prefix(&self.queue).is_some_and(|session| pair.holder() == Some(session))
    }

    /// Returns whether `pair` was the key of a waiter whose session ended and released its keys instead of deleting them.
    /// No other session gets the same id.
    #[must_use]
    pub fn is_stale(&self, pair: &Pair) -> bool {
        pair.holder().is_none() && pair.key.strip_prefix(&self.queue).is_some_and(is_session_id)
    }
}

/// Returns whether `id` has the form of a session id, a UUID.
fn is_session_id(id: &str) -> bool {
    let lengths = id.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn one_leading_slash_is_dropped() {
        assert_eq!(Keys::new("/jobs/a"), Keys::new("jobs/a"));
        assert_eq!(Keys::new("jobs/a").map(|keys| keys.lock), Ok("jobs/a/.lock".to_owned()));
    }

    #[test]
    fn names_that_consul_lock_maps_to_other_keys_are_refused() {
        for name in ["", "/", "//a", "a/", "a//b", "./a", "a/../b", "a/.", ".."] {
            let failure = Keys::new(name).expect_err(name);
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn other_names_are_accepted() {
        for name in ["a", "a b", "...", ".hidden/x", "ü/%2F?#", &"x".repeat(400)] {
            assert!(Keys::new(name).is_ok(), "{name}");
        }
    }
}
