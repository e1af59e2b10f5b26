//! What distlock can be asked to do, one module each.

mod completions;
mod doctor;
mod lookup;
mod man;
mod run;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{self, Invocation, Surroundings};
use crate::error::{Failure, Kind};
use crate::{exit, report};

/// Understands the command line, does what it asks for, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    match config::resolve(std::env::args_os(), &Surroundings::of_process()).and_then(dispatch) {
        Ok(code) => code,
        Err(failure) => {
            match failure.kind {
                Kind::Interrupted(signal) => run::die_as_the_command(signal),
                _ => report::failure(&failure),
            }
            ExitCode::from(exit::code(failure.kind))
        }
    }
}

fn dispatch(invocation: Invocation) -> Result<ExitCode, Failure> {
    match invocation {
        Invocation::Run(run) => Ok(run::run(*run)),
        Invocation::Doctor(doctor) => doctor::doctor(&doctor),
        Invocation::Completions(shell) => print(&completions::script(shell)),
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
