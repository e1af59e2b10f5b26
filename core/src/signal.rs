//! Signals: their numbers and names. Real-time signals have numbers only.

use std::fmt;

use libc::c_int;
use serde::{Deserialize, Serialize};

/// Signal, identified by its number on this platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(c_int);

macro_rules! signals {
    ($($name:ident)*) => {
        impl Signal {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                pub const $name: Self = Self(libc::$name);
            )*

            /// Returns the name; None for a signal without one, such as a real-time signal.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        /// All signals that have names.
        #[cfg(test)]
        const NAMED: &[Signal] = &[$(Signal::$name),*];
    };
}

signals! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO
    SIGPWR SIGSYS
}

impl Signal {
    /// Creates a signal from its number.
    #[must_use]
    pub const fn from_number(number: c_int) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> c_int {
        self.0
    }

    /// Returns whether this signal usually ends a command: INT, TERM, HUP or QUIT.
    #[must_use]
    pub fn ends_a_command(self) -> bool {
        matches!(self, Self::SIGINT | Self::SIGTERM | Self::SIGHUP | Self::SIGQUIT)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_displayed_by_name_or_number() {
        assert_eq!(Signal::SIGTERM.to_string(), "SIGTERM");
        assert_eq!(Signal::from_number(40).to_string(), "signal 40");
        assert!(NAMED.iter().all(|signal| signal.name().is_some_and(|name| name.starts_with("SIG"))));
    }
}
