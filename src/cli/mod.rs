//! The command line: options, grammar, help.
//!
//! Owns the table of options, the syntax of a command line, the definitions for help, man page and completions, and their
//! texts. Checks lock names and listed choices; all other values stay strings, which `config` interprets. May import
//! `distlock_core` only.
//!
//! Invariants: each option of `run` is defined once, in [`options`]. Every refusal is a usage failure (exit 64).

mod command;
mod grammar;
pub(crate) mod help;
pub(crate) mod options;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap_complete::Shell;

use distlock_core::error::Failure;

pub(crate) use command::command;
pub(crate) use grammar::{NamedCommand, quote};
use options::{OPTIONS, Opt};
pub(crate) use refusal::similar;

/// Parsed command line.
#[derive(Debug)]
pub(crate) enum Request {
    /// `--help` or `--version`: clap's text.
    Help(clap::Error),
    /// `-h`.
    ShortHelp(Flags),
    Run(Flags, NamedCommand),
    Doctor {
        flags: Flags,
        /// Name of the lock.
        name: Option<String>,
        json: bool,
    },
    Completions(Flags, Shell),
    Man(Flags),
}

/// Options given on the command line, with their values. The value of a switch is `true`.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<BTreeMap<&'static str, OsString>>);

impl Flags {
    /// Options can be given before and after a subcommand.
    const LEVELS: usize = 2;

    fn new(levels: &[&ArgMatches]) -> Self {
        Self(levels.iter().map(|matches| given(matches)).collect())
    }

    /// Returns the option's value, given after the subcommand or without one (level 0), or before it (level 1).
    #[must_use]
    pub(crate) fn at(&self, level: usize, id: &str) -> Option<&OsString> {
        debug_assert!(level < Self::LEVELS, "a command line has {} levels", Self::LEVELS);
        self.0.get(level)?.get(id)
    }
}

/// Returns the options given on one level. Not every level has every option.
fn given(matches: &ArgMatches) -> BTreeMap<&'static str, OsString> {
    let value = |option: &Opt| match option.value {
        None => matches.try_get_one::<bool>(option.id).ok()??.then(|| "true".into()),
        Some(_) => matches.try_get_raw(option.id).ok()??.next_back().map(ToOwned::to_owned),
    };
    OPTIONS.iter().filter_map(|option| Some((option.id, value(option)?))).collect()
}

/// Parses a command line, the program's name included.
///
/// # Errors
///
/// A usage failure.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Request, Failure> {
    let matches = match command().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Help(error));
        }
        Err(error) => return Err(refusal::usage(&error)),
    };
    if matches.get_flag("short-help") {
        return Ok(Request::ShortHelp(Flags::new(&[&matches])));
    }
    match matches.subcommand() {
        None => Err(grammar::nothing_to_run()),
        Some(("run", run)) => {
            let words = run.get_many::<OsString>("words").unwrap_or_default().cloned().collect();
            Ok(Request::Run(Flags::new(&[run, &matches]), grammar::full_form(words)?))
        }
        Some(("doctor", doctor)) => {
            refuse_run_options(&given(&matches), "doctor")?;
            let name = doctor.get_one::<OsString>("name").cloned();
            Ok(Request::Doctor {
                flags: Flags::new(&[doctor, &matches]),
                name: name.map(grammar::lock_name).transpose()?,
                json: doctor.get_flag("json"),
            })
        }
        Some((name @ ("completions" | "man"), other)) => {
            refuse_run_options(&given(&matches), name)?;
            let flags = Flags::new(&[other, &matches]);
            Ok(match other.try_get_one::<Shell>("shell").ok().flatten() {
                Some(shell) => Request::Completions(flags, *shell),
                None => Request::Man(flags),
            })
        }
        Some((name, short)) => {
            let words = short.get_many::<OsString>("").unwrap_or_default().cloned().collect();
            Ok(Request::Run(Flags::new(&[&matches]), grammar::short_form(name, words)?))
        }
    }
}

fn refuse_run_options(flags: &BTreeMap<&'static str, OsString>, subcommand: &str) -> Result<(), Failure> {
    match OPTIONS.iter().find(|option| option.group.is_for_run_only() && flags.contains_key(option.id)) {
        None => Ok(()),
        Some(option) => Err(Failure::usage(format!("`{subcommand}` does not take --{}", option.id))
            .hint(format!("remove --{}; to lock `{subcommand}`: distlock run {subcommand} -- COMMAND", option.id))),
    }
}
