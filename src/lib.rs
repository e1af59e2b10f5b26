//! distlock runs a command while it holds a distributed lock, and never while it does not.
//!
//! # The map
//!
//! | module | what belongs there |
//! |---|---|
//! | [`cli`] | clap definitions: commands, options, help text |
//! | [`config`] | flags, environment and file become one checked configuration |
//! | [`commands`] | what distlock can be asked to do, one module each |
//! | [`error`], [`exit`] | failures as users are told them; the table of exit codes |
//! | [`report`] | every line that is printed, for people and as JSON; the report of `--report` |
//! | [`supervisor`] | the process that the user started: signals, terminal, deadline, output, exit |
//! | [`keeper`] | the process below it: acquires, starts the command, renews, watches, releases |
//! | [`witness`] | a third one in a terminal: tells group signals apart, wakes a suspended supervisor |
//! | [`link`] | the messages between the two |
//! | [`lease`] | pure: from the last confirmed renewal to the deadlines |
//! | [`tree`] | everything below a process: find, signal, reap |
//! | [`process`] | fork, exec, die: the only unsafe code |
//! | [`backend`] | the lock on etcd, on Consul, on this host |
//! | [`holder`], [`handle`] | the holder record, JSON both ways; the word that names an acquisition |
//! | [`clock`] | instants and alarms on `CLOCK_BOOTTIME` |
//! | `simulation` | tests: many jobs and a server in virtual time |
//!
//! # How a lock flows through them
//!
//! `main` has [`config`] check the command line; [`commands`] makes a job of it; the [`supervisor`] forks the
//! [`keeper`]. The keeper's machine asks the [`backend`] to enter the queue, and once the lock is held tells the
//! deadlines that the [`lease`] gives over the [`link`]. When the supervisor has acknowledged them, the command starts.
//! Renewals move the deadlines. When the command and all that it started are gone, the keeper releases the lock and gives
//! the verdict, with which the supervisor exits.
//!
//! Both machines are pure: an event and the present moment go in, actions come out. The files beside them do what the
//! machines decide.

pub mod backend;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod error;
pub mod exit;
pub mod handle;
pub mod holder;
pub mod keeper;
pub mod lease;
pub mod link;
pub mod process;
pub mod report;
#[cfg(test)]
mod simulation;
pub mod supervisor;
pub mod tree;
pub mod witness;
