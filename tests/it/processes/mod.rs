//! No process of the command outlives the lock, whichever of supervisor and keeper is killed or stopped.

mod deaths;
mod idle;
mod stopped;
mod streams;

use std::time::Duration;

use distlock_core::time::Instant;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, millis, name, secs, within};

/// The least TTL that Consul grants; etcd gets the same.
const TTL: Duration = secs(10);
/// [`TTL`] with a grace that leaves busy processors five seconds for a late renewal.
const LEASE: [&str; 4] = ["-t", "10", "--grace", "1"];

/// Writes a command that ignores every signal it can; returns its path.
///
/// Its descendants are a daemon with a session of its own, without descriptors and environment, and processes that fork
/// twice and exit all the time.
fn stubborn(world: &World) -> String {
    world.script("storm", r#"( "$0" & )"#);
    let text = r#"
trap "" HUP INT QUIT USR1 USR2 ALRM TERM TSTP TTIN TTOU
setsid -f env -i sh -c "exec sleep 1000 <&- >&- 2>&-"
./storm
./storm
echo ready >ready
while :; do sleep 1000; done"#;
    world.script("stubborn", text)
}

/// Returns an error unless the world's processes, except the spared ones, have exited within `bound` after `since`.
///
/// A single look misses processes that fork and exit all the time, so many looks in a row must find none.
fn exited_within(world: &World, spared: &[Pid], since: Instant, bound: Duration) -> Result<(), String> {
    let (mut last_seen_at, mut empty_looks) = (since, 0);
    while empty_looks < 10 || distlock::now().since(last_seen_at) < millis(100) {
        // A process that the look finds may exit before the look ends.
        let look_began_at = distlock::now();
        let left: Vec<_> = world.processes().into_iter().filter(|pid| !spared.contains(pid)).collect();
        empty_looks += 1;
        if !left.is_empty() {
            (last_seen_at, empty_looks) = (look_began_at, 0);
            let left: Vec<_> = left.into_iter().map(|pid| format!("{pid} {}", name(pid))).collect();
            within(&format!("the exit of {left:?}"), last_seen_at.since(since), bound)?;
        }
    }
    println!("all processes had exited after {:?}", last_seen_at.since(since));
    Ok(())
}

/// Panics if [`exited_within`] fails, for bounds that allow no second attempt.
#[track_caller]
fn assert_exited(world: &World, spared: &[Pid], since: Instant, bound: Duration) {
    exited_within(world, spared, since, bound).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Sends a signal; returns the time just before.
fn send(pid: Pid, signal: Signal) -> Instant {
    let sent_at = distlock::now();
    kill(pid, signal).expect("the process exists");
    sent_at
}
