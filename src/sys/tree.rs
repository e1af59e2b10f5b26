//! The process tree: finds, signals and reaps all descendants of this process until the kernel confirms that none is left.
//!
//! Supervisor and keeper are child subreapers, so every descendant stays below them, however it forks and whatever session
//! it creates (rule 6). The tree is empty when `waitpid` returns ECHILD or, if this process had children before, when the
//! kernel lists no others. Otherwise `/proc` serves to find the processes to signal and to name.

use std::collections::HashSet;
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::{Context, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus};

use distlock_core::backoff;
use distlock_core::lease::{KILL_INTERVAL, KILL_INTERVAL_STUCK};
use distlock_core::messages::{Process, Usage};

use super::clock;
use super::proc_stat::{Stat, Table};

/// How long to wait for further orphans after one was killed: it may have forked just before.
const ORPHAN_WAIT: Duration = Duration::from_millis(1);
/// Limit on one pass over the orphans, so that other work gets its turn.
const MAX_ORPHAN_PASS: Duration = Duration::from_millis(20);
/// Limit on the processes that a message lists.
const MAX_LISTED: usize = 50;

/// The descendants of this process, except the children that it had before it became their reaper: those belong to the
/// program that `exec`ed distlock.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Pid,
    earlier_children: Vec<Pid>,
    /// Processes that [`Tree::freeze`] stopped. Others, stopped before, stay stopped after [`Tree::thaw`].
    frozen: Vec<Stat>,
    /// The last pass of [`Tree::freeze`] found nothing that ran.
    last_freeze_found_none: bool,
}

/// Change of a child's state. Signals are numbers, because some have no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// By this signal.
    Stopped(i32),
    Continued,
}

impl Change {
    fn of(status: WaitStatus) -> Option<Self> {
        let ended = status.exit_status().map(Self::Exited).or(status.terminating_signal().map(Self::Signaled));
        ended.or(status.stopping_signal().map(Self::Stopped)).or(status.continued().then_some(Self::Continued))
    }

    #[must_use]
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Exited(_) | Self::Signaled(_))
    }
}

/// Result of [`Tree::reap`].
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// In the order in which the kernel reported them.
    pub changes: Vec<(Pid, Change)>,
    /// No child is left, running or dead.
    pub empty: bool,
}

impl Tree {
    /// Makes this process the reaper of all its future descendants.
    ///
    /// # Errors
    ///
    /// `/proc` does not show the processes under the numbers that they have here, so none could be found and killed.
    pub(crate) fn become_reaper() -> anyhow::Result<Self> {
        let root = Pid::this();
        if fs::read_link("/proc/self").ok() != Some(root.to_string().into()) {
            bail!("/proc is not mounted, or shows another PID namespace (unshare: --mount-proc)");
        }
        nix::sys::prctl::set_child_subreaper(true).context("cannot become a child subreaper")?;
        let earlier_children = Table::read().children(root);
        Ok(Self { root, earlier_children, frozen: Vec::new(), last_freeze_found_none: false })
    }

    /// Collects the state changes of the children, without blocking.
    pub(crate) fn reap(&mut self) -> io::Result<Reaped> {
        let mut reaped = Reaped::default();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
                Ok(None) => {
                    reaped.empty = !self.earlier_children.is_empty() && self.has_only_earlier_children();
                    return Ok(reaped);
                }
                Ok(Some((pid, status))) => {
                    let pid = Pid::from_raw(pid.as_raw_nonzero().get());
                    let Some(change) = Change::of(status) else { continue };
                    if change.is_end() {
                        self.earlier_children.retain(|earlier| *earlier != pid);
                    }
                    reaped.changes.push((pid, change));
                }
                Err(rustix::io::Errno::CHILD) => {
                    reaped.empty = true;
                    return Ok(reaped);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills the whole tree and blocks until it is empty. For a supervisor that cannot decide any more.
    pub(crate) fn kill_until_empty(&mut self) {
        let mut pause = KILL_INTERVAL;
        loop {
            match self.reap() {
                Ok(Reaped { empty: true, .. }) => return,
                _ => self.kill(None),
            }
            thread::sleep(pause);
            pause = backoff::next(pause, KILL_INTERVAL, KILL_INTERVAL_STUCK);
        }
    }

    /// Returns whether this process has no other children than the earlier ones; false if it cannot be known.
    ///
    /// The kernel's list of children is exact here: only this thread reaps them, so none leaves it while it is read, and an
    /// orphan appears in it before its parent can be reaped.
    fn has_only_earlier_children(&self) -> bool {
        match self.read_children() {
            Ok(children) => children.iter().all(|pid| self.earlier_children.contains(pid)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let table = Table::read();
                let complete = table.get(self.root).is_some();
                complete && table.children(self.root).iter().all(|pid| self.earlier_children.contains(pid))
            }
            Err(_) => false,
        }
    }

    /// Returns all children, including earlier and dead ones. Fails with `NotFound` if the kernel has no such list.
    fn read_children(&self) -> io::Result<Vec<Pid>> {
        let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.root))?;
        Ok(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect())
    }

