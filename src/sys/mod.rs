//! The operating system: what distlock needs from it, and nothing about locks.
//!
//! Owns: the clock, process creation, inherited descriptors, signals, the process tree, the terminal and its prompt, the
//! runtime. Imports: core only.
//! Invariants: `process` holds the only unsafe code; every other room stays within safe Rust.

pub(crate) mod clock;
mod proc_stat;
pub(crate) mod process;
pub(crate) mod prompt;
pub(crate) mod runtime;
pub(crate) mod signals;
pub(crate) mod tree;
pub(crate) mod tty;
