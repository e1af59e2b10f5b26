//! The kernel's process table, read from `/proc`.

use std::collections::HashMap;
use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use distlock_core::messages::Process;

/// One line of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pid: i32,
    parent: i32,
    name: String,
    /// In clock ticks since the boot.
    started_at: u64,
    threads: u64,
    first_thread: ThreadState,
}

/// State of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThreadState {
    Running,
    Stopped,
    Dead,
}

impl ThreadState {
    fn parse(letter: &str) -> Self {
        match letter {
            "Z" | "X" | "x" => Self::Dead,
            "T" | "t" => Self::Stopped,
            _ => Self::Running,
        }
    }
}

impl Stat {
    pub(super) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Returns whether no thread is left. A first thread that has exited is a zombie while other threads run.
    pub(super) fn is_dead(&self) -> bool {
        self.first_thread == ThreadState::Dead && self.threads <= 1
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.first_thread == ThreadState::Stopped
    }

    /// Returns whether any thread can execute.
    pub(super) fn is_running(&self) -> bool {
        match self.threads {
            0 | 1 => self.first_thread == ThreadState::Running,
            _ => self.all_threads().any(|state| state == ThreadState::Running),
        }
    }

    fn all_threads(&self) -> impl Iterator<Item = ThreadState> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        threads.filter_map(|thread| Some(Self::parse(&fs::read(thread.path().join("stat")).ok()?)?.first_thread))
    }

    /// Parses `/proc/PID/stat`; see proc(5). The name is in parentheses and may itself contain parentheses and spaces.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            pid: pid.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            started_at: fields.get(19)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            first_thread: ThreadState::parse(fields.first()?),
        })
    }

    /// Sends `signal` to this process, and never to another process that got its pid since the table was read: the start
    /// times are compared after a pidfd has pinned the pid.
    pub(super) fn send(&self, signal: Signal) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Some(pidfd),
            Err(rustix::io::Errno::SRCH) => return,
            // Without a free descriptor the pid alone is used: a process of the tree must not survive.
            Err(_) => None,
        };
        if Self::read(self.pid).is_none_or(|now| now.started_at != self.started_at) {
            return;
        }
        match (pidfd, rustix::process::Signal::from_named_raw(signal as i32)) {
            (Some(pidfd), Some(signal)) => drop(pidfd_send_signal(pidfd, signal)),
            _ => drop(nix::sys::signal::kill(Pid::from_raw(self.pid), signal)),
        }
    }

    pub(super) fn to_process(&self) -> Process {
        Process { pid: self.pid, name: self.name.clone() }
    }
}

/// The process table at one moment.
pub(super) struct Table {
    by_pid: HashMap<i32, Stat>,
    by_parent: HashMap<i32, Vec<i32>>,
}

impl Table {
    pub(super) fn read() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats = pids.filter_map(|entry| Stat::read(entry.file_name().to_str()?.parse().ok()?));
        let by_pid: HashMap<i32, Stat> = stats.map(|stat| (stat.pid, stat)).collect();
        let mut by_parent: HashMap<i32, Vec<i32>> = HashMap::new();
        for stat in by_pid.values() {
            by_parent.entry(stat.parent).or_default().push(stat.pid);
        }
        Self { by_pid, by_parent }
    }

    pub(super) fn get(&self, pid: Pid) -> Option<&Stat> {
        self.by_pid.get(&pid.as_raw())
    }

    pub(super) fn children(&self, pid: Pid) -> Vec<Pid> {
        self.by_parent.get(&pid.as_raw()).into_iter().flatten().map(|&child| Pid::from_raw(child)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_parentheses_and_spaces_is_parsed() {
        let line = b"77 (a) R 1 (b)) S 5 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n";
        let stat = Stat::parse(line).expect("a valid line");
        assert_eq!((stat.pid, stat.parent, stat.name.as_str(), stat.started_at), (77, 5, "a) R 1 (b)", 4242));
        assert!(!stat.is_dead());
    }

    #[test]
    fn truncated_line_is_rejected() {
        let line = b"77 (sh) Z 5 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert!(Stat::parse(line).expect("a valid line").is_dead());
        for end in 0..line.len() - 8 {
            assert_eq!(Stat::parse(&line[..end]).filter(|stat| stat.started_at == 4242), None);
        }
    }

    #[test]
    fn process_with_a_dead_first_thread_is_alive() {
        let line = |threads| format!("77 (a) Z 5 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0");
        assert!(Stat::parse(line(1).as_bytes()).expect("a valid line").is_dead());
        assert!(!Stat::parse(line(2).as_bytes()).expect("a valid line").is_dead());
    }

    #[test]
    fn table_contains_this_process() {
        let table = Table::read();
        let me = table.get(Pid::this()).expect("this process is listed");
        assert!(table.children(Pid::from_raw(me.parent)).contains(&Pid::this()));
    }
}
