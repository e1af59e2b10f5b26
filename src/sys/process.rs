//! Fork, exec, signal dispositions and descriptors: all code that needs `unsafe`.
#![allow(
    unsafe_code,
    reason = "fork, the code between fork and exec, and inherited descriptors have no safe interface"
)]

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::{fs, io, iter};

use nix::errno::Errno;
use nix::fcntl::{F_GETFD, F_GETFL, F_SETFD, FdFlag, OFlag, fcntl, open};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction, sigprocmask};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2, setpgid};
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

use super::clock::Alarm;
use super::signals;

/// What this process inherited from its parent, recorded before anything is changed.
#[derive(Debug)]
pub(crate) struct Inherited {
    ignored: Vec<Signal>,
    descriptors: Vec<RawFd>,
    /// Soft and hard limit, if the soft one was raised.
    descriptor_limit: Option<(rlim_t, rlim_t)>,
}

impl Inherited {
    /// Records what was inherited. Call it first, before distlock opens descriptors and changes dispositions of its own.
    /// Raises the limit on descriptors for this process; the command gets the original limit.
    #[must_use]
    pub(crate) fn capture() -> Self {
        let ignored = signals::inherited_if_ignored().into_iter().filter(|signal| is_ignored(*signal)).collect();
        Self { ignored, descriptors: inherited_descriptors(), descriptor_limit: raise_descriptor_limit() }
    }

    /// Returns whether `signal` was ignored at the start.
    #[must_use]
    pub(crate) fn ignores(&self, signal: Signal) -> bool {
        self.ignored.contains(&signal)
    }

    /// Closes the inherited descriptors except `keep`, so that a reader of the command's output sees the end when the
    /// command closes it. The standard ones become `/dev/null`, or stay if that cannot be opened.
    ///
    /// Call it once in a process: later, the same numbers can belong to other files.
    pub(crate) fn close(&self, keep: &[RawFd]) {
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        for &fd in self.descriptors.iter().filter(|fd| !keep.contains(fd)) {
            match &null {
                // SAFETY: dup2 onto a descriptor number; nothing in this process owns 0 to 2 as an OwnedFd.
                Ok(null) if fd <= 2 => drop(unsafe { libc::dup2(null.as_raw_fd(), fd) }),
                Err(_) if fd <= 2 => {}
                // SAFETY: these numbers were inherited, no object of this process owns them, and they are closed once.
                _ => drop(unsafe { libc::close(fd) }),
            }
        }
    }
}

/// Raises the soft limit to the hard one: a guardian needs descriptors to signal the tree, however few its command gets.
fn raise_descriptor_limit() -> Option<(rlim_t, rlim_t)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    (soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok()).then_some((soft, hard))
}

fn inherited_descriptors() -> Vec<RawFd> {
    open_descriptors().into_iter().filter(|fd| is_inherited(*fd)).collect()
}

/// Returns an inherited descriptor of the same file.
pub(crate) fn inherited_descriptor_of(file: &FileStat) -> Option<RawFd> {
    inherited_descriptors().into_iter().find(|fd| {
        // SAFETY: the number is only used for this query, which fails if it names no open descriptor.
        let stat = fstat(unsafe { BorrowedFd::borrow_raw(*fd) });
        stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (file.st_dev, file.st_ino))
    })
}

fn open_descriptors() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns whether `fd` is open and was inherited: one that is close-on-exec cannot have passed an exec.
fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: the number is only used for this query, which fails if it names no open descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, F_GETFD).is_ok_and(|flags| !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
}

/// Takes ownership of an inherited descriptor and makes it close-on-exec, so that the command does not get it.
///
/// # Errors
///
/// It is not open, not writable, or was not inherited.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if !is_inherited(fd) {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: it is open and was inherited, so no object of this process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, F_SETFD(FdFlag::FD_CLOEXEC))?;
    require_writable(fd)
}

/// Returns a close-on-exec duplicate of a standard descriptor.
///
/// # Errors
///
/// It is not open, or not writable.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only used for this call, which fails if it names no open descriptor.
    let duplicate = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    require_writable(duplicate)
}

fn require_writable(fd: OwnedFd) -> io::Result<OwnedFd> {
    let mode = OFlag::from_bits_truncate(fcntl(&fd, F_GETFL)?) & OFlag::O_ACCMODE;
    if mode == OFlag::O_RDONLY { Err(Errno::EBADF.into()) } else { Ok(fd) }
}

