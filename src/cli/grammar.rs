//! The words of a command line after its options: NAME, an optional `--`, COMMAND and its arguments.

use std::ffi::{OsStr, OsString};

use distlock_core::error::Failure;

/// Subcommands whose names are taken and that this version does not have.
const RESERVED: [&str; 7] = ["status", "list", "acquire", "renew", "release", "verify", "break"];
/// Subcommands that this version has.
const PRESENT: [&str; 4] = ["run", "doctor", "completions", "man"];
/// Two words that are at least this much alike may be one and a slip of the finger.
const ALIKE: f64 = 0.75;

/// What to lock and what to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// The lock's name.
    pub name: String,
    /// COMMAND and its arguments, never empty.
    pub command: Vec<OsString>,
}

/// `distlock run NAME [--] COMMAND [ARG]...`
pub(super) fn full_form(mut words: Vec<OsString>) -> Result<Words, Failure> {
    if words.is_empty() {
        return Err(nothing_to_run());
    }
    let name = lock_name(words.remove(0))?;
    let command = command(&name, words)?.ok_or_else(|| no_command(&name))?;
    Ok(Words { name, command })
}

/// `distlock NAME [--] COMMAND [ARG]...`: a NAME without a slash needs the `--`, so that it cannot be meant as a
/// subcommand, of this version or a later one.
pub(super) fn short_form(name: &str, words: Vec<OsString>) -> Result<Words, Failure> {
    if RESERVED.contains(&name) {
        return Err(Failure::usage(format!("`{name}` is not available in this version of distlock"))
            .hint(format!("to lock `{name}`: distlock run {name} -- COMMAND")));
    }
    let name = lock_name(name.into())?;
    let separated = name.contains('/') || words.first().is_some_and(|word| word == "--");
    if separated || words.first().is_some_and(|word| is_option(word)) {
        let command = command(&name, words)?.ok_or_else(|| no_command(&name))?;
        return Ok(Words { name, command });
    }
    Err(unseparated(&name, &words))
}

/// Checks what holds for a lock's name on every backend.
pub(super) fn lock_name(name: OsString) -> Result<String, Failure> {
    let name = name
        .into_string()
        .map_err(|name| Failure::usage(format!("the lock's name `{}` is not valid UTF-8", name.to_string_lossy())))?;
    let refuse = |why: &str, hint: &str| {
        Err(Failure::usage(format!("the lock's name {why}: `{}`", name.escape_debug())).hint(hint))
    };
    if name.is_empty() {
        return Err(
            Failure::usage("the lock's name is empty").hint("a variable that is not set? distlock NAME -- COMMAND")
        );
    }
    if name.starts_with('-') {
        return refuse("begins with a dash", "options stand before NAME; a name begins with any other character");
    }
    if name.ends_with('/') {
        let bare = name.trim_end_matches('/');
        let hint = if bare.is_empty() {
            "name a lock below it".to_owned()
        } else {
            format!("leave it out: {}", quote(OsStr::new(bare)))
        };
        return refuse("ends with a slash", &hint);
    }
    if name.chars().any(is_unprintable) {
        return refuse("holds a character that cannot be printed", "leave it out: who reads the name could not see it");
    }
    Ok(name)
}

/// Control characters, and those that are not seen or change how others are: a name could be made to look like another. The
/// standard library knows them as those that it would not print in a string; quotes and backslashes it only marks.
fn is_unprintable(c: char) -> bool {
    // A combining character is printed behind another.
    let printed = String::from_iter(['a', c]).escape_debug().skip(1).eq([c]);
    !printed && !matches!(c, '"' | '\'' | '\\')
}

/// What follows NAME, less the first `--`; None when nothing does.
fn command(name: &str, mut words: Vec<OsString>) -> Result<Option<Vec<OsString>>, Failure> {
    match words.first() {
        Some(word) if word == "--" => {
            words.remove(0);
        }
        Some(word) if is_option(word) => {
            let word = quote(word);
            return Err(Failure::usage(format!("`{word}` stands between NAME and COMMAND"))
                .hint(format!("options stand before NAME: distlock {word} {} -- COMMAND", quote(OsStr::new(name)))));
        }
        _ => (),
    }
    if words.first().is_some_and(|word| word.is_empty()) {
        return Err(Failure::usage("the command is empty")
            .hint(format!("a variable that is not set? distlock {} -- COMMAND", quote(OsStr::new(name)))));
    }
    Ok((!words.is_empty()).then_some(words))
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

pub(super) fn nothing_to_run() -> Failure {
    Failure::usage("no lock and no command").hint("distlock NAME -- COMMAND; see distlock --help")
}

fn no_command(name: &str) -> Failure {
    let name = OsStr::new(name);
    Failure::usage(format!("no command to run under the lock `{}`", quote(name)))
        .hint(format!("distlock {} -- COMMAND", quote(name)))
}

/// A first word that is no subcommand, has no slash, and is not followed by `--`.
fn unseparated(name: &str, words: &[OsString]) -> Failure {
    let rest = if words.is_empty() { "COMMAND".to_owned() } else { line(words) };
    let name = quote(OsStr::new(name));
    let failure = Failure::usage(format!("`{name}` is not a subcommand, and a lock's name without a slash needs `--`"));
    match guess(&name) {
        Some(guess) => failure.hint(format!("did you mean `{guess}`? To lock it: distlock run {name} -- {rest}")),
        None => failure.hint(format!("to lock it: distlock {name} -- {rest}")),
    }
}

/// The subcommand or flag that this word may have been meant as.
fn guess(word: &str) -> Option<&'static str> {
    if word == "help" || word == "version" {
        return Some(if word == "help" { "--help" } else { "--version" });
    }
    closest(word, RESERVED.into_iter().chain(PRESENT))
}

/// The candidate that `word` is most like, if it is like any.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The words as they could be typed into a shell.
fn line(words: &[OsString]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// One word as it could be typed into a shell.
pub(crate) fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
