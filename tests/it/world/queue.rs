//! Contenders: a holder that the test controls, and waiters.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Finished, Run, Running, World, poll_until, secs};

/// A named pipe from which a command reads a line, with `read -r x <PATH`, which blocks until the test opens the gate.
/// Blocked commands take no processor time, so many can wait at the same time.
pub struct Gate {
    path: PathBuf,
    /// Open for reading too, so that the open does not block and a line stays in the pipe until it is read.
    pipe: File,
}

impl Gate {
    /// Creates a closed gate.
    pub fn new(world: &World) -> Self {
        static GATES: AtomicU32 = AtomicU32::new(0);
        let path = world.path().join(format!("gate-{}", GATES.fetch_add(1, Ordering::Relaxed)));
        mkfifo(&path, Mode::S_IRWXU).expect("a pipe in the world");
        let pipe = OpenOptions::new().read(true).write(true).open(&path).expect("the pipe opens");
        Self { path, pipe }
    }

    /// Returns the path of the pipe.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unblocks one command.
    pub fn open(&self) {
        (&self.pipe).write_all(b"go\n").expect("the pipe takes a line");
    }
}

/// A distlock job that holds a lock until the test releases it.
pub struct Holder {
    pub job: Running,
    gate: Gate,
}

impl Holder {
    /// Acquires the lock; its command runs when this returns.
    #[track_caller]
    pub fn of(world: &World, name: &str) -> Self {
        Self::with(world, world.distlock(), name)
    }

    /// Acquires the lock with this command line, which must lack the subcommand `run`.
    #[track_caller]
    pub fn with(world: &World, distlock: Run, name: &str) -> Self {
        let gate = Gate::new(world);
        let hold = r#"echo holding; read -r x <"$1"; read -r now idle </proc/uptime; echo "$now""#;
        let job = distlock.args(["run", name, "--", "sh", "-c", hold, "hold"]).args([gate.path()]).spawn();
        poll_until("the holder", secs(30), || job.stdout() == "holding\n");
        Self { job, gate }
    }

    /// Makes the command exit, and waits until the lock is released. The last line of stdout is the time of the exit,
    /// for [`super::moment`].
    #[track_caller]
    pub fn release(self) -> Finished {
        self.gate.open();
        self.job.wait_within(secs(30)).assert_code(0)
    }
}

/// Starts a contender (with `-v`) for a held lock, and waits until it is in the queue.
#[track_caller]
pub fn enqueue(distlock: Run, name: &str, command: &[&str]) -> Running {
    let job = distlock.args(["-v", "run", name, "--"]).args(command).spawn();
    poll_until("a contender in the queue", secs(30), || job.stderr().contains("waiting"));
    job
}
