//! What Consul's replies prove about a contender's session and keys.
//!
//! | module | what it holds |
//! |---|---|
//! | [`limits`] | bounds of the server for TTL and lock-delay |
//! | [`keys`] | names of the keys of one lock |
//! | [`pair`] | one key, as the server returns it |
//! | [`lockinfo`] | the holder's record, readable for Terraform |
//! | [`queue`] | the order of the waiters, and what each does next |
//! | [`session`] | what a contender has on the server |
//!
//! Invariant: a waiter acquires the lock only if it is the first, or if those ahead have left a free lock for longer than
//! [`queue`] allows.

pub mod keys;
pub mod limits;
pub mod lockinfo;
pub mod pair;
pub mod queue;
pub mod session;
