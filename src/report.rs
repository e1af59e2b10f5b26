//! Every line that is printed on stderr.

use std::io::{self, Write};

use crate::error::Failure;

/// Prints a failure: `distlock: error: ...`, its causes, and the hint.
pub fn failure(failure: &Failure) {
    // Nobody can be told that stderr cannot be written to.
    let _ = io::stderr().write_all(lines(failure).as_bytes());
}

fn lines(failure: &Failure) -> String {
    let error = [format!("distlock: error: {}", printable(&failure.message))];
    let causes = failure.causes.iter().map(|cause| format!("  caused by: {}", printable(cause)));
    let hint = failure.hint.iter().map(|hint| format!("  hint: {}", printable(hint)));
    let lines: Vec<_> = error.into_iter().chain(causes).chain(hint).collect();
    lines.join("\n") + "\n"
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
