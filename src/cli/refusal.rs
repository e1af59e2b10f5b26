//! clap's refusals in distlock's form.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::grammar::closest;
use super::options::{self, OPTIONS, RESERVED};
use distlock_core::error::Failure;

/// The first paragraph is the message, the tips are the hint.
pub(super) fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = || text.lines().map(str::trim);
    let message: Vec<_> = lines().take_while(|line| !line.is_empty()).collect();
    let tips: Vec<_> = lines().filter_map(|line| line.strip_prefix("tip: ")).filter(|tip| is_ours(tip)).collect();
    let hint = if tips.is_empty() { "see distlock --help".to_owned() } else { tips.join("; ") };
    let failure = Failure::usage(message.join(" "));
    match unknown(error) {
        Some(word) => unknown_option(failure, word, hint),
        None => failure.hint(hint),
    }
}

/// clap also tips to give an option's word as an argument, which no name and no command takes.
fn is_ours(tip: &str) -> bool {
    !tip.starts_with("to pass ")
}

/// The word that looks like an option and is none here.
fn unknown(error: &clap::Error) -> Option<&str> {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) if word.starts_with('-') => Some(word),
        _ => None,
    }
}

fn unknown_option(failure: Failure, word: &str, hint: String) -> Failure {
    if word == "--json" {
        // `doctor` has it.
        return Failure::usage("`--json` is not available here in this version of distlock")
            .hint("`distlock doctor --json` is");
    }
    if let Some(id) = options::reserved(word) {
        return Failure::usage(options::not_available(id)).hint("see distlock --help for what is");
    }
    let name = word.trim_start_matches('-');
    if let Some(option) =
        OPTIONS.iter().find(|option| name == option.id || option.short.is_some_and(|c| name == c.to_string()))
    {
        return failure.hint(format!("--{} means something to `run` alone: leave it out", option.id));
    }
    let known = similar(name, OPTIONS.iter().map(|option| option.id)).is_some();
    failure.hint(if known { hint } else { "see distlock --help".to_owned() })
}

/// The candidate that `word` may have been meant as. None where it is more like an option of a later version, for which
/// no other is a substitute.
pub(crate) fn similar<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reserved = |word: &str| RESERVED.iter().any(|(id, _)| *id == word);
    let all = candidates.into_iter().chain(RESERVED.iter().map(|(id, _)| *id));
    closest(word, all).filter(|found| !reserved(found))
}
