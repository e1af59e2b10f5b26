//! The decisions of distlock. Nothing in this crate reads a clock, a file or a socket: an event and the current time go in,
//! actions come out. A reviewer of the promise reads this crate.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`time`] | instants on `CLOCK_BOOTTIME` |
//! | [`lease`] | the deadlines of a lease, the schedule of its renewals |
//! | [`plan`] | what the user asked for |
//! | [`outcome`] | what a server's answer means for a contender |
//! | [`messages`] | the messages between supervisor and keeper |
//! | [`keeper`] | state machine of the keeper: acquire, start, renew, watch, stop, release |
//! | [`supervisor`] | state machine of the supervisor: guard the deadlines, sort the signals, end |
//! | [`etcd`], [`consul`] | what the servers' replies prove |
//! | [`record`] | the JSON that describes a contender |
//! | [`error`] | failures and their kinds |
//! | [`signal`], [`duration`], [`backoff`] | small things that the others share |
//!
//! `tests/simulation` runs the machines of many jobs against a model of a server in virtual time.

pub mod backoff;
pub mod consul;
pub mod duration;
pub mod error;
pub mod etcd;
pub mod keeper;
pub mod lease;
pub mod messages;
pub mod outcome;
pub mod plan;
pub mod record;
pub mod signal;
pub mod supervisor;
pub mod time;
