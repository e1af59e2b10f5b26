//! The keeper: the asynchronous process that holds the lock and is the parent of the process tree.
//!
//! [`distlock_core::keeper`] decides and this directory acts: it sends the backend's requests (`requests`), starts and reaps
//! the command (`child`), and reports to the supervisor (`shell`). This file is the event loop.
//! Invariants: nothing here waits for the supervisor before the tree is empty, or writes to the user's descriptors (rule 7);
//! deadlines are handled before any other event.

mod child;
mod requests;
mod shell;

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::{Pid, setpgid};

use distlock_core::error::Kind;
use distlock_core::keeper::{Action, Event};
use distlock_core::messages::{FromKeeper, FromSupervisor, Notice, Verdict};
use distlock_core::outcome::Position;

use self::child::LOOK_AT_PARENT;
use self::shell::{Keeper, report_fault};
use crate::exit;
use crate::job::link::{Link, Received};
use crate::job::spec::Job;
use crate::job::witness::DeadlineSender;
use crate::sys::process::{ProcessGroup, ignore, rename, restore_default};
use crate::sys::runtime::Runtime;
use crate::sys::tree::{Tree, usage_of_reaped};
use crate::sys::{clock, signals};

/// How long the keeper stays to release an abandoned contender after its lease must have expired.
const LINGER: Duration = Duration::from_secs(5);

/// Runs the keeper in this process, which was forked for it, and returns the exit code. The verdict is sent on the link.
#[must_use]
pub(in crate::job) fn run(job: &Job, link: Link<FromKeeper>, deadline_sender: Option<DeadlineSender>) -> u8 {
    match start(job, link, deadline_sender) {
        Ok(()) => exit::OK,
        Err(_) => exit::code(Kind::Fault),
    }
}

fn start(job: &Job, mut link: Link<FromKeeper>, deadline_sender: Option<DeadlineSender>) -> anyhow::Result<()> {
    let (tree, runtime) = prepare_process(job.group)
        .and_then(|tree| Ok((tree, Runtime::new().context("cannot start the async runtime")?)))
        .inspect_err(|error| report_fault(&mut link, error))?;
    runtime.block_on(async {
        let mut keeper = Keeper::new(job, link, deadline_sender, tree)?;
        keeper.run().await.inspect_err(|error| {
            // Without a verdict: the supervisor must kill the tree, as if the keeper had died.
            keeper.send(FromKeeper::Notice(Notice::KeeperLost(format!("the keeper process failed: {error:#}"))));
        })
    })
}

/// Moves to a process group of its own, ignores signals that are meant for others, and becomes the reaper of the tree.
fn prepare_process(group: ProcessGroup) -> anyhow::Result<Tree> {
    rename(c"lock-keeper");
    if group != ProcessGroup::Unnamed {
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).context("cannot create the keeper's process group")?;
    }
    ignore(&signals::ignored_by_keeper());
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals::set([Signal::SIGCHLD])), None)
        .context("cannot set the keeper's signal mask")?;
    Tree::become_reaper()
}

