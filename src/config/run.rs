//! Configuration of `run`.

use std::ffi::OsString;
use std::time::Duration;

use distlock_core::duration;
use distlock_core::error::Failure;
use distlock_core::plan::{Leftover, OnLost};
use distlock_core::signal::Signal;

use super::environment::Environment;
use super::invocation::Run;
use super::sources::Sources;
use super::{ci, lease_terms, output, server, signal};
use crate::cli::{self, Flags, NamedCommand};

/// Checks and resolves the options of `run`.
pub(super) fn resolve(flags: &Flags, command: NamedCommand, environment: &Environment) -> Result<Run, Failure> {
    let mut sources = Sources::read(flags, environment)?;
    let settings = if sources.is_on("no-lock")? { None } else { Some(server::resolve(&mut sources)?) };
    let job = ci::job(environment.variables).unwrap_or_default();
    let message = sources.text("message")?.unwrap_or(job.name);
    let is_shell = sources.is_on("shell")?;
    Ok(Run {
        argv: argv(command.command, is_shell)?,
        name: command.name,
        endpoints_origin: settings
            .as_ref()
            .map(|settings| server::endpoints_origin(&sources, settings.name()))
            .unwrap_or_default(),
        settings,
        ttl: lease_terms::ttl(&sources)?,
        grace: lease_terms::grace(&sources)?,
        wait: wait(&sources)?,
        signal: sources.parse("signal", signal::parse)?.unwrap_or(Signal::SIGTERM),
        on_lost: on_lost(&sources)?,
        restarts: restarts(&sources)?,
        leftover: sources.parse("leftover", leftover)?.unwrap_or(Leftover::Kill),
        busy_exit: sources.parse("busy-exit", exit_code)?,
        message: Some(message).filter(|message| !message.is_empty()),
        url: job.url,
        connect_timeout: server::connect_timeout(&sources)?,
        output: output::output(&sources)?,
        report: output::report(&sources)?,
    })
}

fn argv(mut command: Vec<OsString>, is_shell: bool) -> Result<Vec<OsString>, Failure> {
    if !is_shell {
        return Ok(command);
    }
    if command.len() > 1 {
        let failure = Failure::usage(format!("--shell takes one word, but COMMAND has {}", command.len()));
        let is_plain = command.iter().all(|word| cli::quote(word) == word.to_string_lossy());
        let line = command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        return Err(if is_plain {
            failure.hint(format!("put it in quotes: {}", cli::quote(line.as_ref())))
        } else {
            failure.hint("remove --shell to run these words as they are, or quote the whole shell line as one word")
        });
    }
    command.splice(0..0, ["/bin/sh".into(), "-c".into()]);
    Ok(command)
}

fn wait(sources: &Sources) -> Result<Option<Duration>, Failure> {
    match sources.applicable("try", "wait")? {
        None => Ok(None),
        Some((option, _)) if option.id == "try" => Ok(Some(Duration::ZERO)),
        Some((_, value)) => value.parse(|text| match text {
            "forever" => Ok(None),
            text => duration::parse(text).map(Some).map_err(|why| format!("{why}, nor `forever`")),
        }),
    }
}

fn on_lost(sources: &Sources) -> Result<OnLost, Failure> {
    let action = sources.parse("on-lost", |text| match text {
        "kill" => Ok(OnLost::Kill),
        "restart" => Ok(OnLost::Restart),
        "relock" => Ok(OnLost::Relock),
        _ => Err(format!("`{text}` is not one of kill, restart, relock")),
    })?;
    Ok(action.unwrap_or(OnLost::Kill))
}

fn restarts(sources: &Sources) -> Result<Option<u32>, Failure> {
    let restarts =
        sources.parse("restarts", |text| text.parse().map_err(|_| format!("`{text}` is not a number of restarts")))?;
    if restarts.is_some() && on_lost(sources)? != OnLost::Restart {
        return Err(
            Failure::usage("--restarts needs --on-lost restart").hint("add --on-lost restart, or remove --restarts")
        );
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