    /// Sends `signal` to every descendant except `spared` (but including the descendants of `spared`), parents first.
    ///
    /// One pass misses processes that are forked meanwhile. A process that cannot be signalled is in [`Tree::list`] afterwards.
    pub(crate) fn signal(&self, signal: Signal, spared: Option<Pid>) {
        for process in self.living(spared) {
            process.send(signal);
        }
    }

    /// Kills every descendant except `spared` (but including the descendants of `spared`), and orphans that appear meanwhile.
    ///
    /// Repeat it until [`Tree::reap`] returns empty. If any process is stopped, the leaves are killed first, because the
    /// kernel wakes stopped processes whose group is orphaned.
    pub(crate) fn kill(&self, spared: Option<Pid>) {
        let mut living = self.living(spared);
        if living.iter().any(Stat::is_stopped) {
            living.reverse();
        }
        for process in living {
            process.send(Signal::SIGKILL);
        }
        self.kill_orphans(spared);
    }

    /// Kills the orphans that arrive. A process that forks and exits repeatedly has a new pid before the whole table is read.
    /// But its orphans become children of this process, which are listed within microseconds, before they can fork again.
    fn kill_orphans(&self, spared: Option<Pid>) {
        let begun_at = clock::now();
        let mut last_arrival = begun_at;
        let mut killed = HashSet::new();
        while clock::now().since(begun_at) < MAX_ORPHAN_PASS && clock::now().since(last_arrival) < ORPHAN_WAIT {
            for pid in self.children().into_iter().filter(|pid| Some(*pid) != spared) {
                if killed.insert(pid) {
                    last_arrival = clock::now();
                    // A child that only this thread reaps: the pid cannot belong to another process.
                    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                }
            }
        }
    }

    /// Returns the children that belong to the tree, including dead ones; none if the kernel does not list them.
    fn children(&self) -> Vec<Pid> {
        let children = self.read_children().unwrap_or_default().into_iter();
        children.filter(|pid| !self.earlier_children.contains(pid)).collect()
    }

    /// Stops every descendant that runs, in one pass. Returns true if neither this pass nor the one before found any: one
    /// pass misses a process that is forked while the table is read.
    pub(crate) fn freeze(&mut self) -> bool {
        let running: Vec<Stat> = self.living(None).into_iter().filter(Stat::is_running).collect();
        for process in &running {
            process.send(Signal::SIGSTOP);
        }
        let frozen = running.is_empty() && self.last_freeze_found_none;
        self.last_freeze_found_none = running.is_empty();
        self.frozen.extend(running);
        frozen
    }

    /// Continues the processes that [`Tree::freeze`] stopped, parents first.
    pub(crate) fn thaw(&mut self) {
        for process in std::mem::take(&mut self.frozen) {
            process.send(Signal::SIGCONT);
        }
        self.last_freeze_found_none = false;
    }

    /// Returns the living descendants except `spared`, parents first, and at most 50 of them.
    #[must_use]
    pub(crate) fn list(&self, spared: Option<Pid>) -> Vec<Process> {
        self.living(spared).iter().take(MAX_LISTED).map(Stat::to_process).collect()
    }

    fn living(&self, spared: Option<Pid>) -> Vec<Stat> {
        let table = Table::read();
        let mut queue: Vec<Pid> = table.children(self.root);
        queue.retain(|pid| !self.earlier_children.contains(pid));
        let mut found = Vec::new();
        let mut next = 0;
        while let Some(&pid) = queue.get(next) {
            next += 1;
            queue.extend(table.children(pid));
            if let Some(stat) = table.get(pid)
                && !stat.is_dead()
                && Some(pid) != spared
            {
                found.push(stat.clone());
            }
        }
        found
    }
}

/// Returns whether the parent of this process is stopped, as by Ctrl-Z.
#[must_use]
pub(crate) fn parent_is_stopped() -> bool {
    Stat::read(Pid::parent().as_raw()).is_some_and(|parent| parent.is_stopped())
}

/// Returns the resources used by all descendants that were reaped.
#[must_use]
pub(crate) fn usage_of_reaped() -> Usage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Usage::default() };
    let time = |time: TimeVal| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default());
        seconds + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    // The kernel counts kibibytes.
    let max_rss = u64::try_from(usage.max_rss()).unwrap_or_default() * 1024;
    Usage { user: time(usage.user_time()), system: time(usage.system_time()), max_rss }
}
