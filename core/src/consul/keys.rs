//! Where a lock and its queue live in the key-value store.

use super::pair::Pair;
use crate::error::Failure;

/// The flags that tell a lock from other keys, as `consul lock` sets and demands them.
pub const LOCK_FLAGS: u64 = 3_304_740_253_564_472_344;

/// The keys of one lock. The first two are shared with `consul lock` and Terraform, which overlook the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The name as Consul knows it: without a leading slash.
    pub name: String,
    /// The lock itself.
    pub lock: String,
    /// The record of who holds it, bound to the same session.
    pub info: String,
    /// Prefix of the places in the queue; each is named by its session, and their creation gives the order.
    pub queue: String,
}

impl Keys {
    /// The keys of the lock `name`; refuses what `consul lock` would take for another one.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        let refused = |why: &str| {
            Failure::usage(format!("the name {name:?} cannot be a lock on Consul: {why}"))
                .hint("name it like a path without a slash at its end: jobs/backup")
        };
        if bare.is_empty() {
            return Err(refused("it is empty"));
        }
        if bare.ends_with('/') {
            return Err(refused("it ends with a slash"));
        }
        if let Some(segment) = bare.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(refused(&format!("`consul lock` would drop its segment {segment:?} and lock another key")));
        }
        Ok(Self {
            name: bare.to_owned(),
            lock: format!("{bare}/.lock"),
            info: format!("{bare}/.lockinfo"),
            queue: format!("{bare}/.queue/"),
        })
    }

    /// The place of a session in the queue.
    #[must_use]
    pub fn place(&self, session: &str) -> String {
        format!("{}{session}", self.queue)
    }

    /// Whether this is somebody's place in the queue: held by the session that it is named after. What else lies there
    /// belongs to locks of nested names, like `NAME/.queue`.
    #[must_use]
    pub fn is_place(&self, pair: &Pair) -> bool {
        pair.key.strip_prefix(&self.queue).is_some_and(|session| pair.holder() == Some(session))
    }

    /// Whether this was the place of a session that has ended, and released its keys instead of deleting them. No other
    /// session will have its id.
    #[must_use]
    pub fn is_litter(&self, pair: &Pair) -> bool {
        pair.holder().is_none() && pair.key.strip_prefix(&self.queue).is_some_and(is_session)
    }
}

/// Whether it reads like a session's id, a UUID.
fn is_session(id: &str) -> bool {
    let lengths = id.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn one_leading_slash_makes_no_difference() {
        assert_eq!(Keys::new("/jobs/a"), Keys::new("jobs/a"));
        assert_eq!(Keys::new("jobs/a").map(|keys| keys.lock), Ok("jobs/a/.lock".to_owned()));
    }

    #[test]
    fn names_that_consul_lock_would_map_elsewhere_are_refused() {
        for name in ["", "/", "//a", "a/", "a//b", "./a", "a/../b", "a/.", ".."] {
            let failure = Keys::new(name).expect_err(name);
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn other_names_pass() {
        for name in ["a", "a b", "...", ".hidden/x", "ü/%2F?#", &"x".repeat(400)] {
            assert!(Keys::new(name).is_ok(), "{name}");
        }
    }
}
