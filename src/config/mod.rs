//! Flags, environment and configuration file become one checked configuration.

mod ci;
mod endpoints;
mod file;
mod identity;
mod layers;
mod room;
mod server;
mod signal;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::Shell;
use nix::sys::signal::Signal;

use crate::cli::{self, Flags, Request, Words, options};
use crate::lock::{Name, Settings};
use crate::report::output::{Format, Output};
use crate::report::target::Target;
use distlock_core::duration;
use distlock_core::error::Failure;
use distlock_core::plan::{Leftover, OnLost};
use file::File;
pub(crate) use layers::Environment;
use layers::{Layers, Value};

/// Where the configuration file is when nobody names one. There is none per user: cron and sudo would see another one.
const DEFAULT_FILE: &str = "/etc/distlock/config.toml";
const DEFAULT_TTL: Duration = Duration::from_secs(15);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What distlock was asked to do, checked.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Run a command under a lock.
    Run(Box<Run>),
    /// Find out whether a lock could be had.
    Doctor(Box<Doctor>),
    /// Print a completion script.
    Completions(Shell),
    /// Print the man page.
    Man,
    /// Print help on what most need.
    ShortHelp,
    /// Print help or version, as clap has rendered it.
    Help(clap::Error),
}

/// Everything `run` needs, checked.
#[derive(Debug)]
pub(crate) struct Run {
    /// The lock's name as the user gave it.
    pub name: String,
    /// The command and its arguments; with `--shell` those of `/bin/sh -c`.
    pub argv: Vec<OsString>,
    /// How the lock's backend is reached; None with `--no-lock`. A user without a password is asked for it.
    pub settings: Option<Settings>,
    /// What gave the backend its addresses: a flag, a variable, a key, or a default.
    pub source: String,
    /// The lease time to ask for.
    pub ttl: Duration,
    /// From the soft signal to KILL.
    pub grace: Duration,
    /// Longest wait for the lock, connecting included; None: no limit; zero: one try.
    pub wait: Option<Duration>,
    /// The soft signal.
    pub signal: Signal,
    /// What follows a loss.
    pub on_lost: OnLost,
    /// How often the command may be run anew after a loss; None: as often as it takes.
    pub restarts: Option<u32>,
    /// What becomes of processes that outlive the command.
    pub leftover: Leftover,
    /// The exit code when the lock is busy: None is the table's, 0 is also silent.
    pub busy_exit: Option<u8>,
    /// What whoever waits is shown.
    pub message: Option<String>,
    /// Where whoever waits can look: the CI job's address.
    pub url: Option<String>,
    /// How long to try when no server was ever reached.
    pub connect_timeout: Duration,
    /// What is printed.
    pub output: Output,
    /// Where the outcome is reported.
    pub report: Option<Target>,
}

/// Everything `doctor` needs, checked.
#[derive(Debug)]
pub(crate) struct Doctor {
    /// The lock's name as the user gave it, if any.
    pub name: Option<String>,
    /// How the lock's backend is reached.
    pub settings: Settings,
    /// The lease time that `run` would ask for.
    pub ttl: Duration,
    /// How long each endpoint may take.
    pub connect_timeout: Duration,
    /// Whether to answer in JSON.
    pub json: bool,
    /// What else is printed.
    pub output: Output,
}

/// What a configuration depends on beside the command line.
pub(crate) struct Surroundings<'a> {
    /// Reads a variable of the environment.
    pub environment: Environment<'a>,
    /// The configuration file that is read when nobody names one.
    pub default_file: PathBuf,
}

impl Surroundings<'static> {
    /// Those of this process.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        Self { environment: &|name| std::env::var_os(name), default_file: DEFAULT_FILE.into() }
    }
}

/// What the command line states of the output, whether or not the rest of the configuration holds. A value that is itself
/// wrong counts as not stated.
#[derive(Debug)]
pub(crate) struct Stated {
    /// The form of events.
    pub format: Format,
    /// Where the outcome is reported.
    pub report: Option<Target>,
    /// The lock's name.
    pub name: Option<String>,
    /// The backend.
    pub backend: Option<Name>,
}

/// Returns the form of events if the command line cannot be read.
#[must_use]
pub(crate) fn default_format(around: &Surroundings) -> Format {
    let flags = Flags::default();
    let layers = Layers { flags: &flags, environment: around.environment, file: File::default(), backend: None };
    format(&layers).unwrap_or(Format::Text)
}

