//! Every line that is printed on stderr.

use std::io::{self, Write};

use crate::error::Failure;

/// Prints a failure: `distlock: error: ...`, its causes, and the hint.
pub fn failure(failure: &Failure) {
    // Nobody can be told that stderr cannot be written to.
    let _ = io::stderr().write_all(lines(failure).as_bytes());
}

fn lines(failure: &Failure) -> String {
    let mut lines = format!("distlock: error: {}\n", printable(&failure.message));
    for cause in &failure.causes {
        lines.push_str(&format!("  caused by: {}\n", printable(cause)));
    }
    if let Some(hint) = &failure.hint {
        lines.push_str(&format!("  hint: {}\n", printable(hint)));
    }
    lines
}

/// The text on one line and without what would steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_error_causes_and_a_hint() {
        let failure = Failure::usage("no\x1b[1m way").because("this").because("that").hint("the other way");
        let expected = "distlock: error: no [1m way\n  caused by: this\n  caused by: that\n  hint: the other way\n";
        assert_eq!(lines(&failure), expected);
    }
}
