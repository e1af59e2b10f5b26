//! Behaviour on Consul only: the queue, agents and servers, lock-delay, permissions.

mod endpoints;
mod queue;
mod relock;
mod renewal;
mod replies;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Running, World, descendants};

/// Simulates the crash of a job's host: all its processes die, and none releases anything.
fn crash(job: Running) {
    let pids: Vec<_> = std::iter::once(job.pid()).chain(descendants(job.pid())).collect();
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for &pid in &pids {
            // The process may have died with another one.
            let _ = kill(pid, signal);
        }
    }
    drop(job);
}

/// Stops the keeper and the supervisor of a job.
fn pause(job: &Running) -> [Pid; 2] {
    let pids = [job.keeper(), job.pid()];
    for pid in pids {
        kill(pid, Signal::SIGSTOP).expect("the process exists");
    }
    pids
}

/// Continues processes stopped by [`pause`].
fn resume(pids: &[Pid]) {
    for &pid in pids {
        kill(pid, Signal::SIGCONT).expect("the process exists");
    }
}

/// Starts a waiter that appends its label to the file `order` when it runs.
fn enqueue_labelled(world: &World, name: &str, label: &str) -> Running {
    let command = ["sh", "-c", r#"echo "$1" >>order"#, "labelled", label];
    crate::world::enqueue(world.distlock(), name, &command)
}
