//! The command's process: its start, what becomes of it, and its parent's waking.

use crate::sys::clock;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::Duration;

use distlock_core::signal::Signal;
use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;

use super::Keeper;
use crate::lock::handle;
use crate::lock::{Name, Prepared};
use crate::sys::process::{Spawn, exec_error, report_pipe};
use crate::sys::tree::{Change, Tree};
use distlock_core::error::{Failure, Kind, chain};
use distlock_core::keeper::Event;
use distlock_core::messages::{FromKeeper, Verdict};

/// For how long a supervisor is woken that stops although the command goes on, and how often it is looked at.
const WAKE_PARENT: Duration = Duration::from_millis(500);
pub(super) const LOOK_AT_PARENT: Duration = Duration::from_millis(50);

impl Keeper<'_> {
    /// Forks the command. Whether its program can be executed is told later.
    pub(super) fn start(&mut self) -> Option<Event> {
        let forked = self.fork_command();
        if !self.job.reruns {
            self.detach();
        }
        let error = forked.err()?;
        // There is no process, whose end would be told.
        let empty = self.tree.reap().is_ok_and(|reaped| reaped.empty);
        self.seen.push_back(Event::Reaped { command: None, empty });
        Some(Event::NotStarted(Failure::fault("the system gave no process for the command").because(error)))
    }

    fn fork_command(&mut self) -> std::io::Result<()> {
        let variables = self.variables();
        let holds = match &self.job.prepared {
            Prepared::Local(file) => Some(file.as_fd()),
            _ => None,
        };
        let spawn = Spawn {
            argv: &self.job.argv,
            set: &variables,
            group: self.job.group,
            holds,
            inherited: &self.job.inherited,
        };
        let (outcome, report) = report_pipe()?;
        // All that can fail comes before the fork.
        let outcome = pipe::Receiver::from_owned_fd(outcome)?;
        self.command = Some(spawn.start(&report)?);
        self.starting = Some(outcome);
        Ok(())
    }

    /// What became of the start, if it is known by now.
    pub(super) fn outcome(&mut self) -> Option<Event> {
        let mut report = [0; 4];
        let event = match self.starting.as_ref()?.try_read(&mut report) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Ok(length) if length > 0 => {
                // Its process is about to end, and was never the command.
                self.command = None;
                Event::NotStarted(not_started(&self.job.argv, &exec_error(&report[..length])))
            }
            // A command that was killed before its program was executed has started and ended.
            _ => Event::Started,
        };
        self.starting = None;
        Some(event)
    }

    /// Closes what was inherited, once: the numbers may be others' afterwards.
    pub(super) fn detach(&mut self) {
        if !std::mem::replace(&mut self.detached, true) {
            self.job.inherited.close(&[]);
        }
    }

    /// What the command's environment tells of the lock.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let (Some(backend), Some((token, key))) = (self.job.backend, &self.place) else { return Vec::new() };
        let name = &self.job.want.name;
        let mut variables = vec![
            ("DISTLOCK_FENCING_TOKEN", token.to_string()),
            ("DISTLOCK_HANDLE", handle::of_running(backend, self.backend.lease_id().as_deref(), *token, name)),
            ("DISTLOCK_HELD_NAME", name.clone()),
            ("DISTLOCK_HELD_BACKEND", backend.to_string()),
            ("DISTLOCK_HELD_KEY", key.clone()),
        ];
        match backend {
            Name::Etcd => variables.extend([("ETCD_LOCK_KEY", key.clone()), ("ETCD_LOCK_REV", token.to_string())]),
            Name::Consul => variables.push(("CONSUL_LOCK_HELD", "true".into())),
            Name::Local => {}
        }
        variables
    }

    pub(super) fn reap(&mut self) -> std::io::Result<Event> {
        let reaped = self.tree.reap()?;
        let mut ended = None;
        let command = self.command;
        for (_, change) in reaped.changes.into_iter().filter(|(pid, _)| Some(*pid) == command) {
            match change {
                Change::Exited(code) => ended = Some(Verdict::Exited(code)),
                Change::Signaled(signal) => ended = Some(Verdict::Signaled(Signal::from_number(signal))),
                // What was frozen is no job that the user stopped.
                Change::Stopped(_) if self.frozen => {}
                Change::Stopped(signal) => {
                    self.waking = None;
                    self.post(FromKeeper::Stopped(Signal::from_number(signal)));
                }
                Change::Continued => {
                    self.waking = Some(clock::now() + WAKE_PARENT);
                    self.post(FromKeeper::Continued);
                }
            }
        }
        if ended.is_some() {
            self.command = None;
            // How it started is told before how it ended.
            if let Some(outcome) = self.outcome() {
                let ended = ended.filter(|_| matches!(outcome, Event::Started));
                self.seen.push_back(Event::Reaped { command: ended, empty: reaped.empty });
                return Ok(outcome);
            }
        }
        Ok(Event::Reaped { command: ended, empty: reaped.empty })
    }

    /// Somebody let the command go on and not the job, so the supervisor would stay behind for ever. It may be about to
    /// stop, so this looks again for a while.
    pub(super) fn wake_parent(&mut self) {
        let Some(until) = self.waking else { return };
        if self.orphaned || clock::now() >= until {
            self.waking = None;
        } else if Tree::parent_is_stopped() {
            self.waking = None;
            let _ = kill(Pid::parent(), NixSignal::SIGCONT);
        }
    }
}

/// A command that could not be executed although it was found before the lock was taken.
fn not_started(argv: &[OsString], error: &std::io::Error) -> Failure {
    let program = argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::NotExecutable,
    };
    let mut failure = Failure::new(kind, format!("cannot execute {program}"));
    failure.causes = chain(error);
    failure
}
