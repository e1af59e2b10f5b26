//! Everything below this process: find it, signal it, reap it, until the kernel says that nothing is left.
//!
//! Both distlock processes are child subreapers, so whatever the command starts stays below them, however often it forks
//! or changes its session. The tree is empty when `waitpid` says so (ECHILD); `/proc` only finds whom to signal, and is
//! only read when somebody is to be signalled.

use crate::sys::clock;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::Duration;

use distlock_core::backoff;
use distlock_core::lease::{KILL_INTERVAL, KILL_INTERVAL_STUCK};
use distlock_core::messages::{Process, Usage};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, pidfd_send_signal};

/// For how long orphans are waited for once one was killed: it may have forked just before.
const CALM: Duration = Duration::from_millis(1);
/// For how long at most orphans are chased before other work gets its turn.
const CHASE: Duration = Duration::from_millis(20);

/// The descendants of this process, except the children that it had before it became their reaper: those belong to
/// whatever program `exec`ed distlock.
#[derive(Debug)]
pub(crate) struct Tree {
    me: Pid,
    foreign: Vec<Pid>,
    /// Whom [`Tree::freeze`] stopped; what was stopped before stays so.
    frozen: Vec<Stat>,
    /// The last pass of [`Tree::freeze`] found nothing that ran.
    still: bool,
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

/// What became of a child. Signals are numbers: a process may die of one that has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// This signal stopped it.
    Stopped(i32),
    /// It goes on.
    Continued,
}

impl Change {
    fn of(status: rustix::process::WaitStatus) -> Option<Self> {
        let ended = status.exit_status().map(Self::Exited).or(status.terminating_signal().map(Self::Signaled));
        ended.or(status.stopping_signal().map(Self::Stopped)).or(status.continued().then_some(Self::Continued))
    }

    /// Whether it is no more.
    #[must_use]
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Exited(_) | Self::Signaled(_))
    }
}

/// What a look at the children brought.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// Children that ended, stopped or went on, in the order in which the kernel told.
    pub changes: Vec<(Pid, Change)>,
    /// No child is left, running or dead.
    pub empty: bool,
}

/// Nobody reads a longer list.
const MAX_SHOWN: usize = 50;
/// Whom to spare.
pub(crate) type Except = Option<Pid>;

