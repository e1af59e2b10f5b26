//! The command line: what it may say, and what it said. Values are strings here; [`crate::config`] gives them meaning.

mod grammar;
pub(crate) mod help;
pub(crate) mod options;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use clap_complete::Shell;

use distlock_core::error::Failure;
pub(crate) use grammar::Words;
pub(crate) use grammar::quote;
use options::{OPTIONS, Opt};
pub(crate) use refusal::similar;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// `--help` or `--version`: print it and exit 0.
    Help(clap::Error),
    /// `-h`: print what most need.
    ShortHelp,
    /// Run a command under a lock.
    Run(Flags, Words),
    /// Find out whether a lock, perhaps one of a given name, could be had.
    Doctor {
        /// The options.
        flags: Flags,
        /// The lock's name.
        name: Option<String>,
        /// Whether to answer in JSON.
        json: bool,
    },
    /// Print a completion script.
    Completions(Shell),
    /// Print the man page.
    Man,
}

/// The options that the command line gave, with their values; a switch has the value `true`.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<BTreeMap<&'static str, OsString>>);

impl Flags {
    /// What was given before the subcommand, and after it where there is one.
    const LEVELS: usize = 2;

    fn new(levels: &[&ArgMatches]) -> Self {
        Self(levels.iter().map(|matches| given(matches)).collect())
    }

    /// The value of this option among those given after the subcommand (level 0) or before it (level 1).
    #[must_use]
    pub(crate) fn at(&self, level: usize, id: &str) -> Option<&OsString> {
        debug_assert!(level < Self::LEVELS, "a command line has {} levels", Self::LEVELS);
        self.0.get(level)?.get(id)
    }
}

/// The options that were given on this level.
fn given(matches: &ArgMatches) -> BTreeMap<&'static str, OsString> {
    let value = |option: &Opt| match option.value {
        // A level has only some of the options: one that it lacks was not given on it.
        None => matches.try_get_one::<bool>(option.id).ok()??.then(|| "true".into()),
        Some(_) => matches.try_get_raw(option.id).ok()??.next_back().map(ToOwned::to_owned),
    };
    OPTIONS.iter().filter_map(|option| Some((option.id, value(option)?))).collect()
}

/// Understands a command line, the program's name included.
///
/// # Errors
///
/// A usage failure that names the way out.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Request, Failure> {
    let matches = match command().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Help(error));
        }
        Err(error) => return Err(refusal::usage(&error)),
    };
    if matches.get_flag("short-help") {
        return Ok(Request::ShortHelp);
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
            Ok(other
                .try_get_one::<Shell>("shell")
                .ok()
                .flatten()
                .map_or(Request::Man, |shell| Request::Completions(*shell)))
        }
        Some((name, short)) => {
            let words = short.get_many::<OsString>("").unwrap_or_default().cloned().collect();
            Ok(Request::Run(Flags::new(&[&matches]), grammar::short_form(name, words)?))
        }
    }
}

fn refuse_run_options(flags: &BTreeMap<&'static str, OsString>, subcommand: &str) -> Result<(), Failure> {
    match OPTIONS.iter().find(|option| option.group.of_run_alone() && flags.contains_key(option.id)) {
        None => Ok(()),
        Some(option) => Err(Failure::usage(format!("--{} means nothing to `{subcommand}`", option.id))
            .hint(format!("leave --{} out; to lock `{subcommand}`: distlock run {subcommand} -- COMMAND", option.id))),
    }
}

