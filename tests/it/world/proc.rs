//! Existing processes, as /proc shows them.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::poll_until;

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: Pid,
    pub parent: Pid,
    pub state: char,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may contain any character.
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), state })
    }
}

/// Returns the ids of all processes of this machine.
pub fn pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw)
}

/// Returns all processes of this machine.
pub fn all() -> impl Iterator<Item = Process> {
    pids().filter_map(|pid| Process::read(pid.as_raw()))
}

/// Returns the state of a process as ps shows it: R runs, S sleeps, T is stopped, Z is a zombie.
pub fn state(pid: Pid) -> Option<char> {
    Process::read(pid.as_raw()).map(|process| process.state)
}

/// Reference to a process that never means another process with the same id.
pub struct Pinned(OwnedFd);

impl Pinned {
    /// Opens a reference to an existing process.
    #[track_caller]
    pub fn of(pid: Pid) -> Self {
        let pid = rustix::process::Pid::from_raw(pid.as_raw()).expect("a process id");
        Self(pidfd_open(pid, PidfdFlags::empty()).expect("the process exists"))
    }

    /// Sends a signal; returns whether the process still existed, maybe as a zombie.
    pub fn signal(&self, signal: Signal) -> bool {
        let signal = rustix::process::Signal::from_named_raw(signal as i32).expect("a signal with a name");
        pidfd_send_signal(&self.0, signal).is_ok()
    }
}

/// Returns the name of a process as ps shows it; empty if the process does not exist.
pub fn name(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Returns whether a process exists and is not a zombie.
pub fn is_alive(pid: Pid) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Returns whether a process has this working directory.
pub fn is_in(pid: Pid, dir: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

/// Returns the children of a process, without zombies.
pub fn children(parent: Pid) -> Vec<Pid> {
    all().filter(|process| process.parent == parent && process.state != 'Z').map(|process| process.pid).collect()
}

/// Returns the descendants of a process, without zombies, nearest first.
pub fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut found = children(ancestor);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// Waits until a process has exited.
#[track_caller]
pub fn wait_gone(pid: Pid, bound: Duration) {
    poll_until(&format!("the exit of process {pid}"), bound, || !is_alive(pid));
}

/// Returns the process id of a child.
pub fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"))
}
