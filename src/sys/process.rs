//! Forking, executing and dying, and whatever else takes unsafe code: there is none elsewhere.
#![allow(unsafe_code, reason = "fork, and code between fork and exec, cannot be had safely")]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use super::signals;
use nix::fcntl::{F_GETFD, F_GETFL, F_SETFD, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork, getpid, setpgid};

/// What this process got from whoever started it, taken before anything is changed.
#[derive(Debug)]
pub(crate) struct Inherited {
    ignored: Vec<Signal>,
    descriptors: Vec<RawFd>,
    /// Soft and hard, where the soft one was raised.
    descriptor_limit: Option<(rlim_t, rlim_t)>,
}

impl Inherited {
    /// Takes stock. Call it first: later there are descriptors and dispositions of our own. The limit on descriptors is
    /// raised for this process alone; the command finds it as it was.
    #[must_use]
    pub(crate) fn take() -> Self {
        let ignored = signals::inherited().into_iter().filter(|signal| is_ignored(*signal)).collect();
        Self { ignored, descriptors: open_descriptors(), descriptor_limit: raise_descriptor_limit() }
    }

    /// Whether this signal was to be ignored.
    #[must_use]
    pub(crate) fn ignores(&self, signal: Signal) -> bool {
        self.ignored.contains(&signal)
    }

    /// Closes what only the command is to hold open, so that a reader of its output sees the end when the command closes
    /// it. The standard ones become `/dev/null`, but `keep`.
    pub(crate) fn close(&self, keep: &[RawFd]) {
        let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty());
        for &fd in self.descriptors.iter().filter(|fd| !keep.contains(fd)) {
            match &null {
                // SAFETY: dup2 onto a descriptor number; nothing in this process owns 0 to 2 as an OwnedFd.
                Ok(null) if fd <= 2 => drop(unsafe { libc::dup2(null.as_raw_fd(), fd) }),
                Err(_) if fd <= 2 => {}
                // SAFETY: these numbers were inherited, no object of ours owns them, and they are closed once.
                _ => drop(unsafe { libc::close(fd) }),
            }
        }
    }
}

/// Whoever guards a tree must be able to look at it, however few descriptors its command is to have.
fn raise_descriptor_limit() -> Option<(rlim_t, rlim_t)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    (soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok()).then_some((soft, hard))
}

/// The inherited descriptors. One that is close-on-exec cannot have come through an exec, so it is our own.
fn open_descriptors() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|fd| inheritable(*fd)).collect()
}

fn inheritable(fd: RawFd) -> bool {
    // SAFETY: the number is only used for this query, which fails when it names no open descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, F_GETFD).is_ok_and(|flags| !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
}

/// Makes an inherited descriptor ours: no command that is started from here on gets it.
///
/// # Errors
///
/// It is not open, not for writing, or was not inherited.
pub(crate) fn claim(fd: RawFd) -> io::Result<OwnedFd> {
    if !inheritable(fd) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open and came through the exec, so no object of ours owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, F_SETFD(FdFlag::FD_CLOEXEC))?;
    writable(fd)
}

/// A copy of a standard descriptor, which no command that is started from here on gets.
///
/// # Errors
///
/// It is not open, or not for writing.
pub(crate) fn copy(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only used for this call, which fails when it names no open descriptor.
    let copy = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    writable(copy)
}

fn writable(fd: OwnedFd) -> io::Result<OwnedFd> {
    let mode = OFlag::from_bits_truncate(fcntl(&fd, F_GETFL)?) & OFlag::O_ACCMODE;
    if mode == OFlag::O_RDONLY { Err(io::Error::from_raw_os_error(libc::EBADF)) } else { Ok(fd) }
}

/// Closes a descriptor in a process that was forked and never uses, nor drops, its parent's object that owns it.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: as the caller promises.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

fn is_ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only reads the present one into `now`, which is zeroed and large enough.
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Forks. The child runs `child` and exits with what it returns; nothing above it on the stack runs in the child.
///
/// Must be called while the process has one thread only, since the child goes on to allocate.
pub(crate) fn fork_into(child: impl FnOnce() -> u8) -> nix::Result<Pid> {
    // SAFETY: single-threaded here, so the child may do anything; it ends without returning.
    match unsafe { fork()? } {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = child();
            // Not `exit`: buffers and handlers belong to the parent.
            // SAFETY: _exit ends this process and touches nothing.
            unsafe { libc::_exit(i32::from(code)) }
        }
    }
}

/// The process group of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// One of its own.
    Own,
    /// This one, the supervisor's, so that the terminal takes both for one job.
    Shared(Pid),
    /// The one that all inherited, and that has no number in this PID namespace: nobody can be moved to it, so nobody
    /// leaves it, the keeper included.
    Unnamed,
}

impl Group {
    /// Moves a process there; this one, if `pid` is zero.
    fn take(self, pid: Pid) -> nix::Result<()> {
        match self {
            Self::Own => setpgid(pid, pid),
            Self::Shared(group) => setpgid(pid, group),
            Self::Unnamed => Ok(()),
        }
    }
}

/// What the command gets.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// Program and arguments.
    pub argv: &'a [OsString],
    /// Variables that are set for it, and override inherited ones.
    pub set: &'a [(&'static str, String)],
    /// The process group that it joins.
    pub group: Group,
    /// A descriptor of ours that it holds open as well.
    pub holds: Option<BorrowedFd<'a>>,
    /// Dispositions to restore.
    pub inherited: &'a Inherited,
}

