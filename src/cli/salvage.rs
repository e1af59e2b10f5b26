//! What can still be learnt from a command line that was refused.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::grammar::lock_name;
use super::options::{self, OPTIONS};

/// What a line says as far as it goes. Words that may be the command's are left alone.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// The lock's name.
    pub name: Option<String>,
    values: BTreeMap<&'static str, OsString>,
}

impl Salvaged {
    /// The value of this option; the last one counts.
    #[must_use]
    pub fn value(&self, id: &str) -> Option<&OsStr> {
        self.values.get(id).map(OsString::as_os_str)
    }
}

/// Reads a line, the program's name included, that could not be understood.
#[must_use]
pub fn salvage(line: &[OsString]) -> Salvaged {
    let mut words = line.iter().skip(1).peekable();
    let mut found = Salvaged::default();
    let (mut subcommand, mut unknown) = (false, false);
    while let Some(word) = words.next() {
        match kind(word) {
            Word::Switch => unknown = false,
            Word::Unknown => unknown = true,
            Word::Joined(id, value) => {
                unknown = false;
                found.values.insert(id, value);
            }
            Word::Valued(id) => {
                unknown = false;
                match words.next_if(|value| !value.as_bytes().starts_with(b"-")) {
                    Some(value) => found.values.insert(id, value.clone()),
                    None => found.values.remove(id),
                };
            }
            // Perhaps the value of the option before it.
            Word::Plain if unknown => unknown = false,
            Word::Plain if word == "run" && !subcommand => subcommand = true,
            Word::Plain => {
                let named =
                    subcommand || word.as_bytes().contains(&b'/') || words.peek().is_some_and(|next| *next == "--");
                found.name = Some(word).filter(|_| named).and_then(|word| lock_name(word.clone()).ok());
                break;
            }
            Word::End => {
                found.name = words.next().and_then(|word| lock_name(word.clone()).ok());
                break;
            }
        }
    }
    found
}

enum Word {
    /// An option that is complete.
    Switch,
    /// An option and its value.
    Joined(&'static str, OsString),
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
    let Some(name) = word.as_bytes().strip_prefix(b"-").filter(|name| !name.is_empty()) else { return Word::Plain };
    let Some(long) = name.strip_prefix(b"-") else { return cluster(name) };
    if long.is_empty() {
        return Word::End;
    }
    let (id, value) = match long.iter().position(|byte| *byte == b'=') {
        Some(at) => (&long[..at], Some(&long[at + 1..])),
        None => (long, None),
    };
    let option = str::from_utf8(id).ok().and_then(options::find);
    match (option, value) {
        (Some(option), Some(value)) => Word::Joined(option.id, OsStr::from_bytes(value).to_owned()),
        (Some(option), None) if option.value.is_some() => Word::Valued(option.id),
        (Some(_), None) | (None, Some(_)) => Word::Switch,
        (None, None) => Word::Unknown,
    }
}

/// Short flags, of which the first that takes a value takes the rest of the word, if there is any.
fn cluster(letters: &[u8]) -> Word {
    for (at, letter) in letters.iter().enumerate() {
        let rest = &letters[at + 1..];
        match OPTIONS.iter().find(|option| option.short == Some(char::from(*letter))) {
            None => return Word::Unknown,
            Some(option) if option.value.is_none() => {}
            Some(option) if rest.is_empty() => return Word::Valued(option.id),
            Some(option) => {
                let value = rest.strip_prefix(b"=").unwrap_or(rest);
                return Word::Joined(option.id, OsStr::from_bytes(value).to_owned());
            }
        }
    }
    Word::Switch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Salvaged {
        let line: Vec<OsString> = ["distlock"].into_iter().chain(line.split(' ')).map(Into::into).collect();
        salvage(&line)
    }

    fn found(line: &str) -> Option<String> {
        read(line).value("report").map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn name_and_backend_are_found() {
        for (line, name, backend) in [
            ("-b etcd --ttl soon /x true", Some("/x"), Some("etcd")),
            ("-betcd --tt 5s /x true", Some("/x"), Some("etcd")),
            ("-nb=local run x true", Some("x"), Some("local")),
            ("--backend=consul x -- true", Some("x"), Some("consul")),
            ("-w soon -- x true", Some("x"), None),
            ("statsu backup", None, None),
            ("/x/ true", None, None),
            ("-b etcd", None, Some("etcd")),
        ] {
            let read = read(line);
            assert_eq!(
                (read.name.as_deref(), read.value("backend").and_then(OsStr::to_str)),
                (name, backend),
                "{line}"
            );
        }
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
