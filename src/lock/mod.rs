//! The lock on a server or on this host. No processes.
//!
//! Owns the clients of etcd and Consul, the lock files, and the trait that a keeper drives. Imports `sys` and the core.
//!
//! | module | content |
//! |---|---|
//! | `settings` | from checked settings to a contender or a probe |
//! | `etcd`, `consul`, `local`, `unlocked` | the backends |
//! | `transport` | endpoints, credentials, TLS and DNS for etcd and Consul |
//! | `probe` | form of the findings of `distlock doctor` |
//! | `handle` | the word that names one acquisition |
//! | `backend` | the trait, and what is common to its implementations |
//!
//! Invariants:
//!
//! - `sent_at` is sampled before the request that it belongs to is sent (rule 1).
//! - Each method of a contender can be dropped before it returns and called again. What it may have created on a server is
//!   read back before it is created again (rule 10), and removed by the release; only a session whose creation was never
//!   answered is left to expire.
//! - No message, error or log line contains a secret.

mod backend;
pub(crate) mod consul;
pub(crate) mod etcd;
pub(crate) mod handle;
pub(crate) mod local;
pub(crate) mod probe;
mod settings;
pub(crate) mod transport;
mod unlocked;

pub use backend::{Backend, LockSpec};
pub(crate) use backend::{BackendName, LogFn};
pub(crate) use settings::BackendSettings;
pub use settings::PreparedBackend;