/// Returns what this request states of the output.
#[must_use]
pub(crate) fn stated(request: &Request, around: &Surroundings) -> Stated {
    let none = Flags::default();
    let (flags, name) = match request {
        Request::Run(flags, words) => (flags, Some(words.name.clone())),
        Request::Doctor { flags, .. } => (flags, None),
        _ => (&none, None),
    };
    let layers = Layers { flags, environment: around.environment, file: File::default(), backend: None };
    Stated {
        format: format(&layers).unwrap_or(Format::Text),
        report: report(&layers).ok().flatten(),
        name,
        backend: layers.text("backend").ok().flatten().and_then(|name| Name::of(&name)),
    }
}

/// Checks what the command line asks for.
///
/// # Errors
///
/// A usage failure that names the flag, variable or key, and the way out.
pub(crate) fn resolve(request: Request, around: &Surroundings) -> Result<Invocation, Failure> {
    Ok(match request {
        Request::ShortHelp => Invocation::ShortHelp,
        Request::Help(text) => Invocation::Help(text),
        Request::Completions(shell) => Invocation::Completions(shell),
        Request::Man => Invocation::Man,
        Request::Doctor { flags, name, json } => Invocation::Doctor(Box::new(doctor(&flags, name, json, around)?)),
        Request::Run(flags, words) => Invocation::Run(Box::new(run(&flags, words, around)?)),
    })
}

fn run(flags: &Flags, words: Words, around: &Surroundings) -> Result<Run, Failure> {
    let mut layers = layers(flags, around)?;
    let settings = if layers.is_on("no-lock")? { None } else { Some(settings(&mut layers)?) };
    let ttl = ttl(&layers)?;
    let job = ci::job(around.environment).unwrap_or_default();
    let message = layers.text("message")?.unwrap_or(job.name);
    let shell = layers.is_on("shell")?;
    Ok(Run {
        argv: argv(words.command, shell)?,
        name: words.name,
        source: settings.as_ref().map(|settings| server::source(&layers, settings.name())).unwrap_or_default(),
        settings,
        ttl,
        grace: asked_grace(&layers)?.unwrap_or_else(|| room::default_grace(ttl)),
        wait: wait(&layers)?,
        signal: parsed(&layers, "signal", signal::parse)?.unwrap_or(Signal::SIGTERM),
        on_lost: on_lost(&layers)?,
        restarts: restarts(&layers)?,
        leftover: parsed(&layers, "leftover", leftover)?.unwrap_or(Leftover::Kill),
        busy_exit: parsed(&layers, "busy-exit", exit_code)?,
        message: Some(message).filter(|message| !message.is_empty()),
        url: job.url,
        connect_timeout: connect_timeout(&layers)?,
        output: output(&layers)?,
        report: report(&layers)?,
    })
}

fn doctor(flags: &Flags, name: Option<String>, json: bool, around: &Surroundings) -> Result<Doctor, Failure> {
    let mut layers = layers(flags, around)?;
    let settings = settings(&mut layers)?;
    Ok(Doctor {
        name,
        settings,
        ttl: ttl(&layers)?,
        connect_timeout: connect_timeout(&layers)?,
        json,
        output: output(&layers)?,
    })
}

/// The layers, of which the backend is not chosen yet.
fn layers<'a>(flags: &'a Flags, around: &Surroundings<'a>) -> Result<Layers<'a>, Failure> {
    refuse_reserved(around.environment)?;
    let mut layers = Layers { flags, environment: around.environment, file: File::default(), backend: None };
    layers.file = read_file(&layers, around)?;
    Ok(layers)
}

/// Who sets the variable of an option that is to come takes it for granted.
fn refuse_reserved(environment: Environment) -> Result<(), Failure> {
    for (id, _) in options::RESERVED {
        let variable = options::variable(id);
        if environment(&variable).is_some_and(|value| !value.is_empty()) {
            return Err(
                Failure::usage(format!("{variable}: {}", options::not_available(id))).hint(format!("unset {variable}"))
            );
        }
    }
    Ok(())
}

/// Chooses the backend; how it is reached, with terms of the lease that leave room to renew it.
fn settings(layers: &mut Layers) -> Result<Settings, Failure> {
    let name = server::choose(layers)?;
    layers.backend = Some(name);
    let ttl = ttl(layers)?;
    let settings = server::settings(layers, name, ttl)?;
    room::check(&settings, ttl, asked_grace(layers)?)?;
    Ok(settings)
}

