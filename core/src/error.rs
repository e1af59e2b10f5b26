//! What can go wrong, as a user is told it: a kind, one line, its causes, and the way out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// The classes of failure that have an exit code of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The command line or the configuration is refused.
    Usage,
    /// No server could be reached or trusted.
    Unreachable,
    /// A fault in distlock or of the system below it.
    Fault,
    /// Somebody else holds the lock.
    Busy,
    /// The lock was lost.
    Lost,
    /// The lock was broken: somebody asked its holder to stop.
    Broken,
    /// The server denied access.
    Denied,
    /// `--max-hold` ran out.
    MaxHold,
    /// The command exists and cannot be executed.
    NotExecutable,
    /// The command was not found.
    NotFound,
    /// A signal ended distlock while it waited.
    Interrupted(Signal),
}

/// The ways out after a loss.
pub const AFTER_LOSS: &str = "ask the servers with distlock doctor; a longer --ttl rides out longer outages, and \
                              --on-lost says what else may follow a loss";

/// A failure that ends distlock: one line, then its causes, then a hint that names the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// One line without a full stop.
    pub message: String,
    /// Why, from the nearest cause to the farthest.
    pub causes: Vec<String>,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of this kind, without causes or hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A usage error or a refused configuration: exit 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A fault in distlock or of the system below it: exit 70.
    pub fn fault(message: impl Into<String>) -> Self {
        Self::new(Kind::Fault, message)
    }

    /// The loss of a lock under a command: exit 76.
    pub fn lost(name: &str, cause: impl fmt::Display) -> Self {
        Self::new(Kind::Lost, format!("the lock {name} was lost and the command killed"))
            .because(cause)
            .hint(AFTER_LOSS)
    }

    /// A signal ended distlock before the command ran: exit 128+N. `what` was being done.
    pub fn interrupted(signal: Signal, what: impl fmt::Display) -> Self {
        Self::new(Kind::Interrupted(signal), format!("interrupted by {signal} {what}"))
    }

    /// Adds one cause, farther away than those before it.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Returns the message and its causes on one line.
    #[must_use]
    pub fn into_line(self) -> String {
        std::iter::once(self.message).chain(self.causes).collect::<Vec<_>>().join(": ")
    }

    /// Names the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The causes of an error on one line each, the error itself first. Repetitions, which wrapping libraries make, are left out.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        if !line.is_empty() && !lines.iter().any(|known| known.contains(&line)) {
            lines.push(line);
        }
        next = error.source();
    }
    lines
}