/// Closes a descriptor in a forked process that never uses or drops its parent's object that owns it.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: as the caller promises.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Closes every descriptor except `keep`, in a forked process that never uses or drops its parent's objects.
pub(crate) fn close_all_except(keep: &[RawFd]) {
    for fd in open_descriptors().into_iter().filter(|fd| !keep.contains(fd)) {
        // SAFETY: as the caller promises.
        unsafe { libc::close(fd) };
    }
}

fn is_ignored(signal: Signal) -> bool {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only reads the current one into `current`, which is zeroed and large enough.
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), current.as_mut_ptr()) == 0
            && current.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Forks. The child runs `child` and exits with the code that it returns; no caller's code runs in the child.
///
/// Must be called while the process has only one thread, because the child allocates.
pub(crate) fn fork_into(child: impl FnOnce() -> u8) -> nix::Result<Pid> {
    // SAFETY: single-threaded here, so the child may do anything; it exits without returning.
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

/// Process group of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessGroup {
    /// A new group.
    Own,
    /// The supervisor's group, so that the terminal treats both as one job.
    Shared(Pid),
    /// The inherited group, which has no number in this PID namespace. No process can be moved to it, so none may leave it,
    /// the keeper included.
    Unnamed,
}

impl ProcessGroup {
    /// Moves `pid` to the group; zero means this process.
    fn join(self, pid: Pid) -> nix::Result<()> {
        match self {
            Self::Own => setpgid(pid, pid),
            Self::Shared(group) => setpgid(pid, group),
            Self::Unnamed => Ok(()),
        }
    }
}

/// How to start the command.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// Program and arguments.
    pub argv: &'a [OsString],
    /// Variables to set, which override inherited ones.
    pub variables: &'a [(&'static str, String)],
    pub group: ProcessGroup,
    /// A close-on-exec descriptor of this process that the command gets too.
    pub passed_descriptor: Option<BorrowedFd<'a>>,
    /// Dispositions and limits to restore.
    pub inherited: &'a Inherited,
}

impl Spawn<'_> {
    /// Forks the command without waiting for the `exec` of its program, which can take longer than a lease on a slow disk.
    ///
    /// `exec_status`, the write end of a close-on-exec pipe, is closed when the program was executed, after an
    /// [`exec_error`] if that failed. The kernel kills the command when the calling *thread* ends: call it from the main one.
    ///
    /// # Errors
    ///
    /// No process could be forked, or a word contains a zero byte.
    pub(crate) fn start(&self, exec_status: &OwnedFd) -> io::Result<Pid> {
        // Everything is allocated before the fork.
        let words = self.argv.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let environment = self.environment()?;
        let (argv, envp) = (pointers(&words), pointers(&environment));
        if words.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command"));
        }
        let parent = getpid();
        let mut before = SigSet::empty();
        // The keeper ignores signals that the program must get: one that arrives before the exec stays pending.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        // SAFETY: the child makes system calls only, allocates nothing, and ends in one of them.
        let forked = unsafe { fork() };
        if matches!(forked, Ok(ForkResult::Child)) {
            let error = match self.prepare(parent) {
                // SAFETY: both end with a null pointer, and their strings live above. It returns only on failure.
                Ok(()) => unsafe {
                    libc::execvpe(argv[0], argv.as_ptr(), envp.as_ptr());
                    Errno::last()
                },
                Err(error) => error,
            };
            let _ = nix::unistd::write(exec_status, &(error as i32).to_ne_bytes());
            // SAFETY: _exit ends this process and touches nothing.
            unsafe { libc::_exit(127) }
        }
        // A failure after the fork must not hide the new process from the caller.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        let ForkResult::Parent { child: pid } = forked? else { return Err(io::ErrorKind::Other.into()) };
        // The child does this too. Here it ensures that the group can be signalled from now on.
        let _ = self.group.join(pid);
        Ok(pid)
    }

    /// Prepares the child for the exec of the program.
    fn prepare(&self, parent: Pid) -> nix::Result<()> {
        self.group.join(Pid::from_raw(0))?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(Errno::ESRCH);
        }
        if let Some(fd) = self.passed_descriptor {
            fcntl(fd, F_SETFD(FdFlag::empty()))?;
        }
        if let Some((soft, hard)) = self.inherited.descriptor_limit {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        restore_signals(&self.inherited.ignored);
        Ok(())
    }

    /// Returns the environment of this process with the variables for the command.
    fn environment(&self) -> io::Result<Vec<CString>> {
        let set = self.variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let inherited = std::env::vars_os().filter(|(name, _)| !self.variables.iter().any(|(set, _)| name == set));
        let word = |(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).map_err(io::Error::from)
        };
        inherited.chain(set).map(word).collect()
    }
}

