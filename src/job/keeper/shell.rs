//! State of the keeper's process around the machine that decides.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use distlock_core::keeper::{Event, Machine};
use distlock_core::messages::{Account, FromKeeper, Notice, Usage, Verdict};
use distlock_core::time::Instant;

use super::requests::Requests;
use crate::job::fault::fault;
use crate::job::link::Link;
use crate::job::spec::Job;
use crate::job::witness::DeadlineSender;
use crate::lock::LogFn;
use crate::sys::clock::{self, Alarm};
use crate::sys::process::register;
use crate::sys::signals;
use crate::sys::tree::Tree;

pub(super) struct Keeper<'a> {
    pub job: &'a Job,
    pub machine: Machine,
    pub requests: Requests,
    pub link: AsyncFd<Link<FromKeeper>>,
    /// The supervisor's end of the link is closed.
    pub orphaned: bool,
    pub deadline_sender: Option<DeadlineSender>,
    pub alarm: AsyncFd<Alarm>,
    pub sigchld: AsyncFd<SignalFd>,
    pub tree: Tree,
    pub frozen: bool,
    /// The command's first process.
    pub command: Option<Pid>,
    /// Reads whether the program was executed, until that is known.
    pub exec_status: Option<pipe::Receiver>,
    /// When to stop looking whether the supervisor has stopped although the command was continued.
    pub wake_parent_until: Option<Instant>,
    /// The inherited descriptors are closed in this process.
    pub detached: bool,
    /// Events that were observed together with the previous one.
    pub queued_events: VecDeque<Event>,
    pub account: Account,
    /// Fencing token and key of the held lock.
    pub token_and_key: Option<(u64, String)>,
    pub log: LogFn,
    log_lines: Rc<RefCell<Vec<String>>>,
    lease_id: Option<String>,
}

impl<'a> Keeper<'a> {
    /// Must be called in the runtime. An error is sent to the supervisor as the verdict, because no command can run yet.
    pub(super) fn new(
        job: &'a Job,
        mut link: Link<FromKeeper>,
        deadline_sender: Option<DeadlineSender>,
        tree: Tree,
    ) -> anyhow::Result<Self> {
        let log_lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&log_lines);
        let log: LogFn = Rc::new(move |line| sink.borrow_mut().push(line));
        let requests = match job.prepared.contender(job.spec.clone(), log.clone()) {
            Ok(backend) => Requests::new(backend),
            Err(failure) => {
                link.send(FromKeeper::Done { verdict: Verdict::Failed(failure.clone()), lingers: false });
                return Err(failure.into());
            }
        };
        let (alarm, sigchld) = open_descriptors().inspect_err(|error| report_fault(&mut link, error))?;
        let link = register(link).map_err(|error| {
            let (mut link, error) = error.into_parts();
            let error = anyhow::Error::new(error).context("cannot register the link");
            report_fault(&mut link, &error);
            error
        })?;
        Ok(Self {
            job,
            machine: Machine::new(job.plan.clone(), clock::now()),
            requests,
            link,
            orphaned: false,
            deadline_sender,
            alarm,
            sigchld,
            tree,
            frozen: false,
            command: None,
            exec_status: None,
            wake_parent_until: None,
            detached: false,
            queued_events: VecDeque::new(),
            account: Account { renewals: 0, command: None, usage: Usage::default() },
            token_and_key: None,
            log,
            log_lines,
            lease_id: None,
        })
    }

    pub(super) fn send(&mut self, message: FromKeeper) {
        if let (Some(sender), Some(kill_at)) = (&self.deadline_sender, message.kill_at()) {
            sender.send(kill_at);
        }
        self.link.get_mut().send(message);
    }

    /// Sends the backend's log lines, and the id of a new lease.
    pub(super) fn send_backend_updates(&mut self) {
        let lines = std::mem::take(&mut *self.log_lines.borrow_mut());
        for line in lines {
            self.send(FromKeeper::Notice(Notice::Note(line)));
        }
        let lease_id = self.requests.lease_id();
        if lease_id != self.lease_id {
            self.lease_id.clone_from(&lease_id);
            if let Some(lease_id) = lease_id {
                self.send(FromKeeper::Lease(lease_id));
            }
        }
    }

    /// Closes the inherited descriptors, at most once: later the same numbers belong to others.
    pub(super) fn detach(&mut self) {
        if !std::mem::replace(&mut self.detached, true) {
            self.job.inherited.close(&[]);
        }
    }
}

fn open_descriptors() -> anyhow::Result<(AsyncFd<Alarm>, AsyncFd<SignalFd>)> {
    let alarm = Alarm::new().context("cannot create the keeper's timer")?;
    let sigchld = signals::set([Signal::SIGCHLD]);
    let sigchld = SignalFd::with_flags(&sigchld, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("cannot create the keeper's signal descriptor")?;
    let register_error = "cannot register the keeper's descriptors";
    Ok((register(alarm).context(register_error)?, register(sigchld).context(register_error)?))
}

/// Sends a failure of the start as the verdict.
pub(super) fn report_fault(link: &mut Link<FromKeeper>, error: &anyhow::Error) {
    link.send(FromKeeper::Done { verdict: Verdict::Failed(fault(error)), lingers: false });
}
