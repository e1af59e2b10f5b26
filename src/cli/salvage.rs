//! What can still be learnt from a command line that was refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::options::{self, OPTIONS};

/// The value of this option among those of a line, the program's name included, that could not be understood. Words that
/// may be the command's are left alone.
#[must_use]
pub fn value(line: &[OsString], wanted: &str) -> Option<OsString> {
    let mut words = line.iter().skip(1).peekable();
    let mut found = None;
    let (mut subcommand, mut unknown) = (false, false);
    while let Some(word) = words.next() {
        let joined = word.as_bytes().strip_prefix(b"--").and_then(|word| word.strip_prefix(wanted.as_bytes()));
        if let Some(value) = joined.and_then(|rest| rest.strip_prefix(b"=")) {
            found = Some(OsStr::from_bytes(value).to_owned());
            continue;
        }
        match kind(word) {
            Word::Switch => unknown = false,
            Word::Unknown => unknown = true,
            Word::Valued(id) => {
                unknown = false;
                let value = words.next_if(|value| !value.as_bytes().starts_with(b"-"));
                if id == wanted {
                    found = value.cloned();
                }
            }
            // Perhaps the value of the option before it.
            Word::Plain if unknown => unknown = false,
            Word::Plain if word == "run" && !subcommand => subcommand = true,
            Word::Plain | Word::End => break,
        }
    }
    found
}

enum Word {
    /// An option that is complete.
    Switch,
    /// An option whose value is the next word.
    Valued(&'static str),
    /// An option that there is not.
    Unknown,
    /// No option.
    Plain,
    /// The end of all options.
    End,
}

fn kind(word: &OsStr) -> Word {
    let word = word.to_string_lossy();
    let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else { return Word::Plain };
    let Some(long) = name.strip_prefix('-') else { return cluster(name) };
    match (long, options::find(long)) {
        ("", _) => Word::End,
        (_, Some(option)) if option.value.is_some() => Word::Valued(option.id),
        (_, None) if !long.contains('=') => Word::Unknown,
        _ => Word::Switch,
    }
}

/// Short flags, of which the first that takes a value takes the rest of the word, if there is any.
fn cluster(letters: &str) -> Word {
    for (at, letter) in letters.char_indices() {
        match OPTIONS.iter().find(|option| option.short == Some(letter)) {
            None => return Word::Unknown,
            Some(option) if option.value.is_none() => {}
            Some(option) if at + letter.len_utf8() == letters.len() => return Word::Valued(option.id),
            Some(_) => return Word::Switch,
        }
    }
    Word::Switch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<String> {
        let line: Vec<OsString> = ["distlock"].into_iter().chain(line.split(' ')).map(Into::into).collect();
        value(&line, "report").map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn it_is_found_wherever_an_option_may_stand() {
        for line in [
            "--report F --ttl soon /x true",
            "--report=F --no-such-option /x true",
            "--tt 5s --report F /x true",
            "--tt=5s --report F /x true",
            "-w 5s -nb etcd --report F /x true",
            "-betcd -vt --report --report F",
            "--report A run --report F x -- true",
            "run --ttl soon --report F",
        ] {
            assert_eq!(found(line).as_deref(), Some("F"), "{line}");
        }
    }

    #[test]
    fn what_is_the_commands_is_left_alone() {
        for line in
            ["/x tool --report F", "-- --report F", "run x --report F", "-m --report", "--report", "--report -n /x"]
        {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
