//! Parsing of signal names.

use distlock_core::signal::Signal;

/// Parses `TERM`, `SIGTERM`, `term` or `15` into a signal that has a name.
///
/// # Errors
///
/// Why it cannot be the soft signal, to follow the name of the setting.
pub(super) fn parse(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = text.parse().ok();
    let is_wanted =
        |signal: &Signal| signal.name().is_some_and(|known| known == name || number == Some(signal.number()));
    match (1..=MAX_STANDARD_SIGNAL).map(Signal::from_number).find(is_wanted) {
        None => Err(format!("`{text}` is not a signal; accepted are names and numbers such as TERM, SIGINT and 15")),
        Some(signal) if !terminates_by_default(signal) => {
            Err(format!("{signal} does not terminate a process by default"))
        }
        Some(signal) => Ok(signal),
    }
}

/// Higher numbers are real-time signals, which have no names.
const MAX_STANDARD_SIGNAL: i32 = 31;

/// Returns whether the default action is not to stop, continue or ignore.
fn terminates_by_default(signal: Signal) -> bool {
    !matches!(
        signal,
        Signal::SIGCHLD
            | Signal::SIGCONT
            | Signal::SIGSTOP
            | Signal::SIGTSTP
            | Signal::SIGTTIN
            | Signal::SIGTTOU
            | Signal::SIGURG
            | Signal::SIGWINCH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_parsed_with_and_without_sig() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(Signal::SIGTERM), "{text}");
        }
        assert_eq!(parse("usr1"), Ok(Signal::SIGUSR1));
        assert_eq!(parse("31"), Ok(Signal::SIGSYS));
    }

    #[test]
    fn signals_that_do_not_terminate_are_refused() {
        for text in ["", "SIG", "FOO", "0", "32", "99", "-15", "STOP", "CONT", "winch"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
