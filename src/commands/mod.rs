//! What distlock can be asked to do, one module each.

mod completions;
mod doctor;
mod lookup;
mod man;
mod password;
mod run;

use std::io::{self, Write};
use std::process::ExitCode;

use nix::sys::signal::Signal;

use crate::config::{self, Invocation, Stated, Surroundings};
use crate::report::output::{Format, Output};
use crate::report::tally::Facts;
use crate::report::{Report, Reporter};
use crate::sys::process;
use crate::{cli, exit};
use distlock_core::error::Failure;
use distlock_core::messages::Verdict;

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

/// Reads the command line, does what it asks for, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // A limit on the size of files is an error like a full disk, no reason to die.
    process::ignore(&[Signal::SIGXFSZ]);
    let around = Surroundings::of_process();
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        // The line cannot be read, so nothing says where to report.
        Err(failure) => return fail(&failure, &mut reporter(config::default_format(&around))),
    };
    let stated = config::stated(&request, &around);
    match config::resolve(request, &around) {
        Ok(invocation) => dispatch(invocation).unwrap_or_else(|failure| fail(&failure, &mut reporter(stated.format))),
        Err(failure) => refuse(stated, failure),
    }
}

fn fail(failure: &Failure, reporter: &mut Reporter) -> ExitCode {
    let exit = exit::code(failure.kind);
    reporter.failure(failure, exit);
    ExitCode::from(exit)
}

/// Ends with what is wrong about the configuration, and reports it if the command line says where.
fn refuse(stated: Stated, failure: Failure) -> ExitCode {
    let mut reporter = reporter(stated.format);
    let exit = fail(&failure, &mut reporter);
    let Some(target) = stated.report else { return exit };
    let code = exit::code(failure.kind);
    let verdict = Verdict::Failed(failure);
    let written = Report::open(&target, stated.name, stated.backend)
        .and_then(|report| report.write(&verdict, code, &Facts::default()));
    if let Err(failure) = written {
        reporter.unreported(&failure);
    }
    exit
}

/// Returns a reporter for errors that come before the output is configured.
fn reporter(format: Format) -> Reporter {
    Reporter::new(Output { verbose: false, quiet: false, format, ci: false })
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