fn ttl(layers: &Layers) -> Result<Duration, Failure> {
    Ok(parsed(layers, "ttl", duration::parse)?.unwrap_or(DEFAULT_TTL))
}

fn asked_grace(layers: &Layers) -> Result<Option<Duration>, Failure> {
    parsed(layers, "grace", duration::parse)
}

fn connect_timeout(layers: &Layers) -> Result<Duration, Failure> {
    Ok(parsed(layers, "connect-timeout", positive)?.unwrap_or(DEFAULT_CONNECT_TIMEOUT))
}

fn read_file(layers: &Layers, around: &Surroundings) -> Result<File, Failure> {
    let named = layers.get("config");
    let path = named.as_ref().map_or_else(|| around.default_file.clone(), Value::path);
    File::read(&path, named.as_ref())
}

/// The option's value as `parse` reads it, if anything sets it.
fn parsed<T>(layers: &Layers, id: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
    layers.get(id).map(|value| value.parse(parse)).transpose()
}

fn argv(mut command: Vec<OsString>, shell: bool) -> Result<Vec<OsString>, Failure> {
    if !shell {
        return Ok(command);
    }
    if command.len() > 1 {
        let failure = Failure::usage(format!("--shell takes one word, and COMMAND has {}", command.len()));
        let plain = command.iter().all(|word| cli::quote(word) == word.to_string_lossy());
        let word = command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        return Err(if plain {
            failure.hint(format!("put it in quotes: {}", cli::quote(word.as_ref())))
        } else {
            failure
                .hint("leave --shell out to run these words as they are, or give a line of shell in one pair of quotes")
        });
    }
    command.splice(0..0, ["/bin/sh".into(), "-c".into()]);
    Ok(command)
}

fn wait(layers: &Layers) -> Result<Option<Duration>, Failure> {
    match layers.stronger("try", "wait")? {
        None => Ok(None),
        Some((option, _)) if option.id == "try" => Ok(Some(Duration::ZERO)),
        Some((_, value)) => value.parse(|text| match text {
            "forever" => Ok(None),
            text => duration::parse(text).map(Some).map_err(|why| format!("{why}, and not forever")),
        }),
    }
}

fn output(layers: &Layers) -> Result<Output, Failure> {
    let stronger = layers.stronger("verbose", "quiet")?.map(|(option, _)| option.id);
    let format = format(layers)?;
    let ci = ci::recognised(layers.environment);
    Ok(Output { verbose: stronger == Some("verbose"), quiet: stronger == Some("quiet"), format, ci })
}

fn format(layers: &Layers) -> Result<Format, Failure> {
    let format = parsed(layers, "log-format", |text| match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("`{text}` is not one of text, json")),
    })?;
    Ok(format.unwrap_or(Format::Text))
}

fn report(layers: &Layers) -> Result<Option<Target>, Failure> {
    layers.get("report").map(|value| Target::parse(&value.text).map_err(|why| value.refuse(why))).transpose()
}

fn on_lost(layers: &Layers) -> Result<OnLost, Failure> {
    let action = parsed(layers, "on-lost", |text| match text {
        "kill" => Ok(OnLost::Kill),
        "restart" => Ok(OnLost::Restart),
        "relock" => Ok(OnLost::Relock),
        _ => Err(format!("`{text}` is not one of kill, restart, relock")),
    })?;
    Ok(action.unwrap_or(OnLost::Kill))
}

fn restarts(layers: &Layers) -> Result<Option<u32>, Failure> {
    let restarts =
        parsed(layers, "restarts", |text| text.parse().map_err(|_| format!("`{text}` is not a number of runs")))?;
    if restarts.is_some() && on_lost(layers)? != OnLost::Restart {
        return Err(Failure::usage("--restarts bounds what --on-lost restart does, and that is not asked for")
            .hint("add --on-lost restart, or leave --restarts out"));
    }
    Ok(restarts)
}

fn leftover(text: &str) -> Result<Leftover, String> {
    match text {
        "kill" => Ok(Leftover::Kill),
        "wait" => Ok(Leftover::Wait),
        "leave" => Ok(Leftover::Leave),
        _ => Err(format!("`{text}` is not one of kill, wait, leave")),
    }
}

fn exit_code(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("`{text}` is not an exit code from 0 to 255"))
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("has to be longer than nothing".to_owned()),
        duration => Ok(duration),
    }
}
