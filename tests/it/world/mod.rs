//! The harness: servers, faults, terminals, processes and permits.

mod closing;
mod cluster;
pub mod consul;
mod dns;
pub mod etcd;
mod grpc_proxy;
mod http;
mod ledger;
mod permits;
mod proc;
mod process;
mod proxy;
mod pty;
mod queue;
mod recorder;
mod server;
mod tls;
mod tries;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use distlock_core::time::Instant as Moment;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

pub use cluster::{Cluster, Fault, Member};
pub use consul::Consul;
pub use dns::{NameServer, Zone};
pub use etcd::{Etcd, Version};
pub use grpc_proxy::GrpcProxy;
pub use ledger::Ledger;
pub use permits::AllProcessors;
pub use proc::{Pinned, children, descendants, is_alive, name, state, wait_gone};
pub use process::{Finished, Run, Running, copy_program, start, write_program};
pub use proxy::{Mode, Proxy};
pub use pty::Terminal;
pub use queue::{Gate, Holder, enqueue};
pub use recorder::{Recorded, Recorder};
pub use server::{Entry, Server};
pub use tls::{Authority, Pem, ServerTls};
pub use tries::{lacks, once_in, within};

/// Servers that the tests of this process share. Each starts at its first use.
pub mod shared {
    use std::sync::OnceLock;

    use super::{Consul, Etcd, Server, Version};

    /// Returns an etcd 3.4 with one member.
    pub fn etcd34() -> &'static Etcd {
        static SERVER: OnceLock<Etcd> = OnceLock::new();
        SERVER.get_or_init(|| Etcd::start(Version::V34))
    }

    /// Returns an etcd 3.5 with one member.
    pub fn etcd35() -> &'static Etcd {
        static SERVER: OnceLock<Etcd> = OnceLock::new();
        SERVER.get_or_init(|| Etcd::start(Version::V35))
    }

    /// Returns a Consul agent in development mode.
    pub fn consul() -> &'static Consul {
        static SERVER: OnceLock<Consul> = OnceLock::new();
        SERVER.get_or_init(Consul::start)
    }

    /// Returns all shared servers.
    pub fn all() -> [&'static dyn Server; 3] {
        [etcd34(), etcd35(), consul()]
    }
}

/// Runs a test on etcd 3.4, etcd 3.5, Consul and this host, all at the same time. A failure shows the
/// backend as the name of the thread.
pub fn everywhere(test: impl Fn(&World) + Sync) {
    let on_server = |world: &World, _: &dyn Server| test(world);
    thread::scope(|scope| {
        on_thread(scope, "local", || test(&World::local()));
        on_servers_within(scope, &on_server);
    });
}

/// Runs a test on etcd 3.4, etcd 3.5 and Consul, all at the same time.
pub fn on_servers(test: impl Fn(&World, &dyn Server) + Sync) {
    thread::scope(|scope| on_servers_within(scope, &test));
}

fn on_servers_within<'s>(scope: &'s thread::Scope<'s, '_>, test: &'s (impl Fn(&World, &dyn Server) + Sync)) {
    let on = |server: &dyn Server| test(&World::on(server), server);
    on_thread(scope, "etcd-3.4", move || on(shared::etcd34()));
    on_thread(scope, "etcd-3.5", move || on(shared::etcd35()));
    on_thread(scope, "consul", move || on(shared::consul()));
}

fn on_thread<'s>(scope: &'s thread::Scope<'s, '_>, name: &str, test: impl FnOnce() + Send + 's) {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, test).expect("a thread starts");
}

/// A directory that serves as home and working directory, and the connection options of its jobs.
///
/// No variable of the machine's own environment reaches a process that is started here.
pub struct World {
    id: u32,
    dir: TempDir,
    connection: Vec<String>,
}