impl Tree {
    /// Makes this process the reaper of all its descendants to be.
    ///
    /// # Errors
    ///
    /// `/proc` does not show the processes under the numbers that they have here, so nobody could be found or killed.
    pub(crate) fn adopt() -> io::Result<Self> {
        let me = Pid::this();
        if fs::read_link("/proc/self").ok() != Some(me.to_string().into()) {
            return Err(io::Error::other(
                "/proc is not mounted, or shows another PID namespace (unshare: --mount-proc)",
            ));
        }
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Self { me, foreign: Table::read().children(me), frozen: Vec::new(), still: false })
    }

    /// Whether the parent of this process is stopped, as by Ctrl-Z.
    #[must_use]
    pub(crate) fn parent_is_stopped() -> bool {
        Stat::read(Pid::parent().as_raw()).is_some_and(|parent| parent.stopped())
    }

    /// Collects what the kernel has to tell of the children, without blocking.
    pub(crate) fn reap(&mut self) -> io::Result<Reaped> {
        let mut reaped = Reaped::default();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
                Ok(None) => {
                    reaped.empty = !self.foreign.is_empty() && self.only_foreign();
                    return Ok(reaped);
                }
                Ok(Some((pid, status))) => {
                    let pid = Pid::from_raw(pid.as_raw_nonzero().get());
                    let Some(change) = Change::of(status) else { continue };
                    if change.is_end() {
                        self.foreign.retain(|foreign| *foreign != pid);
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

    /// Kills everything below, however long it takes, when there is nobody any more who could decide.
    pub(crate) fn clear(&mut self) {
        let mut pause = KILL_INTERVAL;
        loop {
            match self.reap() {
                Ok(Reaped { empty: true, .. }) => return,
                _ => self.kill(None),
            }
            std::thread::sleep(pause);
            pause = backoff::next(pause, KILL_INTERVAL, KILL_INTERVAL_STUCK);
        }
    }

    /// Whether all children are foreign. Where that cannot be seen, somebody else may be among them.
    ///
    /// The kernel's list of children is exact here: only this thread reaps them, so nobody leaves it while it is read, and
    /// an orphan is in it before the one that it came from can be reaped.
    fn only_foreign(&self) -> bool {
        match self.read_children() {
            Ok(children) => children.iter().all(|pid| self.foreign.contains(pid)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let table = Table::read();
                let whole = table.by_pid.contains_key(&self.me.as_raw());
                whole && table.children(self.me).iter().all(|pid| self.foreign.contains(pid))
            }
            Err(_) => false,
        }
    }

    /// The children, foreign and dead ones too. Not found where the kernel was built without this list.
    fn read_children(&self) -> io::Result<Vec<Pid>> {
        let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.me))?;
        Ok(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect())
    }

    /// Sends `signal` to every descendant but `except` (whose own descendants are not spared), parents before children.
    ///
    /// One pass misses what is forked meanwhile. Who cannot be signalled is found among [`Tree::members`] afterwards.
    pub(crate) fn signal(&self, signal: Signal, except: Except) {
        for process in self.living(except) {
            process.deliver(signal);
        }
    }

    /// Kills every descendant but `except` (whose own descendants are not spared), and those that appear meanwhile.
    /// Repeat it until [`Tree::reap`] says empty. A tree that is stopped, wholly or in part, dies leaves first: the kernel
    /// wakes stopped processes whose group lost its last parent.
    pub(crate) fn kill(&self, except: Except) {
        let mut living = self.living(except);
        if living.iter().any(Stat::stopped) {
            living.reverse();
        }
        for process in living {
            process.deliver(Signal::SIGKILL);
        }
        self.chase(except);
    }

    /// Kills the orphans that arrive. A process that forks and exits all the time is elsewhere before the whole table is
    /// read, but as an orphan it comes to us: our own children are listed within microseconds, so it dies before it forks.
    fn chase(&self, except: Except) {
        let begun = clock::now();
        let mut arrived = begun;
        let mut known = HashSet::new();
        while clock::now().since(begun) < CHASE && clock::now().since(arrived) < CALM {
            for pid in self.children().into_iter().filter(|pid| Some(*pid) != except) {
                if known.insert(pid) {
                    arrived = clock::now();
                    // Our child, which only this thread reaps: the pid is its own.
                    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                }
            }
        }
    }

    /// The children, dead ones too; none where the kernel does not list them.
    fn children(&self) -> Vec<Pid> {
        let children = self.read_children().unwrap_or_default().into_iter();
        children.filter(|pid| !self.foreign.contains(pid)).collect()
    }

    /// Stops every descendant that is not stopped, once. True when nothing ran in this pass nor in the one before: what
    /// was forked between the reading of two lines of the process table is only seen by the next pass.
    pub(crate) fn freeze(&mut self) -> bool {
        let running: Vec<Stat> = self.living(None).into_iter().filter(|process| !process.stands_still()).collect();
        for process in &running {
            process.deliver(Signal::SIGSTOP);
        }
        let still = running.is_empty() && self.still;
        self.still = running.is_empty();
        self.frozen.extend(running);
        still
    }

    /// Lets go on what [`Tree::freeze`] stopped, parents first.
    pub(crate) fn thaw(&mut self) {
        for process in std::mem::take(&mut self.frozen) {
            process.deliver(Signal::SIGCONT);
        }
        self.still = false;
    }

    /// The descendants that are not dead, but `except`, parents before children; the first of them, where there are many.
    #[must_use]
    pub(crate) fn members(&self, except: Except) -> Vec<Process> {
        self.living(except).into_iter().take(MAX_SHOWN).map(|process| process.shown()).collect()
    }

    fn living(&self, except: Except) -> Vec<Stat> {
        let table = Table::read();
        let mut queue: Vec<Pid> = table.children(self.me);
        queue.retain(|pid| !self.foreign.contains(pid));
        let mut found = Vec::new();
        let mut next = 0;
        while let Some(&pid) = queue.get(next) {
            next += 1;
            queue.extend(table.children(pid));
            if let Some(stat) = table.by_pid.get(&pid.as_raw())
                && !stat.dead()
                && Some(pid) != except
            {
                found.push(stat.clone());
            }
        }
        found
    }
}

