//! `distlock run`.

use std::process::ExitCode;

use crate::config::Run;

/// Runs a command under a lock.
pub fn run(_run: Run) -> ExitCode {
    todo!()
}
