//! The decisions of distlock, without I/O. A reviewer of the promise (`docs/design.md`) reads this crate.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`keeper`] | state machine of the keeper: acquire, start, renew, watch, stop, release |
//! | [`supervisor`] | state machine of the supervisor: deadlines, signals, exit |
//! | [`messages`] | messages between supervisor and keeper |
//! | [`lease`] | deadlines of a lease, schedule of its renewals |
//! | [`etcd`], [`consul`] | what the servers' replies prove |
//! | [`outcome`] | what a server's answer means for a contender |
//! | [`plan`] | the part of the configuration that the decisions depend on |
//! | [`name`] | rules for lock names that all backends share |
//! | [`record`] | the JSON that describes a contender |
//! | [`error`] | failures and their kinds |
//! | [`time`], [`signal`], [`duration`], [`backoff`] | small types and formulas that the others share |
//!
//! # Invariants
//!
//! - Nothing reads a clock, a file or a socket, draws random numbers, or keeps global state: an event and the current time
//!   go in, actions come out. The same events always give the same actions.
//! - Modules import std, serde, `serde_json`, jiff, libc, base64 and thiserror, nothing else. The list in `Cargo.toml` is
//!   complete, and `tests/rooms.rs` of the program checks it.
//! - Modules do not import each other in a circle.
//!
//! # Simulation
//!
//! `tests/simulation` runs the machines of several jobs against a model of a server, in virtual time and under faults that
//! a seed selects. `cargo test -p distlock-core --test simulation` runs a fixed range of seeds, and
//! `DISTLOCK_TEST_SEED=7 cargo test -p distlock-core --test simulation` runs one of them again.

#![warn(missing_docs)]

pub mod backoff;
pub mod consul;
pub mod duration;
pub mod error;
pub mod etcd;
pub mod keeper;
pub mod lease;
pub mod messages;
pub mod name;
pub mod outcome;
pub mod plan;
pub mod record;
pub mod signal;
pub mod supervisor;
pub mod time;
