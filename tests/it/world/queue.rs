//! Those at a lock: one that holds it for as long as a test wants, and others that stand behind it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Finished, Run, Running, World, poll_until, secs};

/// A job of ours that holds a lock until the test lets it go.
pub struct Holder {
    pub job: Running,
    gate: PathBuf,
}

impl Holder {
    /// Takes the lock; its command runs when this returns.
    #[track_caller]
    pub fn of(world: &World, name: &str) -> Self {
        Self::with(world, world.distlock(), name)
    }

    /// Takes the lock with this start of a command line.
    #[track_caller]
    pub fn with(world: &World, distlock: Run, name: &str) -> Self {
        static GATES: AtomicU32 = AtomicU32::new(0);
        let gate = world.path().join(format!("gate-{}", GATES.fetch_add(1, Ordering::Relaxed)));
        let hold = r#"echo holding; until [ -e "$1" ]; do sleep 0.01; done; date +%s%N"#;
        let job = distlock.args(["run", name, "--", "sh", "-c", hold, "hold"]).args([&gate]).spawn();
        poll_until("the holder", secs(30), || job.stdout() == "holding\n");
        Self { job, gate }
    }

    /// Lets the command end, and waits until the lock was given up. The last line that the command prints is when it
    /// ended, in nanoseconds of the wall clock.
    #[track_caller]
    pub fn release(self) -> Finished {
        fs::write(&self.gate, "").expect("a file in the world");
        self.job.wait_within(secs(20)).assert_code(0)
    }
}

/// Starts a contender (with `-v`) for a lock that is held; it stands in the queue when this returns.
#[track_caller]
pub fn enqueue(distlock: Run, name: &str, command: &[&str]) -> Running {
    let job = distlock.args(["-v", "run", name, "--"]).args(command).spawn();
    poll_until("a contender to wait", secs(30), || job.stderr().contains("waiting"));
    job
}