/// The definitions that clap parses by, and that help, man page and completions are made from.
#[must_use]
pub(crate) fn command() -> Command {
    let shell = PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|shell| shell.parse::<Shell>());
    let version = env!("CARGO_PKG_VERSION");
    Command::new("distlock")
        .version(version)
        .about(help::ABOUT)
        .long_about(help::LONG_ABOUT)
        .override_usage(help::USAGE)
        .after_long_help(help::long_end())
        .max_term_width(help::WIDTH)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(ValueParser::os_string())
        .subcommand_value_name("NAME")
        .disable_help_flag(true)
        .arg(Arg::new("short-help").short('h').action(ArgAction::SetTrue).help("Print help on what most need"))
        .arg(Arg::new("help").long("help").action(ArgAction::HelpLong).help("Print all of the help"))
        .args(OPTIONS.iter().map(argument))
        .subcommand(run_command().arg(help_flag()))
        .subcommand(doctor_command().arg(help_flag()))
        .subcommand(
            Command::new("completions")
                .about("Print the completion script of a shell")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(shell))
                .arg(help_flag()),
        )
        .subcommand(Command::new("man").about("Print the man page, for man -l -").arg(help_flag()))
}

/// For subcommands; the program's own `-h` is made by hand, to fit one screen.
fn help_flag() -> Arg {
    Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print help")
}

fn run_command() -> Command {
    Command::new("run")
        .about("Run COMMAND while holding NAME (the above, in full)")
        .override_usage("distlock run [OPTIONS] NAME [--] COMMAND [ARG]...")
        .after_help("Try `distlock --help` for environment, files, exit codes and examples.")
        .args_override_self(true)
        .args(OPTIONS.iter().map(argument))
        .arg(
            Arg::new("words")
                .value_name("NAME [--] COMMAND [ARG]")
                .num_args(0..)
                .trailing_var_arg(true)
                .value_parser(ValueParser::os_string())
                .value_hint(ValueHint::CommandWithArguments)
                .hide(true),
        )
}

fn doctor_command() -> Command {
    Command::new("doctor")
        .about("Tell whether a lock can be had, and what is wrong if not")
        .long_about(
            "Tell whether a lock can be had, and what is wrong if not.\n\n\
             Reaches every endpoint and tells version, role, latency, TLS and clock; tries a lease, and with NAME the \
             rights to that lock. Takes no lock and leaves nothing on the servers. Exits 0 only when a lock could be had.",
        )
        .override_usage("distlock doctor [OPTIONS] [NAME]")
        .args_override_self(true)
        .args(OPTIONS.iter().filter(|option| !option.group.of_run_alone()).map(argument))
        .arg(json())
        .arg(Arg::new("name").value_name("NAME").help("The lock to which the rights are tried").value_hint(ValueHint::Other).value_parser(ValueParser::os_string()))
}

/// For subcommands whose answer is what they print.
fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .help("Answer in JSON")
        .help_heading(options::Group::Output.heading())
        .action(ArgAction::SetTrue)
}

fn argument(option: &'static Opt) -> Arg {
    let arg = Arg::new(option.id)
        .long(option.id)
        .help(help::line(option))
        .long_help(help::paragraphs(option))
        .help_heading(option.group.heading())
        .hide_short_help(option.rare);
    let arg = match option.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    let arg = match option.value {
        None => arg.action(ArgAction::SetTrue),
        Some(_) if option.choices.is_empty() => arg.value_parser(ValueParser::os_string()),
        Some(_) => arg.value_parser(PossibleValuesParser::new(option.choices)).hide_possible_values(true),
    };
    let arg = match option.value {
        Some(value) => arg.value_name(value),
        None => arg,
    };
    let arg = match option.value {
        // Where nothing can be completed, shells are not to offer files.
        Some(_) => arg.value_hint(if option.path { ValueHint::FilePath } else { ValueHint::Other }),
        None => arg,
    };
    let arg = if option.is_number() { arg.allow_negative_numbers(true) } else { arg };
    // Flags that contradict each other: the last one wins.
    match option.id {
        "wait" => arg.overrides_with("try"),
        "try" => arg.overrides_with("wait"),
        "verbose" => arg.overrides_with("quiet"),
        "quiet" => arg.overrides_with("verbose"),
        _ => arg,
    }
}
