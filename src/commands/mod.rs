//! What distlock can be asked to do, one module each.

mod completions;
mod doctor;
mod lookup;
mod man;
mod password;
mod run;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use nix::sys::signal::Signal;

use crate::backend::Name;
use crate::cli::options::variable;
use crate::cli::salvage::{Salvaged, salvage};
use crate::config::{self, Format, Invocation, Output, Surroundings, Target};
use crate::error::Failure;
use crate::link::Verdict;
use crate::process;
use crate::report::{Report, Reporter};
use crate::supervisor::tally::Facts;
use crate::{cli, exit};

/// An end before anything ran.
#[derive(Debug)]
struct Early {
    failure: Failure,
    /// The user ended it from the keyboard, so a shell's loop is to stop.
    keyboard: bool,
}

impl From<Failure> for Early {
    fn from(failure: Failure) -> Self {
        Self { failure, keyboard: false }
    }
}

/// Understands the command line, does what it asks for, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    // A limit on the size of files is an error like a full disk, no reason to die.
    process::ignore(&[Signal::SIGXFSZ]);
    let line: Vec<OsString> = std::env::args_os().collect();
    match config::resolve(line.iter().cloned(), &Surroundings::of_process()) {
        Ok(invocation) => dispatch(invocation).unwrap_or_else(|failure| fail(&failure, &mut reporter(&salvage(&line)))),
        Err(failure) => refuse(&line, failure),
    }
}

fn fail(failure: &Failure, reporter: &mut Reporter) -> ExitCode {
    let exit = exit::code(failure.kind);
    reporter.failure(failure, exit);
    ExitCode::from(exit)
}

/// Ends with what is wrong about a command line or its configuration.
fn refuse(line: &[OsString], failure: Failure) -> ExitCode {
    let said = salvage(line);
    let mut reporter = reporter(&said);
    let exit = fail(&failure, &mut reporter);
    report_refusal(said, failure, &mut reporter);
    exit
}

/// Tells what came of a line that may not have been understood, in the form that it asks for all the same.
fn reporter(said: &Salvaged) -> Reporter {
    let format =
        if setting(said, "log-format").is_some_and(|asked| asked == "json") { Format::Json } else { Format::Text };
    Reporter::new(Output { verbose: false, quiet: false, format, ci: false })
}

/// What the line or the variable says.
fn setting(said: &Salvaged, id: &str) -> Option<OsString> {
    said.value(id).map(OsStr::to_owned).or_else(|| std::env::var_os(variable(id)))
}

/// Whoever relies on a report gets one of a refused command line, too.
fn report_refusal(said: Salvaged, failure: Failure, reporter: &mut Reporter) {
    // A target that makes no sense is what was refused.
    let Some(target) = said.value("report").and_then(|value| Target::parse(value).ok()) else { return };
    let backend = setting(&said, "backend").and_then(|name| Name::of(name.to_str()?));
    let exit = exit::code(failure.kind);
    let verdict = Verdict::Failed(failure);
    let written =
        Report::open(&target, said.name, backend).and_then(|report| report.write(&verdict, exit, &Facts::default()));
    if let Err(failure) = written {
        reporter.unreported(&failure);
    }
}

fn dispatch(invocation: Invocation) -> Result<ExitCode, Failure> {
    match invocation {
        Invocation::Run(run) => Ok(run::run(*run)),
        Invocation::Doctor(doctor) => doctor::doctor(*doctor),
        Invocation::Completions(shell) => print(&completions::script(shell)),
        Invocation::ShortHelp => print(cli::help::short().as_bytes()),
        Invocation::Man => print(&man::page().map_err(|error| cannot_write(&error))?),
        Invocation::Help(text) => text.print().map(|()| ExitCode::SUCCESS).or_else(|error| unless_closed(&error)),
    }
}

fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text)
        .and_then(|()| stdout.flush())
        .map(|()| ExitCode::SUCCESS)
        .or_else(|error| unless_closed(&error))
}

/// A reader that has seen enough, as `head` has, is no error.
fn unless_closed(error: &io::Error) -> Result<ExitCode, Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(ExitCode::SUCCESS) } else { Err(cannot_write(error)) }
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::fault("cannot write to stdout").because(error)
}
