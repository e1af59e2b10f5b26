//! The lock on Consul: a session, and the keys that it locks.
//!
//! Imports `lock::backend`, `lock::probe`, `lock::transport`, `sys` and the core. What a reply proves is decided in
//! `distlock_core::consul`.
//!
//! | module | content |
//! |---|---|
//! | `backend` | the trait, put together from the parts below |
//! | `enter`, `wait` | first attempt and queue |
//! | `acquire` | the transactions that acquire the lock or join the queue |
//! | `release`, `watch` | the rest of a contender's life |
//! | `session` | creation of the session, and its end |
//! | `contender` | one contender's state, and the reads that its parts share |
//! | `probe` | checks of `distlock doctor` |
//! | `api` | typed requests and replies |
//! | `http`, `tls` | endpoints and connections |
//! | `reply`, `txn` | meaning of a reply; transactions |
//!
//! Invariants:
//!
//! - Without contention acquiring takes two round trips (session, transaction), and so does releasing (transaction, session).
//! - What was read is taken out of the state before a request is sent that acts on it. So a call that is dropped and
//!   repeated reads again.
//! - Every read that decides asks for `consistent`, and a transaction names the session or index that it is meant for.

mod acquire;
mod api;
mod backend;
mod contender;
mod enter;
mod http;
pub(crate) mod probe;
mod release;
mod reply;
mod session;
mod tls;
mod txn;
mod wait;
mod watch;

pub use contender::Options;
pub(crate) use contender::{Contender, check_name};
