//! Subcommands: one file each.
//!
//! Owns the dispatch and the steps of each subcommand; the work is done below. May import everything.
//!
//! Invariants: each failure is printed once and gets the exit code of the table in `exit`. Once the command line is parsed,
//! `--report` gets every outcome.

mod completions;
mod doctor;
mod ending;
mod lookup;
mod man;
mod password;
mod run;
mod stdout;

use std::process::ExitCode;

use nix::sys::signal::Signal;

use distlock_core::error::Failure;
use distlock_core::messages::Verdict;

use crate::config::{self, Environment, FailureOutput, Invocation};
use crate::report::output::{Format, Output};
use crate::report::tally::Facts;
use crate::report::{Report, Reporter};
use crate::sys::process;
use crate::{cli, exit};

/// Runs distlock as the command line asks, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // Without SIGXFSZ, a write beyond the file size limit fails like one to a full disk.
    process::ignore(&[Signal::SIGXFSZ]);
    let environment = Environment::of_process();
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(failure) => return ending::fail(&failure, &mut failure_reporter(config::default_format(&environment))),
    };
    let output = config::failure_output(&request, &environment);
    match config::resolve(request, &environment) {
        Ok(invocation) => {
            dispatch(invocation).unwrap_or_else(|failure| ending::fail(&failure, &mut failure_reporter(output.format)))
        }
        Err(failure) => refuse(output, failure),
    }
}

/// Prints a failure of the configuration, writes it to `--report`, and returns its exit code.
fn refuse(output: FailureOutput, failure: Failure) -> ExitCode {
    let mut reporter = failure_reporter(output.format);
    let exit = ending::fail(&failure, &mut reporter);
    let Some(target) = output.report else { return exit };
    let code = exit::code(failure.kind);
    let verdict = Verdict::Failed(failure);
    let written = Report::open(&target, output.name, output.backend)
        .and_then(|report| report.write(&verdict, code, &Facts::default()));
    if let Err(failure) = written {
        reporter.report_failed(&failure);
    }
    exit
}

/// Returns a reporter for failures outside of a job. Its output follows no other option than the format.
fn failure_reporter(format: Format) -> Reporter {
    Reporter::new(Output { verbose: false, quiet: false, format, ci: false })
}

fn dispatch(invocation: Invocation) -> Result<ExitCode, Failure> {
    match invocation {
        Invocation::Run(run) => Ok(run::run(*run)),
        Invocation::Doctor(doctor) => doctor::doctor(*doctor),
        Invocation::Completions(shell) => stdout::print(&completions::script(shell)),
        Invocation::ShortHelp => stdout::print(cli::help::short().as_bytes()),
        Invocation::Man => stdout::print(&man::page()),
        Invocation::Help(text) => stdout::result(text.print()),
    }
}
