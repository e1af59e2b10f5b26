//! Failures before the command runs, and the end of this process.

use std::process::ExitCode;

use distlock_core::error::{Failure, Kind};
use distlock_core::messages::Verdict;
use distlock_core::signal::Signal;

use crate::exit;
use crate::job::Ending;
use crate::report::Reporter;
use crate::sys::{process, signals};

/// Failure before the command runs.
#[derive(Debug)]
pub(super) struct EarlyFailure {
    pub failure: Failure,
    /// The user interrupted distlock with the keyboard.
    pub keyboard: bool,
}

impl From<Failure> for EarlyFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, keyboard: false }
    }
}

impl From<EarlyFailure> for Ending {
    fn from(EarlyFailure { failure, keyboard }: EarlyFailure) -> Self {
        Self { verdict: Verdict::Failed(failure), keyboard }
    }
}

/// Prints the failure and returns its exit code.
pub(super) fn fail(failure: &Failure, reporter: &mut Reporter) -> ExitCode {
    let code = exit::code(failure.kind);
    reporter.failure(failure, code);
    ExitCode::from(code)
}

/// Dies of the signal if the user interrupted distlock with the keyboard.
pub(super) fn die_if_interrupted(failure: &Failure, keyboard: bool) {
    match failure.kind {
        Kind::Interrupted(signal) if keyboard => die_like_the_command(signal),
        _ => {}
    }
}

/// Dies of a signal that usually ends a command. A shell stops its script only if a command *died* of Ctrl-C, not if it
/// exited with 130.
pub(super) fn die_like_the_command(signal: Signal) {
    if let Some(signal) = signals::to_nix(signal).filter(|_| signal.ends_a_command()) {
        process::die_by_signal(signal);
    }
}
