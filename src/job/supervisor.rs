//! The supervisor: the process that the user started. It has one thread and no runtime.
//!
//! [`distlock_core::supervisor`] decides and this file acts: it waits for signals, deadlines and the keeper's messages, shows
//! notices, and ends as the command ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc::SI_KERNEL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgrp, getpid};

use distlock_core::error::{Failure, Kind};
use distlock_core::lease::MAX_RELEASE;
use distlock_core::messages::{FromKeeper, FromSupervisor, Notice, Process, Verdict};
use distlock_core::signal::Signal as CoreSignal;
use distlock_core::supervisor::{Action, Event, Group, Machine};

use super::fault::fault;
use super::keeper;
use super::link::{self, Link, Received};
use super::show::Show;
use super::spec::Job;
use super::witness::{DeadlineSender, Testimony, Witness};
use crate::exit;
use crate::sys::clock::{self, Alarm};
use crate::sys::process::{self, Inherited, ProcessGroup};
use crate::sys::tree::Tree;
use crate::sys::tty::Terminal;
use crate::sys::{runtime, signals};

/// How the job ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Decides the exit code.
    pub verdict: Verdict,
    /// INT or QUIT came from the keyboard. If it ended the wait, distlock dies of it, so that a shell stops its loop.
    pub keyboard: bool,
}

/// Forks the keeper and runs the job to its end.
///
/// Must be called while the process has only one thread.
pub(crate) fn run(mut job: Job, show: &mut dyn Show) -> Result<Ending, Failure> {
    let terminal = Terminal::open();
    job.group = match (&terminal, getpgrp()) {
        (None, _) => ProcessGroup::Own,
        // The group is outside of this PID namespace.
        (Some(_), group) if group.as_raw() == 0 => ProcessGroup::Unnamed,
        (Some(_), group) => ProcessGroup::Shared(group),
    };
    Supervisor::start(&job, terminal).and_then(|supervisor| supervisor.run(show)).map_err(|error| fault(&error))
}

struct Supervisor<'a> {
    job: &'a Job,
    machine: Machine,
    keeper: Pid,
    link: Link<FromSupervisor>,
    signals: SignalFd,
    alarm: Alarm,
    tree: Tree,
    terminal: Option<Terminal>,
    witness: Option<Witness>,
    lease_id: Option<String>,
    /// INT or QUIT came from the keyboard.
    keyboard: bool,
    /// The command was killed, so it could not restore the terminal's modes.
    killed: bool,
    /// The processes of the last [`Notice::Stuck`].
    stuck: Vec<Process>,
}

impl<'a> Supervisor<'a> {
    fn start(job: &'a Job, terminal: Option<Terminal>) -> anyhow::Result<Self> {
        process::keep_exit_statuses();
        let set = signals_to_read(&job.inherited);
        // Before this process becomes the reaper: the witness is not part of the tree.
        let (witness, deadline_sender) = terminal.as_ref().map(|_| Witness::fork(&set)).transpose()?.unzip();
        let tree = Tree::become_reaper()?;
        // Before the fork, so that a signal that arrives meanwhile is handled by the loop.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).context("cannot block signals")?;
        let (keeper, link) = fork_keeper(job, witness.as_ref(), deadline_sender)?;
        let group = if witness.is_some() { Group::Witnessed } else { Group::Own };
        Ok(Self {
            job,
            machine: Machine::new(&job.spec.name, group, job.reruns, clock::now()),
            keeper,
            link,
            signals: SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
                .context("cannot create the signal descriptor")?,
            alarm: Alarm::new().context("cannot create the timer")?,
            tree,
            terminal,
            witness,
            lease_id: None,
            keyboard: false,
            killed: false,
            stuck: Vec::new(),
        })
    }

    fn run(mut self, show: &mut dyn Show) -> anyhow::Result<Ending> {
        match self.guard(show) {
            Ok(verdict) => Ok(self.end(verdict)),
            Err(error) => {
                // No descendant may run without a guardian.
                self.tree.kill_until_empty();
                self.release();
                Err(error)
            }
        }
    }

