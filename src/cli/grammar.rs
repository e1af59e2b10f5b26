//! Grammar of the command line after the options: NAME, an optional `--`, COMMAND and its arguments.

use std::ffi::{OsStr, OsString};

use distlock_core::error::Failure;
use distlock_core::name;

/// Subcommands of later versions.
const RESERVED: [&str; 7] = ["status", "list", "acquire", "renew", "release", "verify", "break"];
/// Subcommands of this version.
const PRESENT: [&str; 4] = ["run", "doctor", "completions", "man"];
/// Similarity (Jaro-Winkler) from which a word counts as a mistyped other one.
const MIN_SIMILARITY: f64 = 0.75;

/// Name of a lock, and the command to run under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedCommand {
    pub name: String,
    /// COMMAND and its arguments; not empty.
    pub command: Vec<OsString>,
}

/// Parses `NAME [--] COMMAND [ARG]...` after `distlock run`.
pub(super) fn full_form(mut words: Vec<OsString>) -> Result<NamedCommand, Failure> {
    if words.is_empty() {
        return Err(nothing_to_run());
    }
    let name = lock_name(words.remove(0))?;
    let command = command(&name, words)?.ok_or_else(|| no_command(&name))?;
    Ok(NamedCommand { name, command })
}

/// Parses `NAME [--] COMMAND [ARG]...` after `distlock`. A NAME without a slash needs the `--`, because it could be a
/// subcommand of this version or a later one.
pub(super) fn short_form(name: &str, words: Vec<OsString>) -> Result<NamedCommand, Failure> {
    if RESERVED.contains(&name) {
        return Err(Failure::usage(format!("`{name}` is not available in this version of distlock"))
            .hint(format!("to lock `{name}`: distlock run {name} -- COMMAND")));
    }
    let name = lock_name(name.into())?;
    let separated = name.contains('/') || words.first().is_some_and(|word| word == "--");
    if separated || words.first().is_some_and(|word| is_option(word)) {
        let command = command(&name, words)?.ok_or_else(|| no_command(&name))?;
        return Ok(NamedCommand { name, command });
    }
    Err(unseparated(&name, &words))
}

/// Checks the rules for names that all backends share.
pub(super) fn lock_name(name: OsString) -> Result<String, Failure> {
    let name = name
        .into_string()
        .map_err(|name| Failure::usage(format!("lock name is not valid UTF-8: `{}`", name.to_string_lossy())))?;
    match name::check(&name) {
        Ok(()) => Ok(name),
        Err(failure) => {
            let bare = name.trim_end_matches('/');
            // If the slash is the only fault, the hint is a name for a shell.
            Err(if name::check(bare).is_ok() {
                failure.hint(format!("remove it: {}", quote(bare.as_ref())))
            } else {
                failure
            })
        }
    }
}

/// Returns the words after NAME without a leading `--`; None if there are none.
fn command(name: &str, mut words: Vec<OsString>) -> Result<Option<Vec<OsString>>, Failure> {
    match words.first() {
        Some(word) if word == "--" => {
            words.remove(0);
        }
        Some(word) if is_option(word) => {
            let word = quote(word);
            return Err(Failure::usage(format!("`{word}` is not allowed between NAME and COMMAND"))
                .hint(format!("options precede NAME: distlock {word} {} -- COMMAND", quote(OsStr::new(name)))));
        }
        _ => (),
    }
    if words.first().is_some_and(|word| word.is_empty()) {
        return Err(Failure::usage("command is empty")
            .hint(format!("is a variable unset? distlock {} -- COMMAND", quote(OsStr::new(name)))));
    }
    Ok((!words.is_empty()).then_some(words))
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

pub(super) fn nothing_to_run() -> Failure {
    Failure::usage("no lock name and no command given").hint("distlock NAME -- COMMAND; see distlock --help")
}

fn no_command(name: &str) -> Failure {
    let name = OsStr::new(name);
    Failure::usage(format!("no command given for the lock `{}`", quote(name)))
        .hint(format!("distlock {} -- COMMAND", quote(name)))
}

/// Refuses a first word that is not a subcommand, has no slash, and is not followed by `--`.
fn unseparated(name: &str, words: &[OsString]) -> Failure {
    let rest = if words.is_empty() { "COMMAND".to_owned() } else { line(words) };
    let name = quote(OsStr::new(name));
    let failure = Failure::usage(format!("`{name}` is not a subcommand, and a lock name without a slash needs `--`"));
    match guess(&name) {
        Some(guess) => failure.hint(format!("did you mean `{guess}`? To lock it: distlock run {name} -- {rest}")),
        None => failure.hint(format!("to lock it: distlock {name} -- {rest}")),
    }
}

/// Returns the subcommand or flag that this word resembles.
fn guess(word: &str) -> Option<&'static str> {
    if word == "help" || word == "version" {
        return Some(if word == "help" { "--help" } else { "--version" });
    }
    closest(word, RESERVED.into_iter().chain(PRESENT))
}

/// Returns the candidate most similar to `word`, if one is similar enough.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Returns the words quoted for a shell.
fn line(words: &[OsString]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// Returns the word quoted for a shell, if it needs quotes.
pub(crate) fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
