//! A witness in the process group: tells a signal that was sent to the whole group from one that was sent to distlock.
//!
//! Where the command shares the supervisor's group, `kill %1` and `timeout` reach both, and nothing in a signal says so.
//! A third member of the group, which does nothing but report what it gets, does. It exists only where there is a
//! controlling terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::process;

/// The supervisor's end.
#[derive(Debug)]
pub struct Witness {
    socket: OwnedFd,
    pid: Pid,
}

impl Witness {
    /// Forks the witness, which reports `signals` and ends with this process.
    pub fn call(signals: &SigSet) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let pid = process::fork_into(|| {
            // Every other descriptor is the supervisor's or the command's: to hold one open would keep readers waiting.
            process::close_all_but(theirs.as_raw_fd());
            let _ = testify(&theirs, signals);
            crate::exit::OK
        })?;
        Ok(Self { socket: ours, pid })
    }

    /// Ends it.
    pub fn dismiss(&self) {
        // Our child and not reaped but here, so the pid is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }

    /// The next signal that the whole group got, without waiting.
    pub fn next(&self) -> Option<Signal> {
        let mut number = [0_u8];
        let read = recv(self.socket.as_raw_fd(), &mut number, MsgFlags::MSG_DONTWAIT);
        if read != Ok(1) {
            return None;
        }
        Signal::try_from(i32::from(number[0])).ok()
    }

    /// Whether it is gone, and has nothing more to say.
    pub fn is_gone(&self) -> bool {
        recv(self.socket.as_raw_fd(), &mut [0_u8], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK) == Ok(0)
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the witness does: nothing but report, until nobody listens.
fn testify(socket: &OwnedFd, signals: &SigSet) -> nix::Result<()> {
    let _ = nix::sys::prctl::set_name(c"lock-witness");
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Nothing ends or stops it: the terminal's keys are for the command.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC)?;
    loop {
        let Some(info) = signals.read_signal()? else { continue };
        let number = [u8::try_from(info.ssi_signo).unwrap_or_default()];
        match send(socket.as_raw_fd(), &number, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(gone) => return Err(gone),
        }
    }
}
