//! Processes that a test starts: the binary under test and other programs.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::Pid;

use super::proc::{children, descendants, name, pid_of};
use super::{poll_for, secs};

/// Bound for the exit of a process.
const EXIT_TIMEOUT: Duration = secs(60);

/// Read-locked while a process starts, write-locked while a program is written: a child has copies of all descriptors
/// until its exec, and the kernel executes no file that is open for writing (ETXTBSY).
static PROGRAMS: RwLock<()> = RwLock::new(());

/// Creates a command with default signal dispositions and an empty signal mask, independent of those of the tests.
/// Start it with [`start`].
#[allow(unsafe_code, reason = "code between fork and exec cannot be safe")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // SAFETY: reset_signals only makes system calls.
    unsafe { command.pre_exec(reset_signals) };
    command
}

#[allow(unsafe_code, reason = "a disposition concerns the whole process")]
fn reset_signals() -> io::Result<()> {
    const LAST_REAL_TIME_SIGNAL: i32 = 64;
    for number in 1..=LAST_REAL_TIME_SIGNAL {
        // SAFETY: no handler is installed. KILL, STOP and the C library's own two signals are refused.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Starts a process. All processes of the tests start here.
#[allow(unsafe_code, reason = "a disposition concerns the whole process")]
pub fn start(command: &mut Command) -> io::Result<Child> {
    static CHILDREN_CAN_BE_AWAITED: Once = Once::new();
    CHILDREN_CAN_BE_AWAITED.call_once(|| {
        // SAFETY: no handler is installed. The kernel reaps the children of a process that ignores this signal.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    });
    let _no_program_is_open = PROGRAMS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Writes an executable file.
pub fn write_program(path: &Path, content: &[u8]) {
    let _no_process_starts = PROGRAMS.write().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, content).expect("a program is written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a program can be executed");
}

/// Copies an executable file.
pub fn copy_program(from: &str, to: &Path) {
    write_program(to, &fs::read(from).expect("a program of this machine"));
}

/// A command that is about to run in a [`super::World`].
pub struct Run {
    command: Command,
    dir: PathBuf,
}

impl Run {
    pub(super) fn new(program: &OsStr, dir: &Path) -> Self {
        let mut command = command(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", dir)
            .env("TMPDIR", dir)
            .env("LANG", "C.UTF-8")
            .current_dir(dir)
            .stdin(Stdio::null());
        Self { command, dir: dir.to_owned() }
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Returns a program that executes this command line as its arguments, such as `nohup`.
    pub fn through<A: AsRef<OsStr>>(self, program: &str, args: impl IntoIterator<Item = A>) -> Self {
        let outer = Self::new(program.as_ref(), &self.dir).args(args);
        outer.args([self.command.get_program()]).args(self.command.get_args())
    }

    /// Sets the content of stdin.
    pub fn stdin(mut self, text: &str) -> Self {
        let mut file = tempfile::tempfile_in(&self.dir).expect("a file for stdin");
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).expect("text written to a file");
        self.command.stdin(file);
        self
    }

    /// Returns the bare command, to connect its streams in another way; start it with [`start`].
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts the process with its output in files, which can be read at any time and never block.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let output = self.dir.join(format!("output-{}", RUNS.fetch_add(1, Ordering::Relaxed)));
        let (stdout, stderr) = (output.with_extension("stdout"), output.with_extension("stderr"));
        self.command
            .stdout(File::create(&stdout).expect("a file for stdout"))
            .stderr(File::create(&stderr).expect("a file for stderr"));
        let child = start(&mut self.command).unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command));
        Running { child, started: Instant::now(), what: format!("{:?}", self.command), stdout, stderr }
    }

    /// Starts the process and waits for its exit, which must come within a minute.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.spawn().wait()
    }
}

/// A running process. Dropping it kills the process and its descendants.
pub struct Running {
    child: Child,
    started: Instant,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Returns its process id. The process of a distlock job is the supervisor.
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// Returns the process id of this supervisor's keeper. In a terminal the supervisor has other children.
    #[track_caller]
    pub fn keeper(&self) -> Pid {
        let is_keeper = |pid: &Pid| name(*pid) == "lock-keeper";
        poll_for("the keeper", secs(30), || children(self.pid()).into_iter().find(is_keeper))
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        signal::kill(self.pid(), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.what));
    }

    /// Returns what it has written to stdout so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// Returns what it has written to stderr so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// Returns whether it has not exited yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for its exit, a minute at most.
    #[track_caller]
    pub fn wait(self) -> Finished {
        self.wait_within(EXIT_TIMEOUT)
    }

    /// Waits for its exit; kills it and panics with its output after `bound`.
    #[track_caller]
    pub fn wait_within(mut self, bound: Duration) -> Finished {
        let waiting_since = Instant::now();
        loop {
            // Read before the probe, as in `poll_for`.
            let late = waiting_since.elapsed() > bound;
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                let (stdout, stderr, what) = (self.stdout(), self.stderr(), std::mem::take(&mut self.what));
                return Finished { status, stdout, stderr, elapsed: self.started.elapsed(), what };
            }
            if late {
                let (stdout, stderr) = (self.stdout(), self.stderr());
                panic!("still running after {bound:?}: {}\nstdout: {stdout}\nstderr: {stderr}", self.what);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        let mut tree = descendants(self.pid());
        tree.push(self.pid());
        for pid in tree {
            // The process may have exited since.
            let _ = signal::kill(pid, Signal::SIGKILL);
        }
        self.child.wait().expect("a killed child can be waited for");
    }
}

/// A process that has exited.
pub struct Finished {
    status: ExitStatus,
    /// Its whole stdout.
    pub stdout: String,
    /// Its whole stderr.
    pub stderr: String,
    /// Time from its start to its exit, accurate to some milliseconds.
    pub elapsed: Duration,
    what: String,
}

impl Finished {
    /// Returns its exit code; none if a signal killed it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the signal that killed it.
    pub fn signal(&self) -> Option<Signal> {
        self.status.signal().map(|number| Signal::try_from(number).expect("a signal of this system"))
    }

    /// Panics with its output unless it exited with this code.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}", self.describe());
        self
    }

    /// Panics with its output unless this signal killed it.
    #[track_caller]
    pub fn assert_signal(self, signal: Signal) -> Self {
        assert_eq!(self.signal(), Some(signal), "{}", self.describe());
        self
    }

    /// Returns the command, its exit status and its output, for assertion messages.
    pub fn describe(&self) -> String {
        let Self { status, stdout, stderr, elapsed, what } = self;
        let mut text = format!("{what}: {status} after {elapsed:?}");
        for (stream, content) in [("stdout", stdout), ("stderr", stderr)] {
            let _ = write!(text, "\n--- {stream}\n{content}");
        }
        text
    }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::env;

    use crate::signals::dispositions;
    use crate::world::World;

    const PRINTING: &str = "DISTLOCK_TEST_PRINTS_STATUS";

    #[test]
    #[ignore = "run by processes_start_with_default_signals"]
    fn prints_status_of_its_child() {
        if env::var_os(PRINTING).is_some() {
            let world = World::new();
            print!("{}", world.command("cat").args(["/proc/self/status"]).run().assert_code(0).stdout);
        }
    }

    #[test]
    fn processes_start_with_default_signals() {
        let tests = env::current_exe().expect("the path of this binary");
        let options = ["--exact", "--ignored", "--nocapture", "world::process::tests::prints_status_of_its_child"];
        let world = World::new();
        let job = world.command(tests).args(options);
        let job = job.through("env", ["--ignore-signal", "--block-signal"]);
        let job = job.env(PRINTING, "1").run().assert_code(0);
        assert_eq!(dispositions(&job.stdout), [0; 4], "{}", job.describe());
    }
}
