//! What a keeper needs from a backend: one trait, and what is common to its implementations.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::record::Record;
use distlock_core::time::Instant;

/// Name of a backend, as in `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendName {
    /// etcd, version 3.4 or later.
    Etcd,
    /// Consul's key-value store and sessions.
    Consul,
    /// Files on this host.
    Local,
}

impl BackendName {
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Etcd, Self::Consul, Self::Local].into_iter().find(|name| name.to_string() == text)
    }
}

impl std::fmt::Display for BackendName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::Local => "local",
        })
    }
}

/// The lock that a contender is for.
#[derive(Clone, Debug)]
pub struct LockSpec {
    /// The lock's name as the user wrote it.
    pub name: String,
    /// The TTL to request.
    pub ttl: Duration,
    /// The lock may be acquired again after a loss, so that [`Backend::held_continuously_since`] is needed.
    pub relock: bool,
    /// Describes this contender to other clients.
    pub record: Record,
}

/// Callback for verbose log lines (`-v`).
pub(crate) type LogFn = Rc<dyn Fn(String)>;

/// Hint for servers that cannot elect a leader.
pub(super) const NO_LEADER_HINT: &str =
    "the servers have no leader: most of them are down or cannot reach each other; check with distlock doctor";

/// One contender for one lock.
///
/// It owns the connections, the lease or session and the contender's key. It decides nothing about time: each method can
/// be dropped before it returns and called again. A request that may have been applied is read back before it is repeated.
#[async_trait(?Send)]
pub trait Backend {
    /// Creates the lease or session and joins the queue, in as few round trips as possible. After
    /// [`Trouble::Uncertain`] the next call continues: a lease that was granted keeps its first `sent_at`. After
    /// [`Trouble::Lost`], from here or from [`Backend::wait`], the next call starts again with a new lease.
    async fn enter(&self) -> Outcome<(Granted, Position)>;

    /// Waits until the position in the queue, or what is known of the holder, may have changed, and reads it. Returns
    /// [`Position::Held`] only if a read that was sent after the predecessor left shows this contender as the holder.
    async fn wait(&self) -> Outcome<Position>;

    /// Renews the lease, confirmed as rule 1 demands. Returns the `sent_at` of the renewal. Called by waiters and holders.
    async fn renew(&self) -> Outcome<Instant>;

    /// Watches the held lock. Returns [`Trouble::Lost`] or [`Trouble::Broken`]; any other trouble means that the watch
    /// itself failed, and the caller calls again.
    async fn watch(&self) -> Trouble;

    /// Returns whether it is proven that no other client held the lock since it was last seen to be held with the token
    /// `since`. Called after a loss, when [`Backend::enter`] has acquired the lock again; leases in between may have been
    /// lost too.
    async fn held_continuously_since(&self, _since: u64) -> Outcome<bool> {
        Ok(false)
    }

    /// Removes everything that [`Backend::enter`] created, whether the lock is held or waited for. Idempotent. Returns
    /// [`Trouble::Lost`] if the lock was held and no longer belonged to this contender.
    async fn release(&self) -> Outcome<()>;

    /// Returns how often the endpoint was changed so far.
    fn endpoint_changes(&self) -> usize;

    /// Changes to another endpoint, or to a new connection to the only one unless it is known to work, after a timeout;
    /// not if the endpoint was changed since `changes`, which was returned before the request began. Returns the endpoint that did not answer. After an error
    /// the backend changes the endpoint by itself.
    fn leave_endpoint(&self, changes: usize) -> String;

    /// Returns the id of the lease or session, if there is one or its id is known in advance. Another process can
    /// release it through [`PreparedBackend::adopt_lease`](crate::PreparedBackend::adopt_lease).
    fn lease_id(&self) -> Option<String>;
}
