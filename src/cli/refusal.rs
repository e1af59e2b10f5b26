//! Conversion of clap's errors into failures.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use distlock_core::error::Failure;

use super::grammar::closest;
use super::options::{self, OPTIONS, RESERVED};

/// Returns a usage failure: clap's first paragraph is the message, its tips are the hint.
pub(super) fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = || text.lines().map(str::trim);
    let message: Vec<_> = lines().take_while(|line| !line.is_empty()).collect();
    let tips: Vec<_> = lines().filter_map(|line| line.strip_prefix("tip: ")).filter(|tip| is_applicable(tip)).collect();
    let hint = if tips.is_empty() { "see distlock --help".to_owned() } else { tips.join("; ") };
    let failure = Failure::usage(message.join(" "));
    match unknown_word(error) {
        Some(word) => unknown_option(failure, word, hint),
        None => failure.hint(hint),
    }
}

/// clap also suggests to pass the word as an argument, but names and commands cannot begin with a dash.
fn is_applicable(tip: &str) -> bool {
    !tip.starts_with("to pass ")
}

/// Returns the word that looks like an option but is not one here.
fn unknown_word(error: &clap::Error) -> Option<&str> {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) if word.starts_with('-') => Some(word),
        _ => None,
    }
}

fn unknown_option(failure: Failure, word: &str, hint: String) -> Failure {
    if word == "--json" {
        // `doctor` has it.
        return Failure::usage("`--json` is not available here in this version of distlock")
            .hint("only `distlock doctor --json` is available");
    }
    if let Some(id) = options::reserved(word) {
        return Failure::usage(options::not_available(id)).hint("see distlock --help for the available options");
    }
    let name = word.trim_start_matches('-');
    if let Some(option) =
        OPTIONS.iter().find(|option| name == option.id || option.short.is_some_and(|c| name == c.to_string()))
    {
        return failure.hint(format!("only `run` takes --{}: remove it", option.id));
    }
    let known = similar(name, OPTIONS.iter().map(|option| option.id)).is_some();
    failure.hint(if known { hint } else { "see distlock --help".to_owned() })
}

/// Returns the candidate that `word` resembles. None if it resembles an option of a later version more: no other option
/// can replace that.
pub(crate) fn similar<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_reserved = |word: &str| RESERVED.iter().any(|(id, _)| *id == word);
    let all = candidates.into_iter().chain(RESERVED.iter().map(|(id, _)| *id));
    closest(word, all).filter(|found| !is_reserved(found))
}
