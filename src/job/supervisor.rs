//! The supervisor: the process that the user started. One thread and no runtime: it waits for signals, for the deadline
//! and for the keeper, prints, and ends as the command ended. [`distlock_core::supervisor`] decides, this file acts.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::SI_KERNEL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgrp, getpid};

use crate::job::keeper::{self, Job};
use crate::job::link::{self, Link, Received};
use crate::job::witness::{Witness, Word};
use crate::sys::clock::{self, Alarm};
use crate::sys::process::{self, Inherited};
use crate::sys::tree::Tree;
use crate::sys::{runtime, signals, tty::Terminal};
use distlock_core::error::{Failure, Kind};
use distlock_core::lease::MAX_RELEASE;
use distlock_core::messages::Notice;
use distlock_core::messages::Process;
use distlock_core::messages::{FromKeeper, FromSupervisor, Verdict};
use distlock_core::supervisor::{Action, Event, Group, Machine};
use distlock_core::time::Instant;

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// The verdict, which decides the exit code.
    pub verdict: Verdict,
    /// The user ended it from the keyboard while it waited, so a shell's loop is to stop.
    pub keyboard: bool,
}

/// Whoever tells the user. Nothing of it blocks.
pub(crate) trait Show {
    /// Shows this to the user.
    fn notice(&mut self, notice: Notice);

    /// Takes note of what the keeper said, for the report.
    fn keeper_said(&mut self, message: &FromKeeper, now: Instant);

    /// When [`Show::refresh`] is wanted next, at the latest; None while nothing changes by itself.
    fn wake(&self) -> Option<Instant>;

    /// Brings up to date what changes with time.
    fn refresh(&mut self, now: Instant);

    /// This process is about to stop: others will have the terminal.
    fn pause(&mut self);
}

/// Runs the job: forks the keeper and stays until all is over.
///
/// Must be called while the process has one thread only.
pub(crate) fn run(mut job: Job, show: &mut dyn Show) -> Result<Ending, Failure> {
    let terminal = Terminal::open();
    job.group = match (&terminal, getpgrp()) {
        (None, _) => process::Group::Own,
        // From outside of this PID namespace.
        (Some(_), group) if group.as_raw() == 0 => process::Group::Unnamed,
        (Some(_), group) => process::Group::Shared(group),
    };
    let supervisor = Supervisor::start(&job, terminal).map_err(|error| system(&error))?;
    supervisor.run(show).map_err(|error| system(&error))
}

fn system(error: &io::Error) -> Failure {
    Failure::fault("the system refused what distlock needs to run").because(error)
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
    lease: Option<String>,
    keyboard: bool,
    killed: bool,
    stuck: Vec<Process>,
}

impl<'a> Supervisor<'a> {
    fn start(job: &'a Job, terminal: Option<Terminal>) -> io::Result<Self> {
        process::await_children();
        let set = wanted(&job.inherited);
        // Before the tree is adopted: the witness is no part of the job.
        let (witness, watched) = terminal.as_ref().map(|_| Witness::call(&set)).transpose()?.unzip();
        let tree = Tree::adopt()?;
        // Blocked before the fork: a signal that comes now is handled once the loop runs.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        let mut ends = Some((link::pair()?, watched));
        let ours_alone: Vec<_> =
            job.report.into_iter().chain(witness.as_ref().map(|w| w.as_fd().as_raw_fd())).collect();
        let keeper = process::fork_into(|| match ends.take() {
            Some(((ours, theirs), watched)) => {
                // Closed here, so that the end of this process is seen at once.
                drop(ours);
                ours_alone.iter().copied().for_each(process::close);
                keeper::run(job, theirs, watched)
            }
            None => crate::exit::code(Kind::Fault),
        })?;
        // The keeper's ends are closed here, so that its end is seen at once.
        let Some(((link, _), _)) = ends else { return Err(io::Error::other("the link is gone")) };
        Ok(Self {
            job,
            machine: Machine::new(
                &job.want.name,
                if witness.is_some() { Group::Witnessed } else { Group::Own },
                job.reruns,
                clock::now(),
            ),
            keeper,
            link,
            signals: SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            alarm: Alarm::new()?,
            tree,
            terminal,
            witness,
            lease: None,
            keyboard: false,
            killed: false,
            stuck: Vec::new(),
        })
    }

    fn run(mut self, show: &mut dyn Show) -> io::Result<Ending> {
        match self.guard(show) {
            Ok(verdict) => Ok(self.end(verdict)),
            Err(error) => {
                // Whatever went wrong here: nothing may run on without a guardian.
                self.tree.clear();
                self.release();
                Err(error)
            }
        }
    }

