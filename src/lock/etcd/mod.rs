//! The lock on etcd: one key per contender, bound to its lease. The contender whose key was created first is the
//! holder, as with `etcdctl lock` and Go's `concurrency.Mutex`.
//!
//! Imports `lock`'s shared parts and `transport`. What a reply proves is decided in `distlock_core::etcd`.
//!
//! | module | contents |
//! |---|---|
//! | `backend` | the trait, put together from the parts below |
//! | `enter`, `queue`, `renew`, `change_lease`, `release` | the parts of a contender; none imports another |
//! | `contender` | one contender's state, and the reads that its parts share |
//! | `probe` | checks of `distlock doctor` |
//! | `keep_alive`, `watch` | streams: renewals, changes of keys |
//! | `client` | requests on the current connection, change of the endpoint after a failure |
//! | `connection`, `connector`, `observed_stream`, `fault` | one connection: TCP and TLS, login, meaning of errors |
//! | `discover` | the servers of the cluster, from the settings or DNS |
//! | `transactions` | the transactions and the parsing of their replies |
//!
//! Invariants: `sent_at` is sampled before its request is sent (rule 1). Each lease id is requested once, and a write
//! names the lease or revision that it is meant for (rule 10). A reply that does not fit its request changes nothing
//! (rule 4).

mod backend;
mod change_lease;
mod client;
mod connection;
mod connector;
mod contender;
mod discover;
mod enter;
mod fault;
mod keep_alive;
mod lease_id;
mod observed_stream;
pub(crate) mod probe;
mod queue;
mod release;
mod renew;
mod transactions;
mod watch;

pub(crate) use distlock_core::etcd::queue::check_name;

pub(crate) use contender::Contender;
