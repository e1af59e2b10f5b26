//! What is printed, in which format, and where the outcome is reported.

use distlock_core::error::Failure;

use super::ci;
use super::environment::Environment;
use super::sources::Sources;
use crate::cli::{Flags, Request};
use crate::lock::BackendName;
use crate::report::output::{Format, Output};
use crate::report::target::Target;

/// How to report a failure outside of a resolved configuration. Settings with wrong values count as not given.
#[derive(Debug)]
pub(crate) struct FailureOutput {
    pub format: Format,
    pub report: Option<Target>,
    /// Name of the lock.
    pub name: Option<String>,
    pub backend: Option<BackendName>,
}

/// Returns the format of events if the command line cannot be parsed.
#[must_use]
pub(crate) fn default_format(environment: &Environment) -> Format {
    let flags = Flags::default();
    format(&Sources::without_file(&flags, environment)).unwrap_or(Format::Text)
}

/// Returns how to report a failure of this request's configuration.
#[must_use]
pub(crate) fn failure_output(request: &Request, environment: &Environment) -> FailureOutput {
    let none = Flags::default();
    let (flags, name) = match request {
        Request::Run(flags, command) => (flags, Some(command.name.clone())),
        Request::Doctor { flags, .. }
        | Request::ShortHelp(flags)
        | Request::Completions(flags, _)
        | Request::Man(flags) => (flags, None),
        Request::Help(_) => (&none, None),
    };
    let sources = Sources::without_file(flags, environment);
    FailureOutput {
        format: format(&sources).unwrap_or(Format::Text),
        report: report(&sources).ok().flatten(),
        name,
        backend: sources.text("backend").ok().flatten().and_then(|name| BackendName::parse(&name)),
    }
}

pub(super) fn output(sources: &Sources) -> Result<Output, Failure> {
    let applicable = sources.applicable("verbose", "quiet")?.map(|(option, _)| option.id);
    Ok(Output {
        verbose: applicable == Some("verbose"),
        quiet: applicable == Some("quiet"),
        format: format(sources)?,
        ci: ci::is_ci(sources.variables),
    })
}

pub(super) fn report(sources: &Sources) -> Result<Option<Target>, Failure> {
    sources.get("report").map(|value| Target::parse(&value.text).map_err(|why| value.refuse(why))).transpose()
}

fn format(sources: &Sources) -> Result<Format, Failure> {
    let format = sources.parse("log-format", |text| match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("`{text}` is not one of text, json")),
    })?;
    Ok(format.unwrap_or(Format::Text))
}