    fn guard(&mut self, show: &mut dyn Show) -> anyhow::Result<Verdict> {
        loop {
            let wake_at = self.machine.wake().into_iter().chain(show.wake()).min();
            self.alarm.set(wake_at).context("cannot set the timer")?;
            self.wait().context("cannot wait for events")?;
            let mut events = Vec::new();
            self.alarm.clear();
            self.link.flush();
            // Messages come before the deadline, because one may have moved it while this process was stopped. Signals come
            // after the deadline, because the machine may have been suspended.
            self.read_link(&mut events, show)?;
            events.push(Event::Tick);
            self.read_signals(&mut events, show)?;
            self.read_witness(&mut events);
            for event in events {
                for action in self.machine.on(event, clock::now()) {
                    if let Action::Finish(verdict) = action {
                        return Ok(verdict);
                    }
                    self.perform(action, show);
                }
            }
            show.refresh(clock::now());
        }
    }

    fn wait(&self) -> nix::Result<()> {
        let mut link_events = PollFlags::POLLIN;
        link_events.set(PollFlags::POLLOUT, self.link.has_unsent());
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN),
        ];
        // A closed link stays readable forever; SIGCHLD reports the keeper's exit.
        if self.machine.link_open() {
            fds.push(PollFd::new(self.link.as_fd(), link_events));
        }
        if let Some(witness) = &self.witness {
            fds.push(PollFd::new(witness.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_link(&mut self, events: &mut Vec<Event>, show: &mut dyn Show) -> anyhow::Result<()> {
        loop {
            match self.link.receive().context("cannot read from the link to the keeper")? {
                Received::Message(message) => {
                    show.record(&message, clock::now());
                    if let FromKeeper::Lease(lease_id) = &message {
                        self.lease_id = Some(lease_id.clone());
                    }
                    events.push(Event::Message(message));
                }
                Received::Nothing => return Ok(()),
                Received::Closed => {
                    events.push(Event::LinkClosed);
                    return Ok(());
                }
            }
        }
    }

    fn read_signals(&mut self, events: &mut Vec<Event>, show: &mut dyn Show) -> anyhow::Result<()> {
        let mut children = false;
        while let Some(info) = self.signals.read_signal().context("cannot read a signal")? {
            let Ok(signal) =
                i32::try_from(info.ssi_signo).map_err(drop).and_then(|n| Signal::try_from(n).map_err(drop))
            else {
                continue;
            };
            if signal == Signal::SIGCHLD {
                children = true;
                continue;
            }
            if signal == Signal::SIGCONT && self.witness.as_ref().is_some_and(|w| is_pid(w.pid(), info.ssi_pid)) {
                events.push(Event::WokenByWitness);
                continue;
            }
            // The keeper wakes a job whose command was continued. Its message on the link says so already.
            if signal == Signal::SIGCONT && is_pid(self.keeper, info.ssi_pid) {
                continue;
            }
            let keyboard = info.ssi_code == SI_KERNEL;
            self.keyboard |= keyboard && matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
            events.push(Event::Signal { signal: signals::from_nix(signal), keyboard });
        }
        if children {
            self.reap(events, show)?;
        }
        Ok(())
    }

    fn read_witness(&mut self, events: &mut Vec<Event>) {
        let Some(witness) = &self.witness else { return };
        while let Some(testimony) = witness.next() {
            events.push(match testimony {
                Testimony::Received(signal) => Event::GroupSignal(signals::from_nix(signal)),
                Testimony::Complete => Event::WitnessAnswered,
            });
        }
        if witness.is_gone() {
            self.witness = None;
            events.push(Event::WitnessGone);
        }
    }

    fn reap(&mut self, events: &mut Vec<Event>, show: &mut dyn Show) -> anyhow::Result<()> {
        let reaped = self.tree.reap().context("cannot reap child processes")?;
        if reaped.changes.iter().any(|(pid, change)| *pid == self.keeper && change.is_end()) {
            // The link may still contain its last messages.
            self.read_link(events, show)?;
            events.push(Event::KeeperExited);
        }
        if reaped.empty {
            events.push(Event::TreeEmpty);
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, show: &mut dyn Show) {
        match action {
            Action::Send(message) => self.link.send(message),
            // PID 1 of a namespace cannot be stopped, so its job cannot be suspended either.
            Action::StopSelf(_) if getpid().as_raw() == 1 => self.tree.signal(Signal::SIGCONT, Some(self.keeper)),
            Action::StopSelf(signal) => {
                show.pause();
                process::stop_by_signal(signals::to_nix(signal).unwrap_or(Signal::SIGSTOP));
            }
            Action::AskWitness => self.witness.iter().for_each(Witness::request_testimony),
            Action::KillTree => {
                self.killed = true;
                self.tree.kill(Some(self.keeper));
            }
            Action::KillAll => {
                self.killed = true;
                self.tree.kill(None);
            }
            Action::ShowStuck => {
                let stuck = self.tree.list(None);
                if stuck != self.stuck {
                    self.stuck.clone_from(&stuck);
                    show.notice(Notice::Stuck(stuck));
                }
            }
            // A child that is not reaped yet: the pid cannot belong to another process.
            Action::KillKeeper => drop(kill(self.keeper, Signal::SIGKILL)),
            Action::Release => self.release(),
            Action::CloseStreams => self.job.inherited.close(&[io::stderr().as_raw_fd()]),
            Action::Show(notice) => {
                self.killed |= matches!(notice, Notice::Ending(_));
                show.notice(notice);
            }
            // The loop ends with this action.
            Action::Finish(_) => {}
        }
    }

    /// Releases the lease of a keeper that died. The tree must be empty.
    fn release(&self) {
        let Some(lease_id) = &self.lease_id else { return };
        let log = Rc::new(|_| {});
        let Ok(backend) = self.job.prepared.adopt_lease(self.job.spec.clone(), lease_id, log) else { return };
        // A failure does not change the verdict: the lease expires by itself.
        let _ = runtime::block_on(async { tokio::time::timeout(MAX_RELEASE, backend.release()).await });
    }

    fn end(self, verdict: Verdict) -> Ending {
        if let Some(witness) = &self.witness {
            witness.end();
        }
        let killed = self.killed || verdict == Verdict::Signaled(CoreSignal::SIGKILL);
        if let Some(terminal) = self.terminal.filter(|_| killed) {
            terminal.restore();
        }
        Ending { verdict, keyboard: self.keyboard }
    }
}

fn fork_keeper(
    job: &Job,
    witness: Option<&Witness>,
    deadline_sender: Option<DeadlineSender>,
) -> anyhow::Result<(Pid, Link<FromSupervisor>)> {
    let (link, keepers_link) = link::pair().context("cannot create the link to the keeper")?;
    let witness_socket = witness.map(|witness| witness.as_fd().as_raw_fd());
    let supervisors_own = job.report.into_iter().chain(witness_socket);
    // In an Option, because the parent needs its end back and closes the keeper's.
    let mut ends = Some((link, keepers_link, deadline_sender));
    let keeper = process::fork_into(|| match ends.take() {
        Some((link, keepers_link, deadline_sender)) => {
            // A copy in the keeper would hide that the supervisor has closed its end.
            drop(link);
            supervisors_own.for_each(process::close);
            keeper::run(job, keepers_link, deadline_sender)
        }
        None => exit::code(Kind::Fault),
    })
    .context("cannot fork the keeper")?;
    ends.map(|(link, _, _)| (keeper, link)).context("the link is closed")
}

fn is_pid(pid: Pid, sender: u32) -> bool {
    pid.as_raw().cast_unsigned() == sender
}

/// Returns the signals that this process reads. One that was ignored at the start, as under nohup, stays ignored.
fn signals_to_read(inherited: &Inherited) -> SigSet {
    let mut set = signals::set(signals::read_by_supervisor().into_iter().filter(|signal| !inherited.ignores(*signal)));
    set.add(Signal::SIGCHLD);
    set
}
