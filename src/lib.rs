//! distlock runs a command while it holds a distributed lock, and never while it does not.
//!
//! # The map
//!
//! | module | what belongs there |
//! |---|---|
//! | [`cli`] | clap definitions: commands, options, help text |
//! | [`config`] | flags, environment and file become one checked configuration |
//! | [`error`], [`exit`] | failures as users are told them; the table of exit codes |
//! | [`clock`] | instants and alarms on `CLOCK_BOOTTIME` |
//! | [`holder`] | the holder record, JSON both ways |
//! | [`lease`] | pure: from the last confirmed renewal to the deadlines |
//! | [`backend`] | the lock on etcd, on Consul, on this host |

pub mod backend;
pub mod clock;
pub mod error;
pub mod exit;
pub mod holder;
pub mod lease;
pub mod link;
pub mod process;
pub mod tree;
pub mod handle;
pub mod keeper;
pub mod supervisor;
pub mod commands;
pub mod config;
pub mod report;
