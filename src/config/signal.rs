//! Signals as users name them.

use nix::sys::signal::Signal;

/// Reads `TERM`, `SIGTERM`, `term` or `15`.
///
/// # Errors
///
/// Why it is not a signal that can ask a command to end, to follow the name of the setting.
pub(super) fn parse(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let numbered = || text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let signal = full.parse().ok().or_else(numbered);
    match signal {
        None => Err(format!("`{text}` is not a signal such as TERM, INT or USR1")),
        Some(signal) if ends_nothing(signal) => Err(format!("{signal} does not ask a command to end")),
        Some(signal) => Ok(signal),
    }
}

/// Signals that stop or continue a process, or that it passes over unless it asked for them.
fn ends_nothing(signal: Signal) -> bool {
    use Signal::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    matches!(signal, SIGCHLD | SIGCONT | SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU | SIGURG | SIGWINCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_with_and_without_sig() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(Signal::SIGTERM), "{text}");
        }
        assert_eq!(parse("usr1"), Ok(Signal::SIGUSR1));
    }

    #[test]
    fn what_asks_nothing_to_end_is_refused() {
        for text in ["", "SIG", "FOO", "0", "99", "-15", "STOP", "CONT", "winch"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