    fn guard(&mut self, show: &mut dyn Show) -> io::Result<Verdict> {
        loop {
            self.alarm.set(self.machine.wake().into_iter().chain(show.wake()).min())?;
            self.wait()?;
            let mut events = Vec::new();
            self.alarm.clear();
            self.link.flush();
            self.read_link(&mut events, show)?;
            // The deadline before any signal: the machine may have been asleep. Not before the keeper's news, which may
            // have moved it since this process was stopped.
            events.push(Event::Tick);
            self.read_signals(&mut events, show)?;
            self.hear_witness(&mut events);
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

    fn wait(&self) -> io::Result<()> {
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, self.link.backlog());
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN),
        ];
        // A closed link stays readable for ever; that the keeper ended is told by a signal.
        if self.machine.link_open() {
            fds.push(PollFd::new(self.link.as_fd(), wanted));
        }
        if let Some(witness) = &self.witness {
            fds.push(PollFd::new(witness.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_link(&mut self, events: &mut Vec<Event>, show: &mut dyn Show) -> io::Result<()> {
        loop {
            match self.link.receive()? {
                Received::Message(message) => {
                    show.keeper_said(&message, clock::now());
                    if let FromKeeper::Lease(lease) = &message {
                        self.lease = Some(lease.clone());
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

    fn read_signals(&mut self, events: &mut Vec<Event>, show: &mut dyn Show) -> io::Result<()> {
        let mut children = false;
        while let Some(info) = self.signals.read_signal()? {
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
                events.push(Event::Woken);
                continue;
            }
            // The keeper wakes a job whose command goes on, which it has told.
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

    fn hear_witness(&mut self, events: &mut Vec<Event>) {
        let Some(witness) = &self.witness else { return };
        while let Some(word) = witness.next() {
            events.push(match word {
                Word::Got(signal) => Event::Group(signals::from_nix(signal)),
                Word::All => Event::AllTold,
            });
        }
        if witness.is_gone() {
            self.witness = None;
            events.push(Event::WitnessGone);
        }
    }

    fn reap(&mut self, events: &mut Vec<Event>, show: &mut dyn Show) -> io::Result<()> {
        let reaped = self.tree.reap()?;
        if reaped.changes.iter().any(|(pid, change)| *pid == self.keeper && change.is_end()) {
            // Its last words are in the link.
            self.read_link(events, show)?;
            events.push(Event::KeeperEnded);
        }
        if reaped.empty {
            events.push(Event::Empty);
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, show: &mut dyn Show) {
        match action {
            Action::Post(message) => self.link.post(message),
            // The first process of a namespace cannot be stopped, so its job cannot be suspended either.
            Action::StopSelf(_) if getpid().as_raw() == 1 => self.tree.signal(Signal::SIGCONT, Some(self.keeper)),
            Action::StopSelf(signal) => {
                show.pause();
                process::stop_by(signals::to_nix(signal).unwrap_or(Signal::SIGSTOP));
            }
            Action::AskWitness => self.witness.iter().for_each(Witness::ask),
            Action::KillTree => {
                self.killed = true;
                self.tree.kill(Some(self.keeper));
            }
            Action::KillAll => {
                self.killed = true;
                self.tree.kill(None);
            }
            Action::ShowStuck => {
                let stuck = self.tree.members(None);
                if stuck != self.stuck {
                    self.stuck.clone_from(&stuck);
                    show.notice(Notice::Stuck(stuck));
                }
            }
            // Our child and not reaped, so the pid is its own.
            Action::KillKeeper => drop(kill(self.keeper, Signal::SIGKILL)),
            Action::Release => self.release(),
            Action::CloseStreams => self.job.inherited.close(&[io::stderr().as_raw_fd()]),
            Action::Show(notice) => {
                self.killed |= matches!(notice, Notice::Ending(_));
                show.notice(notice);
            }
            // The caller ends its loop with this one.
            Action::Finish(_) => {}
        }
    }

    /// Gives up the lease of a keeper that died, now that nothing of the command is left.
    fn release(&self) {
        let Some(lease) = &self.lease else { return };
        let note = std::rc::Rc::new(|_| {});
        let Ok(backend) = self.job.prepared.adopt(self.job.want.clone(), lease, note) else { return };
        // Whatever comes of it: the lease ends by itself, and the verdict stands.
        let _ = runtime::block_on(async { tokio::time::timeout(MAX_RELEASE, backend.release()).await });
    }

    fn end(self, verdict: Verdict) -> Ending {
        if let Some(witness) = &self.witness {
            witness.dismiss();
        }
        if let Some(terminal) = self
            .terminal
            .filter(|_| self.killed || verdict == Verdict::Signaled(distlock_core::signal::Signal::SIGKILL))
        {
            terminal.restore();
        }
        Ending { verdict, keyboard: self.keyboard }
    }
}

fn is_pid(pid: Pid, sender: u32) -> bool {
    pid.as_raw().cast_unsigned() == sender
}

/// Returns the signals that this process takes; one that was ignored when it started, as under nohup, stays ignored.
fn wanted(inherited: &Inherited) -> SigSet {
    let mut set = signals::set(signals::of_supervisor().into_iter().filter(|signal| !inherited.ignores(*signal)));
    set.add(Signal::SIGCHLD);
    set
}