/// Returns the words as a null-terminated array for C.
fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain(iter::once(std::ptr::null())).collect()
}

/// Returns a pipe for [`Spawn::start`]: the read end and the write end.
pub(crate) fn exec_status_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// Parses the error that [`Spawn::start`] wrote to its pipe.
#[must_use]
pub(crate) fn exec_error(status: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(i32::from_ne_bytes(status.try_into().unwrap_or_default()))
}

/// Resets every signal to its default except `ignored`, and unblocks all.
fn restore_signals(ignored: &[Signal]) {
    for signal in Signal::iterator() {
        let handler = if ignored.contains(&signal) { SigHandler::SigIgn } else { SigHandler::SigDfl };
        set_handler(signal, handler);
    }
    // The parent of distlock may have ignored real-time signals, which have no names.
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of this process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

fn set_handler(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL and SIG_IGN run no code of this process. It fails for KILL and STOP, as it must.
    let _ = unsafe { sigaction(signal, &action) };
}

/// Resets SIGCHLD to its default. If it was ignored, the kernel would discard the exit statuses of the children.
pub(crate) fn keep_exit_statuses() {
    set_handler(Signal::SIGCHLD, SigHandler::SigDfl);
}

pub(crate) fn ignore(signals: &[Signal]) {
    for &signal in signals {
        set_handler(signal, SigHandler::SigIgn);
    }
}

/// Resets the disposition of these signals.
pub(crate) fn restore_default(signals: &[Signal]) {
    for &signal in signals {
        set_handler(signal, SigHandler::SigDfl);
    }
}

/// Kills this process by `signal`, because shells stop their loops only then. Returns if that is impossible, as for PID 1.
pub(crate) fn die_by_signal(signal: Signal) {
    // A core file after QUIT would be distlock's, not the command's.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    set_handler(signal, SigHandler::SigDfl);
    let _ = kill(getpid(), signal);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&signals::set([signal])), None);
}

/// Stops this process by `signal`, which a shell then shows and puts in `$?`. Returns when it is continued.
pub(crate) fn stop_by_signal(signal: Signal) {
    set_handler(signal, SigHandler::SigDfl);
    let _ = kill(getpid(), signal);
    let mut mask_before = SigSet::empty();
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&signals::set([signal])), Some(&mut mask_before));
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask_before), None);
}

/// Types that own one descriptor as long as they live and never exchange it. [`register`] relies on that.
pub(crate) trait FixedDescriptor: AsRawFd {}
impl FixedDescriptor for Alarm {}
impl FixedDescriptor for nix::sys::signalfd::SignalFd {}

/// Registers a descriptor with the runtime, which must be running. An error returns the object.
pub(crate) fn register<T: FixedDescriptor>(inner: T) -> Result<AsyncFd<T>, AsyncFdRegisterError<T>> {
    // SAFETY: the implementors of the trait keep their descriptor open and the same as long as they live.
    unsafe { AsyncFd::register(inner) }
}

/// Renames this process, so that a kill by name (`killall distlock`, `pkill -f distlock`) does not hit all guardians of a
/// job: sets the process name, and overwrites the argument vector that `/proc` shows. The arguments must not be read
/// afterwards.
pub(crate) fn rename(name: &CStr) {
    let _ = nix::sys::prctl::set_name(name);
    let Some((start, end)) = argument_area() else { return };
    let Some(length) = end.checked_sub(start).filter(|length| *length > 0) else { return };
    let name = name.to_bytes();
    // SAFETY: the kernel reports this range as the memory of the arguments. It lies on the initial stack, which stays
    // mapped and writable for the life of the process, and nothing reads or writes it beside this thread.
    let area = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
    area.fill(0);
    // The last byte stays zero: otherwise the kernel takes the environment for a part of the arguments.
    let copied = name.len().min(length - 1);
    area[..copied].copy_from_slice(&name[..copied]);
}

/// Returns where the arguments of this process begin and end in memory (proc(5), fields 48 and 49 of `stat`).
fn argument_area() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name, which may contain spaces and parentheses.
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(48 - 3);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
