//! Failures: a kind, one line, its causes, and the next command to run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// Class of failure. Each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The command line or the configuration is refused.
    Usage,
    /// No server could be reached or trusted.
    Unreachable,
    /// distlock or the operating system failed.
    Fault,
    /// Another client holds the lock.
    Busy,
    /// The lock was lost.
    Lost,
    /// The lock was broken: its holder was asked to stop.
    Broken,
    /// The server denied access.
    Denied,
    /// `--max-hold` ran out.
    MaxHold,
    /// The command exists but cannot be executed.
    NotExecutable,
    /// The command was not found.
    NotFound,
    /// A signal ended distlock while it waited.
    Interrupted(Signal),
}

/// Hint of every failure with [`Kind::Lost`].
pub const LOSS_HINT: &str = "check the servers with distlock doctor; a longer --ttl outlives longer outages; --on-lost \
                             selects what follows a loss";

/// Failure that ends distlock: one line, its causes, and a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed: one line without a full stop.
    pub message: String,
    /// Why, from the nearest cause to the most distant.
    pub causes: Vec<String>,
    /// What the user can do, if possible as the next command.
    pub hint: Option<String>,
}

impl Failure {
    /// Creates a failure without causes or hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Creates the failure of a refused command line or configuration (exit 64).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Creates the failure of distlock itself or of the operating system (exit 70).
    pub fn fault(message: impl Into<String>) -> Self {
        Self::new(Kind::Fault, message)
    }

    /// Creates the failure of a lock that was lost under a command (exit 76).
    pub fn lost(name: &str, cause: impl fmt::Display) -> Self {
        Self::new(Kind::Lost, format!("the lock {name} was lost and the command killed")).because(cause).hint(LOSS_HINT)
    }

    /// Creates the failure of a signal that arrived before the command ran (exit 128 + signal number). `during` follows
    /// the name of the signal in the message.
    pub fn interrupted(signal: Signal, during: impl fmt::Display) -> Self {
        Self::new(Kind::Interrupted(signal), format!("interrupted by {signal} {during}"))
    }

    /// Adds a cause, more distant than the previous ones.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the message and its causes on one line.
    #[must_use]
    pub fn into_line(self) -> String {
        std::iter::once(self.message).chain(self.causes).collect::<Vec<_>>().join(": ")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Returns an error and its sources as one line each. Lines that only repeat an earlier one are left out: libraries that
/// wrap errors produce them.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        if !line.is_empty() && !lines.iter().any(|earlier| earlier.contains(&line)) {
            lines.push(line);
        }
        next = error.source();
    }
    lines
}