/// One line of the kernel's process table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    pid: i32,
    parent: i32,
    name: String,
    /// Clock ticks since the boot.
    started: u64,
    threads: u64,
    /// Of the first thread.
    state: State,
}

/// What a thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Stopped,
    Dead,
}

impl State {
    fn parse(letter: &str) -> Self {
        match letter {
            "Z" | "X" | "x" => Self::Dead,
            "T" | "t" => Self::Stopped,
            _ => Self::Runs,
        }
    }
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Nothing of it is left. A first thread that ended leaves a zombie in its place while others go on.
    fn dead(&self) -> bool {
        self.state == State::Dead && self.threads <= 1
    }

    fn stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// No thread of it runs.
    fn stands_still(&self) -> bool {
        match self.threads {
            0 | 1 => self.state != State::Runs,
            _ => self.all_threads().all(|state| state != State::Runs),
        }
    }

    fn all_threads(&self) -> impl Iterator<Item = State> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        threads.filter_map(|thread| Some(Self::parse(&fs::read(thread.path().join("stat")).ok()?)?.state))
    }

    /// Parses `/proc/PID/stat`; see proc(5). The name stands in parentheses and may hold anything, more of them included.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            pid: pid.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            started: fields.get(19)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            state: State::parse(fields.first()?),
        })
    }

    /// Signals this very process. A pid that was reaped and given to a stranger since the table was read is told by its
    /// start time, which is compared after the descriptor that pins the process is open.
    fn deliver(&self, signal: Signal) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return };
        let pinned = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pinned) => Some(pinned),
            Err(rustix::io::Errno::SRCH) => return,
            // No descriptor is left. The pid alone is nearly as good, and somebody must be ended.
            Err(_) => None,
        };
        if Self::read(self.pid).is_none_or(|now| now.started != self.started) {
            return;
        }
        match (pinned, rustix::process::Signal::from_named_raw(signal as i32)) {
            (Some(pinned), Some(signal)) => drop(pidfd_send_signal(pinned, signal)),
            _ => drop(nix::sys::signal::kill(Pid::from_raw(self.pid), signal)),
        }
    }

    fn shown(&self) -> Process {
        Process { pid: self.pid, name: self.name.clone() }
    }
}

/// The kernel's process table at one moment.
struct Table {
    by_pid: HashMap<i32, Stat>,
    by_parent: HashMap<i32, Vec<i32>>,
}

impl Table {
    fn read() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats = pids.filter_map(|entry| Stat::read(entry.file_name().to_str()?.parse().ok()?));
        let by_pid: HashMap<i32, Stat> = stats.map(|stat| (stat.pid, stat)).collect();
        let mut by_parent: HashMap<i32, Vec<i32>> = HashMap::new();
        for stat in by_pid.values() {
            by_parent.entry(stat.parent).or_default().push(stat.pid);
        }
        Self { by_pid, by_parent }
    }

    fn children(&self, pid: Pid) -> Vec<Pid> {
        self.by_parent.get(&pid.as_raw()).into_iter().flatten().map(|&child| Pid::from_raw(child)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let line = b"77 (a) R 1 (b)) S 5 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n";
        let stat = Stat::parse(line).expect("a valid line");
        assert_eq!((stat.pid, stat.parent, stat.name.as_str(), stat.started), (77, 5, "a) R 1 (b)", 4242));
        assert!(!stat.dead());
    }

    #[test]
    fn a_torn_line_is_no_process() {
        let line = b"77 (sh) Z 5 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert!(Stat::parse(line).expect("a valid line").dead());
        for end in 0..line.len() - 8 {
            assert_eq!(Stat::parse(&line[..end]).filter(|stat| stat.started == 4242), None);
        }
    }

    #[test]
    fn a_process_whose_first_thread_ended_is_not_dead() {
        let line = |threads| format!("77 (a) Z 5 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0");
        assert!(Stat::parse(line(1).as_bytes()).expect("a valid line").dead());
        assert!(!Stat::parse(line(2).as_bytes()).expect("a valid line").dead());
    }

    #[test]
    fn the_table_knows_this_process() {
        let table = Table::read();
        let me = table.by_pid.get(&Pid::this().as_raw()).expect("this process is listed");
        assert!(table.children(Pid::from_raw(me.parent)).contains(&Pid::this()));
    }
}
