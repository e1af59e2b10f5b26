//! The command's process: its start, its end, and the waking of the supervisor when it is continued.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;

use distlock_core::error::{Failure, Kind, chain};
use distlock_core::keeper::Event;
use distlock_core::messages::{FromKeeper, Verdict};
use distlock_core::signal::Signal;

use super::shell::Keeper;
use crate::lock::{BackendName, PreparedBackend, handle};
use crate::sys::clock;
use crate::sys::process::{Spawn, exec_error, exec_status_pipe};
use crate::sys::tree::{Change, parent_is_stopped};

/// How long to look for a stopped supervisor after the command was continued, and how often.
const WAKE_PARENT: Duration = Duration::from_millis(500);
pub(super) const LOOK_AT_PARENT: Duration = Duration::from_millis(50);

impl Keeper<'_> {
    /// Forks the command. A later event reports whether its program was executed.
    pub(super) fn start(&mut self) -> Option<Event> {
        let forked = self.fork_command();
        if !self.job.reruns {
            self.detach();
        }
        let error = forked.err()?;
        // No process exists, so none will be reaped.
        let empty = self.tree.reap().is_ok_and(|reaped| reaped.empty);
        self.queued_events.push_back(Event::Reaped { command: None, empty });
        let mut failure = Failure::fault("cannot create the command's process");
        failure.causes = chain(error.as_ref());
        Some(Event::NotStarted(failure))
    }

    fn fork_command(&mut self) -> anyhow::Result<()> {
        let variables = self.variables();
        let passed_descriptor = match &self.job.prepared {
            PreparedBackend::Local(file) => Some(file.as_fd()),
            _ => None,
        };
        let spawn = Spawn {
            argv: &self.job.argv,
            variables: &variables,
            group: self.job.group,
            passed_descriptor,
            inherited: &self.job.inherited,
        };
        let (receiver, exec_status) = exec_status_pipe().context("cannot create a pipe")?;
        // Everything that can fail comes before the fork.
        let receiver = pipe::Receiver::from_owned_fd(receiver).context("cannot register a pipe")?;
        self.command = Some(spawn.start(&exec_status)?);
        self.exec_status = Some(receiver);
        Ok(())
    }

    /// Returns whether the program was executed, if that is known by now.
    pub(super) fn read_exec_status(&mut self) -> Option<Event> {
        let mut status = [0; 4];
        let event = match self.exec_status.as_ref()?.try_read(&mut status) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(length) if length > 0 => {
                // This process is about to exit and never became the command.
                self.command = None;
                Event::NotStarted(not_executed(&self.job.argv, &exec_error(&status[..length])))
            }
            // A command that was killed before the exec counts as started and ended.
            _ => Event::Started,
        };
        self.exec_status = None;
        Some(event)
    }

    /// Returns the variables that describe the lock to the command.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let (Some(backend), Some((token, key))) = (self.job.backend, &self.token_and_key) else { return Vec::new() };
        let name = &self.job.spec.name;
        let lease_id = self.requests.lease_id();
        let mut variables = vec![
            ("DISTLOCK_FENCING_TOKEN", token.to_string()),
            ("DISTLOCK_HANDLE", handle::of_running(backend, lease_id.as_deref(), *token, name)),
            ("DISTLOCK_HELD_NAME", name.clone()),
            ("DISTLOCK_HELD_BACKEND", backend.to_string()),
            ("DISTLOCK_HELD_KEY", key.clone()),
        ];
        match backend {
            BackendName::Etcd => {
                variables.extend([("ETCD_LOCK_KEY", key.clone()), ("ETCD_LOCK_REV", token.to_string())]);
            }
            BackendName::Consul => variables.push(("CONSUL_LOCK_HELD", "true".into())),
            BackendName::Local => {}
        }
        variables
    }

    pub(super) fn reap(&mut self) -> anyhow::Result<Event> {
        let reaped = self.tree.reap().context("cannot reap child processes")?;
        let mut ended = None;
        let command = self.command;
        for (_, change) in reaped.changes.into_iter().filter(|(pid, _)| Some(*pid) == command) {
            match change {
                Change::Exited(code) => ended = Some(Verdict::Exited(code)),
                Change::Signaled(signal) => ended = Some(Verdict::Signaled(Signal::from_number(signal))),
                // The freeze stopped it, not the user: the job is not suspended.
                Change::Stopped(_) if self.frozen => {}
                Change::Stopped(signal) => {
                    self.wake_parent_until = None;
                    self.send(FromKeeper::Stopped(Signal::from_number(signal)));
                }
                Change::Continued => {
                    self.wake_parent_until = Some(clock::now() + WAKE_PARENT);
                    self.send(FromKeeper::Continued);
                }
            }
        }
        if ended.is_some() {
            self.command = None;
            // The start is reported before the end.
            if let Some(start) = self.read_exec_status() {
                let ended = ended.filter(|_| matches!(start, Event::Started));
                self.queued_events.push_back(Event::Reaped { command: ended, empty: reaped.empty });
                return Ok(start);
            }
        }
        Ok(Event::Reaped { command: ended, empty: reaped.empty })
    }

    /// Continues a stopped supervisor after another process continued the command, but not the whole job. The supervisor may
    /// be about to stop, so this is repeated for a while.
    pub(super) fn wake_parent(&mut self) {
        let Some(until) = self.wake_parent_until else { return };
        if self.orphaned || clock::now() >= until {
            self.wake_parent_until = None;
        } else if parent_is_stopped() {
            self.wake_parent_until = None;
            let _ = kill(Pid::parent(), NixSignal::SIGCONT);
        }
    }
}

/// Returns the failure of a program that was found before the lock was acquired but cannot be executed now.
fn not_executed(argv: &[OsString], error: &io::Error) -> Failure {
    let program = argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let kind = match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::NotExecutable,
    };
    let mut failure = Failure::new(kind, format!("cannot execute {program}"));
    failure.causes = chain(error);
    failure
}
