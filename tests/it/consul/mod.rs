//! What is Consul's alone.

mod replies;
mod endpoints;
mod queue;
mod relock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Running, World, descendants};

/// A host that dies, as the lock sees it: both processes of a job are gone, and neither gives anything up.
fn strike_dead(job: Running) {
    let all: Vec<_> = std::iter::once(job.pid()).chain(descendants(job.pid())).collect();
    for stop in [Signal::SIGSTOP, Signal::SIGKILL] {
        for &pid in &all {
            // It may have ended with another one.
            let _ = kill(pid, stop);
        }
    }
    drop(job);
}

/// Lets neither process of a job do anything.
fn stop(job: &Running) -> [Pid; 2] {
    let both = [job.keeper(), job.pid()];
    for pid in both {
        kill(pid, Signal::SIGSTOP).expect("a process");
    }
    both
}

/// Undoes [`stop`].
fn go_on(job: &[Pid]) {
    for &pid in job {
        kill(pid, Signal::SIGCONT).expect("a process");
    }
}

/// Waits for a lock, and writes who got it when.
fn named(world: &World, name: &str, who: &str) -> Running {
    let command = ["sh", "-c", r#"echo "$1" >>order"#, "named", who];
    crate::world::enqueue(world.distlock(), name, &command)
}