impl World {
    /// Creates a world without connection options.
    pub fn new() -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        Self { id: WORLDS.fetch_add(1, Ordering::Relaxed), dir: temp_dir(), connection: Vec::new() }
    }

    /// Creates a world whose jobs use this server.
    pub fn on<S: Server + ?Sized>(server: &S) -> Self {
        Self::at(server.backend(), &server.url())
    }

    /// Creates a world whose jobs use these endpoints.
    pub fn at(backend: &str, endpoints: &str) -> Self {
        let mut world = Self::new();
        world.connection = ["-b", backend, "-e", endpoints].map(str::to_owned).into();
        world
    }

    /// Creates a world whose jobs use the embedded backend.
    pub fn local() -> Self {
        let mut world = Self::new();
        let locks = format!("file://{}/locks", world.path().display());
        world.connection = ["-b", "local", "-e", &locks].map(str::to_owned).into();
        world
    }

    /// Returns the directory, which is deleted with the world.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns a lock name that no other world of this test process uses.
    pub fn name(&self, name: &str) -> String {
        format!("/test-{}/{name}", self.id)
    }

    /// Returns the binary under test with this world's connection options; [`Run::args`] adds the rest.
    pub fn distlock(&self) -> Run {
        self.command(env!("CARGO_BIN_EXE_distlock")).args(&self.connection)
    }

    /// Returns a program with the same minimal environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Run {
        Run::new(program.as_ref(), self.path())
    }

    /// Writes an executable script of `sh`, and returns its path.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        write_program(&path, format!("#!/bin/sh\n{text}\n").as_bytes());
        path.display().to_string()
    }

    /// Waits until a file of this world is not empty, and returns its content.
    #[track_caller]
    pub fn wait_for_file(&self, name: &str) -> String {
        let read = || fs::read_to_string(self.path().join(name)).ok().filter(|text| !text.is_empty());
        poll_for(name, secs(30), read)
    }

    /// Returns the processes whose working directory is this world's, whatever their parent is. A process that changed
    /// its working directory is missed.
    pub fn processes(&self) -> Vec<Pid> {
        proc::pids().filter(|&pid| proc::is_in(pid, self.path())).collect()
    }
}

impl Drop for World {
    /// Kills the remaining processes, so that a failed test does not disturb others.
    fn drop(&mut self) {
        for pid in self.processes() {
            // The process may have exited since.
            let _ = signal::kill(pid, Signal::SIGKILL);
        }
    }
}

/// Creates a temporary directory, in memory if possible, because servers sync every write to disk.
fn temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = match std::env::var_os("TMPDIR") {
        Some(dir) => PathBuf::from(dir),
        None if memory.is_dir() => memory.to_owned(),
        None => std::env::temp_dir(),
    };
    tempfile::Builder::new().prefix("distlock-test-").tempdir_in(parent).expect("a temporary directory")
}

/// Returns a duration of whole seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a duration of milliseconds.
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Parses the first word of `/proc/uptime`, the clock that a shell reads fastest. It is up to 10 ms early.
#[track_caller]
pub fn moment(uptime: &str) -> Moment {
    let seconds = uptime.trim().parse().unwrap_or_else(|_| panic!("not a time since boot: {uptime:?}"));
    Moment::from_boot(Duration::from_secs_f64(seconds))
}

/// Waits until `condition` holds; panics with `what` after `bound`.
#[track_caller]
pub fn poll_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    poll_for(what, bound, || condition().then_some(()));
}

/// Waits until `probe` returns a value, and returns it; panics with `what` after `bound`.
#[track_caller]
pub fn poll_for<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        // Read before the probe, so that a test delayed by busy processors probes once more.
        let late = started.elapsed() >= bound;
        let probed_at = Instant::now();
        if let Some(found) = probe() {
            return found;
        }
        assert!(!late, "waited {bound:?} for {what}");
        // A probe that reads all of /proc must not occupy a processor.
        thread::sleep((probed_at.elapsed() * 2).clamp(millis(5), millis(50)));
    }
}

/// Repeats `check`, an assertion that must keep holding, for `span`.
#[track_caller]
pub fn throughout(span: Duration, mut check: impl FnMut()) {
    let started = Instant::now();
    loop {
        // Read before the check, so that the last check follows the whole span.
        let last = started.elapsed() >= span;
        check();
        if last {
            return;
        }
        thread::sleep(millis(50).min(span));
    }
}

/// Sleeps for a time that is a condition of the test and has no observable effect, such as a lock-delay. Use
/// [`poll_until`] for observable conditions. `_what` documents the time.
pub fn let_pass(_what: &str, span: Duration) {
    thread::sleep(span);
}
