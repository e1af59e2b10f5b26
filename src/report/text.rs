//! Text for people.

use distlock_core::error::Failure;
use distlock_core::messages::Process;

/// Returns a failure as text: the message, its causes and the hint.
#[must_use]
pub(super) fn render(failure: &Failure) -> String {
    let mut text = format!("distlock: error: {}\n", one_line(&failure.message));
    for cause in &failure.causes {
        text += &format!("  caused by: {}\n", one_line(cause));
    }
    if let Some(hint) = &failure.hint {
        text += &format!("  hint: {}\n", one_line(hint));
    }
    text
}

/// Replaces control characters: text from a server or another user must not control the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn list(processes: &[Process]) -> String {
    processes.iter().map(|process| format!("{} ({})", process.pid, process.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_has_error_causes_and_hint() {
        let failure = Failure::usage("no\x1b[1m way").because("this").because("that").hint("the other way");
        let expected = "distlock: error: no [1m way\n  caused by: this\n  caused by: that\n  hint: the other way\n";
        assert_eq!(render(&failure), expected);
    }
}