impl Spawn<'_> {
    /// Forks the command, without waiting for its program: on a slow disk that may take longer than a lease. `report`, a
    /// close-on-exec pipe, ends when the program was executed, after an [`exec_error`] where it could not be. The command
    /// is killed should the calling *thread* end: call it from the main one.
    ///
    /// # Errors
    ///
    /// There is no process: none is to be had, or a word holds a zero byte.
    pub(crate) fn start(&self, report: &OwnedFd) -> io::Result<Pid> {
        // All that is allocated is allocated before the fork.
        let words = self.argv.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let environment = self.environment()?;
        let (argv, envp) = (pointers(&words), pointers(&environment));
        if words.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command"));
        }
        let parent = getpid();
        let mut before = SigSet::empty();
        // A signal that comes before the program runs is the program's, and this process ignores what it is to heed.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        // SAFETY: the child makes system calls only, allocates nothing, and ends in one of them.
        let forked = unsafe { fork() };
        if matches!(forked, Ok(ForkResult::Child)) {
            let error = match self.prepare(parent) {
                // SAFETY: both end with a null pointer, and what they point to lives above. It returns only to fail.
                Ok(()) => unsafe {
                    libc::execvpe(argv[0], argv.as_ptr(), envp.as_ptr());
                    nix::errno::Errno::last()
                },
                Err(error) => error,
            };
            let _ = nix::unistd::write(report, &(error as i32).to_ne_bytes());
            // SAFETY: _exit ends this process and touches nothing.
            unsafe { libc::_exit(127) }
        }
        // Nothing from here on fails: there is a process, and the caller is to know.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        let ForkResult::Parent { child: pid } = forked? else { return Err(io::ErrorKind::Other.into()) };
        // The child does so too; here it makes sure that its group can be signalled from now on.
        let _ = self.group.take(pid);
        Ok(pid)
    }

    /// What the child does before it executes the program.
    fn prepare(&self, parent: Pid) -> nix::Result<()> {
        self.group.take(Pid::from_raw(0))?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            return Err(nix::errno::Errno::ESRCH);
        }
        if let Some(fd) = self.holds {
            fcntl(fd, F_SETFD(FdFlag::empty()))?;
        }
        if let Some((soft, hard)) = self.inherited.descriptor_limit {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        restore_signals(&self.inherited.ignored);
        Ok(())
    }

    /// This process's environment, with what is set for the command.
    fn environment(&self) -> io::Result<Vec<CString>> {
        let set = self.set.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let inherited = std::env::vars_os().filter(|(name, _)| !self.set.iter().any(|(set, _)| name == set));
        let word = |(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).map_err(io::Error::from)
        };
        inherited.chain(set).map(word).collect()
    }
}

/// The words as C wants them.
fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// A pipe for [`Spawn::start`]: the end to read, and the end for the command.
///
/// # Errors
///
/// There are too many descriptors.
pub(crate) fn report_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// Why the program of a command was not executed, as its report says.
#[must_use]
pub(crate) fn exec_error(report: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(i32::from_ne_bytes(report.try_into().unwrap_or_default()))
}

/// Every signal at its default but those ignored on purpose, and none blocked.
fn restore_signals(ignored: &[Signal]) {
    for signal in Signal::iterator() {
        let handler = if ignored.contains(&signal) { SigHandler::SigIgn } else { SigHandler::SigDfl };
        set_handler(signal, handler);
    }
    // Real-time signals have no names; whoever started us may have had them ignored.
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

fn set_handler(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL and SIG_IGN run no code of ours. KILL and STOP refuse, as they must.
    let _ = unsafe { sigaction(signal, &action) };
}

/// Has the kernel keep the ends of children for this process, which one that ignores SIGCHLD never hears of.
pub(crate) fn await_children() {
    set_handler(Signal::SIGCHLD, SigHandler::SigDfl);
}

/// Ignores these signals from now on.
pub(crate) fn ignore(signals: &[Signal]) {
    for &signal in signals {
        set_handler(signal, SigHandler::SigIgn);
    }
}

/// Closes every descriptor but `keep`, in a process that was forked and owns none of the others.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| !keep.contains(fd)) {
        // SAFETY: the caller is a fork that never uses, nor drops, what its parent's objects own.
        unsafe { libc::close(fd) };
    }
}

/// Lets these signals do again what they usually do.
pub(crate) fn heed(signals: &[Signal]) {
    for &signal in signals {
        set_handler(signal, SigHandler::SigDfl);
    }
}

/// Dies of `signal`, so that a shell sees it: its loops stop. Returns when that is impossible, as for PID 1.
pub(crate) fn die_of(signal: Signal) {
    // The core file that QUIT would leave would be ours, not the command's.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    set_handler(signal, SigHandler::SigDfl);
    let _ = nix::sys::signal::kill(getpid(), signal);
    let mut only = SigSet::empty();
    only.add(signal);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
}

/// Stops this process by `signal`, which is shown by shells and told in their `$?`. Returns once it goes on.
pub(crate) fn stop_by(signal: Signal) {
    set_handler(signal, SigHandler::SigDfl);
    let _ = nix::sys::signal::kill(getpid(), signal);
    let mut only = SigSet::empty();
    only.add(signal);
    let mut before = SigSet::empty();
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), Some(&mut before));
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
}

/// Objects that own one descriptor from their creation to their end, and never exchange it.
pub(crate) trait FixedDescriptor: AsRawFd {}
impl FixedDescriptor for crate::sys::clock::Alarm {}
impl FixedDescriptor for nix::sys::signalfd::SignalFd {}
impl<Out> FixedDescriptor for crate::job::link::Link<Out> {}

/// Registers a descriptor with the runtime, which must be running.
pub(crate) fn register<T: FixedDescriptor>(inner: T) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: the types above keep their descriptor open and the same for as long as they live.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(inner)? })
}