impl Keeper<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut event = Event::Tick;
        loop {
            let mut events = VecDeque::from([event]);
            while let Some(event) = events.pop_front() {
                self.record(&event);
                for action in self.machine.on(event, clock::now()) {
                    if let Action::Finish(verdict) = action {
                        return self.finish(verdict).await;
                    }
                    events.extend(self.perform(action));
                }
            }
            self.send_backend_updates();
            self.wake_parent();
            let look_at = self.wake_parent_until.map(|_| clock::now() + LOOK_AT_PARENT);
            let wake_at = self.machine.wake().into_iter().chain(look_at).min();
            self.alarm.get_ref().set(wake_at).context("cannot set the timer")?;
            event = self.next_event().await?;
        }
    }

    /// Sends the verdict, and stays until the abandoned contenders are released or their leases must have expired.
    async fn finish(&mut self, verdict: Verdict) -> anyhow::Result<()> {
        let lingers = self.requests.is_releasing();
        self.account.usage = usage_of_reaped();
        self.send(FromKeeper::Account(self.account.clone()));
        self.send(FromKeeper::Done { verdict, lingers });
        while self.link.get_ref().has_unsent() {
            self.link.writable().await.context("cannot wait for the link")?.clear_ready();
            self.link.get_mut().flush();
        }
        if lingers {
            // A reader of distlock's output must see its end now.
            self.detach();
            // The supervisor, which forwarded signals, exits.
            restore_default(&[Signal::SIGINT, Signal::SIGTERM]);
            let requests = &mut self.requests;
            poll_fn(|context| requests.poll_releases(context)).await;
        }
        Ok(())
    }

    /// Records what the command's environment and the report contain.
    fn record(&mut self, event: &Event) {
        match event {
            Event::Entered(Ok((_, Position::Held { token, key })))
            | Event::WaitReturned(Ok(Position::Held { token, key })) => {
                self.token_and_key = Some((*token, key.clone()));
            }
            Event::Renewed(Ok(_)) => self.account.renewals += 1,
            Event::Reaped { command: Some(end), .. } => self.account.command = Some(end.clone()),
            _ => {}
        }
    }

    /// Performs an action. Returns the event that results immediately, if any.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Begin(request) => self.requests.begin(request, self.machine.last_run_token()),
            Action::Abandon(request) => self.requests.cancel(request),
            Action::NextEndpoint(request) => {
                return Some(Event::TimedOut(request, self.requests.leave_endpoint(request)));
            }
            Action::Send(message) => self.send(message),
            Action::Start => return self.start(),
            Action::SignalCommand(signal) => {
                if let (Some(pid), Some(signal)) = (self.command, signals::to_nix(signal)) {
                    // A child that is not reaped yet: the pid cannot belong to another process.
                    let _ = kill(pid, signal);
                }
            }
            Action::TerminateTree => {
                self.tree.signal(self.job.signal, None);
                self.tree.signal(Signal::SIGCONT, None);
            }
            Action::KillTree { overdue } => {
                self.tree.kill(None);
                if overdue {
                    let stuck = self.tree.list(None);
                    self.send(FromKeeper::Notice(Notice::Stuck(stuck)));
                }
            }
            Action::Freeze => {
                self.frozen = true;
                return self.tree.freeze().then_some(Event::Frozen);
            }
            Action::Thaw => {
                self.frozen = false;
                self.tree.thaw();
            }
            Action::AbandonContender => self.abandon_contender(),
            Action::ReportLeftovers => self.send(FromKeeper::Notice(Notice::Left(self.tree.list(None)))),
            // The loop ends with this action.
            Action::Finish(_) => {}
        }
        None
    }

    /// Replaces the contender; the old one is released in the background.
    fn abandon_contender(&mut self) {
        // The same settings were valid for the first contender, so this does not fail.
        if let Ok(backend) = self.job.prepared.contender(self.job.spec.clone(), self.log.clone()) {
            self.requests.replace_contender(backend, clock::now() + self.job.spec.ttl * 2 + LINGER);
        }
    }

    /// Waits for the next event. Time comes first, so that a deadline that passed while the machine was suspended is handled
    /// before other events.
    async fn next_event(&mut self) -> anyhow::Result<Event> {
        if let Some(event) = self.queued_events.pop_front() {
            return Ok(event);
        }
        loop {
            let has_unsent = self.link.get_ref().has_unsent();
            let requests = &mut self.requests;
            let exec_status = &self.exec_status;
            let exec_status = async move {
                match exec_status {
                    Some(receiver) => receiver.readable().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                ready = self.alarm.readable() => {
                    let mut ready = ready.context("cannot wait for the timer")?;
                    self.alarm.get_ref().clear();
                    ready.clear_ready();
                    return Ok(Event::Tick);
                }
                ready = self.sigchld.readable() => {
                    let mut ready = ready.context("cannot wait for signals")?;
                    while self.sigchld.get_ref().read_signal().context("cannot read a signal")?.is_some() {}
                    ready.clear_ready();
                    drop(ready);
                    return self.reap();
                }
                ready = exec_status => {
                    ready.context("cannot wait for the program's start")?;
                    if let Some(event) = self.read_exec_status() {
                        return Ok(event);
                    }
                }
                // A closed link stays readable forever.
                ready = self.link.readable(), if !self.orphaned => {
                    let mut ready = ready.context("cannot wait for the link")?;
                    match self.link.get_ref().receive().context("cannot read from the link")? {
                        Received::Message(message) => return Ok(to_event(&message)),
                        Received::Closed => {
                            drop(ready);
                            self.orphaned = true;
                            return Ok(Event::Orphaned);
                        }
                        Received::Nothing => ready.clear_ready(),
                    }
                }
                ready = self.link.writable(), if has_unsent => {
                    ready.context("cannot wait for the link")?.clear_ready();
                    self.link.get_mut().flush();
                }
                event = poll_fn(|context| requests.poll(context)) => return Ok(event),
            }
            self.send_backend_updates();
        }
    }
}

fn to_event(message: &FromSupervisor) -> Event {
    match *message {
        FromSupervisor::Acknowledged(deadlines) => Event::Acknowledged(deadlines),
        FromSupervisor::Signal(signal) => Event::Signal(signal),
        FromSupervisor::GroupSignal(signal) => Event::GroupSignal(signal),
        FromSupervisor::Kill => Event::Kill,
    }
}
