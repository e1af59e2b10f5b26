//! Common parts of all servers: the requests of tests, start and stop.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fs, thread};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::{Run, World, millis, proc, process, secs, temp_dir};

/// A server of any kind: requests to it, independent of distlock.
pub trait Server: Sync {
    /// Returns the value of `--backend`.
    fn backend(&self) -> &'static str;

    /// Returns the address of its listener.
    fn address(&self) -> SocketAddr;

    /// Returns the value of `--endpoints`.
    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns the keys with this prefix, such as a lock name, in the server's order.
    fn entries(&self, prefix: &str) -> Vec<Entry>;

    /// Returns how many contenders hold a lock or wait for it.
    fn contenders(&self, name: &str) -> usize {
        let leases: HashSet<_> = self.entries(name).into_iter().filter_map(|entry| entry.lease).collect();
        leases.len()
    }

    /// Deletes one key.
    fn delete(&self, key: &str);

    /// Returns the ids of all leases (sessions) of all clients.
    fn leases(&self) -> Vec<String>;

    /// Revokes a lease (destroys a session).
    fn end_lease(&self, id: &str);

    /// Returns the peer's own tool, which runs `command` under the lock `name`.
    fn peer_lock(&self, world: &World, name: &str, command: &[String]) -> Run;
}

/// A key on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    /// The lease in hexadecimal, or the session, of the key.
    pub lease: Option<String>,
    /// etcd's `create_revision`, Consul's `ModifyIndex`.
    pub revision: u64,
}

/// A server process with its data, which can be killed and started again.
pub struct Node {
    dir: PathBuf,
    argv: Vec<String>,
    daemon: Mutex<Option<Daemon>>,
}

impl Node {
    /// Starts a server with a directory of its own; `argv` returns its command line.
    pub fn start(argv: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = temp_dir().keep();
        let argv = argv(&dir);
        let daemon = Mutex::new(Some(Daemon::start(&dir, &argv)));
        Self { dir, argv, daemon }
    }

    /// Waits until `ready` returns true; returns an error with the end of the log if the server exits, or after a
    /// minute.
    pub fn wait_ready(&self, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let started = Instant::now();
        while !ready() {
            if !proc::is_alive(self.pid()) || started.elapsed() > secs(60) {
                return Err(format!("{:?} is not ready:\n{}", self.argv, self.log_tail()));
            }
            thread::sleep(millis(10));
        }
        Ok(())
    }

    /// Returns the server's process id.
    pub fn pid(&self) -> Pid {
        self.daemon().as_ref().expect("the server was killed").pid
    }

    /// Kills the server; its data stays.
    pub fn kill(&self) {
        if let Some(daemon) = self.daemon().take() {
            daemon.stop_and_keep();
        }
    }

    /// Starts the server again, on its data and ports.
    pub fn restart(&self) {
        self.kill();
        *self.daemon() = Some(Daemon::start(&self.dir, &self.argv));
    }

    /// Stops the server with SIGSTOP.
    pub fn pause(&self) {
        signal::kill(self.pid(), Signal::SIGSTOP).expect("the server runs");
    }

    /// Continues a paused server.
    pub fn resume(&self) {
        signal::kill(self.pid(), Signal::SIGCONT).expect("the server runs");
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The guard of a killed server does not delete its data.
        if self.daemon().take().is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A server process and its guard: a shell that kills the server and deletes its directory when the pipe to this test
/// process closes for any reason.
struct Daemon {
    pid: Pid,
    guard: Child,
}

/// If the test process dies while the server is stopped, the kernel sends SIGHUP to the guard, and the pipe for the
/// process id may have no reader. Neither must kill the guard.
const GUARD: &str = r#"
trap '' HUP PIPE
dir=$1
shift
"$@" >"$dir/log" 2>&1 &
echo $!
read -r word
kill -KILL $!
wait
[ "$word" = keep ] || rm -rf "$dir"
"#;

impl Daemon {
    fn start(dir: &Path, argv: &[String]) -> Self {
        let mut guard = process::command("/bin/sh");
        guard
            .args(["-c", GUARD, "guard"])
            .arg(dir)
            .args(argv)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", dir)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C at the tests must not kill the guard before the server.
            .process_group(0);
        let mut guard = process::start(&mut guard).expect("a shell starts");
        let mut line = String::new();
        let stdout = guard.stdout.take().expect("a piped stream");
        BufReader::new(stdout).read_line(&mut line).expect("the guard prints the server's process id");
        let pid = Pid::from_raw(line.trim().parse().expect("a process id"));
        Self { pid, guard }
    }

    fn stop_and_keep(mut self) {
        let stdin = self.guard.stdin.as_mut().expect("a piped stream");
        stdin.write_all(b"keep\n").expect("the guard reads its pipe");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().expect("the guard can be waited for");
    }
}

/// Starts a server on free ports; retries with others if another process takes them meanwhile.
pub fn start_on_free_ports<S>(mut start: impl FnMut() -> Result<S, String>) -> S {
    let mut error = String::new();
    for _ in 0..5 {
        match start() {
            Ok(server) => return server,
            Err(reason) => error = reason,
        }
    }
    panic!("{error}");
}

/// Returns a loopback address with a free port, each address once.
///
/// The port is below the kernel's range for outgoing connections, so that none takes the port of a server during its
/// restart.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes on the same machine begin at different ports.
    let offset = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).expect("less than COUNT");
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + (offset + next) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Returns the path of a server's binary, which `scripts/servers` provides in `servers` of the target directory.
pub fn binary(path: &str) -> String {
    Path::new(env!("CARGO_BIN_EXE_distlock"))
        .ancestors()
        .map(|dir| dir.join("servers").join(path))
        .find(|binary| binary.exists())
        .unwrap_or_else(|| panic!("no target/servers/{path}: run scripts/servers first"))
        .display()
        .to_string()
}
