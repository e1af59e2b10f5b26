//! distlock runs a command while it holds a distributed lock, and never while it does not.
//!
//! # The map
//!
//! The crate `distlock_core` (in `core/`) holds every decision that the promise rests on: deadlines, the state machines of
//! supervisor and keeper, what a server's answer proves. It does no I/O. This crate is the program around it, in rooms:
//!
//! | room | what it holds | imports |
//! |---|---|---|
//! | `commands` | what distlock can be asked to do, one file each | all below |
//! | `config` | flags, environment and file become one checked plan | `cli`, `report`, `lock` |
//! | `cli` | the command line: table of options, grammar, help | |
//! | `report` | everything that is printed: console, waiting line, JSON events, outcome | `job`, `lock` |
//! | `job` | one command under one lock: supervisor, keeper, witness, and the link between them | `lock` |
//! | `lock` | the lock on etcd, on Consul, on this host; no processes | |
//! | `sys` | the operating system: clock, processes, signals, terminal | |
//! | `exit` | the table of exit codes | |
//!
//! Imports go down this list only, never up and never in a circle; `tests/rooms.rs` checks that. Every room may import
//! `sys`, `exit` and `distlock_core`. Each room's `mod.rs` says what the room owns and which invariants it keeps.
//!
//! # How a lock flows through them
//!
//! `main` has [`run`] read the command line; `config` makes a checked plan of it; `commands::run` makes a job of that. The
//! supervisor (`job::supervisor`) forks the keeper (`job::keeper`). The keeper asks its backend (`lock`) to enter the queue.
//! Once the lock is held, it sends the deadlines of the lease (`distlock_core::lease`) over the link. When the supervisor has
//! acknowledged them, the command starts. Renewals move the deadlines. When the process tree of the command is gone, the
//! keeper releases the lock and sends the verdict, and the supervisor exits with it.

mod cli;
mod commands;
mod config;
mod exit;
mod job;
mod lock;
mod report;
mod sys;

pub use commands::main as run;

// What the integration tests drive: one contender without its processes, and the clock that deadlines are measured on.
pub use lock::consul::Options as ConsulOptions;
pub use lock::transport::endpoint::{Endpoint, Identity, Server, Tls};
pub use lock::{Backend, Prepared, Want};
pub use sys::clock::now;
