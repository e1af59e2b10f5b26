//! Definitions for clap, built from the table of options.

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::Shell;

use super::help;
use super::options::{Group, OPTIONS, Opt};

/// Returns the definitions for parsing, help, man page and completions.
#[must_use]
pub(crate) fn command() -> Command {
    let shell = PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|shell| shell.parse::<Shell>());
    Command::new("distlock")
        .version(env!("CARGO_PKG_VERSION"))
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
        .arg(Arg::new("short-help").short('h').action(ArgAction::SetTrue).help("Print the most common options"))
        .arg(Arg::new("help").long("help").action(ArgAction::HelpLong).help("Print the complete help"))
        .args(OPTIONS.iter().map(argument))
        .subcommand(run().arg(help_flag()))
        .subcommand(doctor().arg(help_flag()))
        .subcommand(
            Command::new("completions")
                .about("Print the completion script of a shell")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(shell))
                .arg(help_flag()),
        )
        .subcommand(Command::new("man").about("Print the man page, for man -l -").arg(help_flag()))
}

/// Help flag of a subcommand. The program's own `-h` is [`help::short`], which fits on one screen.
fn help_flag() -> Arg {
    Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print help")
}

fn run() -> Command {
    Command::new("run")
        .about("Run COMMAND while holding NAME (long form of the above)")
        .override_usage("distlock run [OPTIONS] NAME [--] COMMAND [ARG]...")
        .after_help("See `distlock --help` for environment, files, exit codes and examples.")
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

fn doctor() -> Command {
    let name = Arg::new("name")
        .value_name("NAME")
        .help("Lock to test the permissions for")
        .value_hint(ValueHint::Other)
        .value_parser(ValueParser::os_string());
    Command::new("doctor")
        .about("Check whether a lock can be acquired, and report problems")
        .long_about(
            "Check whether a lock can be acquired, and report problems.\n\n\
             Connects to every endpoint and reports its version, role, latency and TLS; creates a lease and removes it; \
             with NAME, tests the permissions for that lock. Acquires no lock and leaves nothing on the servers. \
             Exits 0 only if a lock could be acquired.",
        )
        .override_usage("distlock doctor [OPTIONS] [NAME]")
        .args_override_self(true)
        .args(OPTIONS.iter().filter(|option| !option.group.is_for_run_only()).map(argument))
        .arg(json())
        .arg(name)
}

fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .help("Print the result as JSON")
        .help_heading(Group::Output.heading())
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
        // `Other` keeps shells from completing file names.
        Some(value) => {
            arg.value_name(value).value_hint(if option.path { ValueHint::FilePath } else { ValueHint::Other })
        }
        None => arg,
    };
    let arg = if option.is_number() { arg.allow_negative_numbers(true) } else { arg };
    // Of two flags that contradict each other, the last one counts.
    match option.id {
        "wait" => arg.overrides_with("try"),
        "try" => arg.overrides_with("wait"),
        "verbose" => arg.overrides_with("quiet"),
        "quiet" => arg.overrides_with("verbose"),
        _ => arg,
    }
}
