//! Configuration: flags, environment and configuration file become one checked [`Invocation`].
//!
//! Owns the precedence of the sources, the defaults, and the interpretation of the values. May import `cli`, `report`, `lock`
//! and `distlock_core`.
//!
//! Invariants: a value that does not parse is a usage failure (exit 64) that names its origin. A flag that the chosen backend
//! does not have is refused, not ignored. A lease whose renewal window is too short is refused before anything runs (rule 3).

mod ci;
mod endpoints;
mod environment;
mod file;
mod identity;
mod invocation;
mod lease_terms;
mod output;
mod run;
mod server;
mod signal;
mod sources;
#[cfg(test)]
mod tests;
mod value;

use distlock_core::error::Failure;

use crate::cli::{Flags, Request};

pub(crate) use environment::Environment;
pub(crate) use invocation::{Doctor, Invocation, Run};
pub(crate) use output::{FailureOutput, default_format, failure_output};
use sources::Sources;

/// Checks the request and resolves its settings.
///
/// # Errors
///
/// A usage failure. If one value is the cause, it names its flag, variable or key.
pub(crate) fn resolve(request: Request, environment: &Environment) -> Result<Invocation, Failure> {
    Ok(match request {
        Request::ShortHelp(_) => Invocation::ShortHelp,
        Request::Help(text) => Invocation::Help(text),
        Request::Completions(_, shell) => Invocation::Completions(shell),
        Request::Man(_) => Invocation::Man,
        Request::Doctor { flags, name, json } => Invocation::Doctor(Box::new(doctor(&flags, name, json, environment)?)),
        Request::Run(flags, command) => Invocation::Run(Box::new(run::resolve(&flags, command, environment)?)),
    })
}

fn doctor(flags: &Flags, name: Option<String>, json: bool, environment: &Environment) -> Result<Doctor, Failure> {
    let mut sources = Sources::read(flags, environment)?;
    Ok(Doctor {
        name,
        settings: server::resolve(&mut sources)?,
        ttl: lease_terms::ttl(&sources)?,
        connect_timeout: server::connect_timeout(&sources)?,
        json,
        output: output::output(&sources)?,
    })
}
