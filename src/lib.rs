//! distlock runs a command while it holds a distributed lock, and never while it does not.
//!
//! # The map
//!
//! The crate `distlock_core` (in `core/`) contains every decision that the promise depends on: the deadlines, the state
//! machines of supervisor and keeper, and what the replies of servers prove. It does no I/O. This crate is the program around
//! it, divided into rooms:
//!
//! | room | contents | imports |
//! |---|---|---|
//! | `commands` | the subcommands, one file each | all others |
//! | `config` | flags, environment and file, combined into one checked configuration | `cli`, `report`, `lock` |
//! | `cli` | the command line: table of options, grammar, help | |
//! | `report` | what is printed on stderr: notices, waiting line, JSON events; the report of `--report` | `job`, `lock`, `sys` |
//! | `job` | one command under one lock: supervisor, keeper and witness, and the link between them | `lock`, `sys`, `exit` |
//! | `lock` | the lock on etcd, on Consul or on this host, without processes | `sys` |
//! | `sys` | the operating system: clock, processes, signals, terminal | |
//! | `exit` | the table of exit codes | |
//!
//! Imports go down this list, never up and never in a circle; `tests/rooms.rs` checks the table. Every room may import
//! `distlock_core`. The `mod.rs` of each room says what the room owns and which invariants it keeps.
//!
//! # How a job runs
//!
//! `main` calls [`main`], which reads the command line. `config` makes a checked configuration of it, and `commands::run` makes
//! a job of that. The supervisor (`job::supervisor`) forks the keeper (`job::keeper`). The keeper asks its backend (`lock`) to
//! enter the queue. When the lock is held, the keeper sends the deadlines of the lease (`distlock_core::lease`) over the link
//! (`job::link`). When the supervisor has acknowledged them, the command starts. Renewals move the deadlines. When the process
//! tree is empty, the keeper releases the lock and sends the verdict, and the supervisor exits with its exit code.
//! `docs/design.md` gives the rules and the reasons.

mod cli;
mod commands;
mod config;
mod exit;
mod job;
mod lock;
mod report;
mod sys;

pub use commands::main;

// For the integration tests: one contender without its processes, and the clock of the deadlines.
pub use lock::consul::Options as ConsulOptions;
pub use lock::transport::endpoint::{Endpoint, Identity, Server, Tls};
pub use lock::{Backend, LockSpec, PreparedBackend};
pub use sys::clock::now;
