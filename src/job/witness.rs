//! A witness in the process group. It does two things that nobody else could.
//!
//! Where the command shares the supervisor's group, `kill %1` and `timeout` reach both, and nothing in a signal says so.
//! A third member of the group, which reports what it gets, tells a signal that was sent to the whole group from one that
//! was sent to distlock.
//!
//! And a suspended job has a stopped supervisor, which would leave the keeper the only guardian of what still runs below.
//! So the witness learns the deadline from the keeper, and wakes the supervisor when that has come, or the keeper is gone.
//!
//! It exists only where there is a controlling terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use crate::sys::clock::{self, Alarm};
use crate::sys::process;
use distlock_core::time::Instant;

/// What stands for "that is all" in the supervisor's socket: no signal has this number.
const ALL: u8 = 0;
/// How often a supervisor is woken that stops again.
const WAKE_AGAIN: Duration = Duration::from_millis(100);

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Witness {
    socket: OwnedFd,
    pid: Pid,
}

/// What the witness says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It got this signal, so the whole group did.
    Got(Signal),
    /// It has told all that it got before it was asked.
    All,
}

/// The keeper's end: the witness learns from it until when the command may run.
#[derive(Debug)]
pub(crate) struct Watched(OwnedFd);

impl Watched {
    /// Tells when the command must be killed; None while it must not run, or stands still. The witness reads all the time,
    /// so what does not fit finds it stopped, and is of no use.
    pub(crate) fn tell(&self, kill: Option<Instant>) {
        let nanos = kill.map_or(u64::MAX, |at| u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX));
        let _ = send(self.0.as_raw_fd(), &nanos.to_ne_bytes(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }
}

impl Witness {
    /// Forks the witness, which reports `signals` and ends with this process. The second end is the keeper's.
    pub(crate) fn call(signals: &SigSet) -> io::Result<(Self, Watched)> {
        let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let ((ours, theirs), (keepers, watching)) = (pair()?, pair()?);
        let supervisor = getpid();
        let pid = process::fork_into(|| {
            // Every other descriptor is the supervisor's or the command's: to hold one open would keep readers waiting.
            process::close_all_but(&[theirs.as_raw_fd(), watching.as_raw_fd()]);
            let _ = Duty { supervisor, socket: theirs, keeper: watching }.run(signals);
            crate::exit::OK
        })?;
        Ok((Self { socket: ours, pid }, Watched(keepers)))
    }

    /// Ends it.
    pub(crate) fn dismiss(&self) {
        // Our child and not reaped but here, so the pid is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }

    /// Its process, to tell its waking from others' SIGCONT.
    #[must_use]
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks it to tell all that it got.
    pub(crate) fn ask(&self) {
        let _ = send(self.socket.as_raw_fd(), &[ALL], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }

    /// What it says next, without waiting.
    pub(crate) fn next(&self) -> Option<Word> {
        let mut number = [ALL];
        match recv(self.socket.as_raw_fd(), &mut number, MsgFlags::MSG_DONTWAIT) {
            Ok(1) if number == [ALL] => Some(Word::All),
            Ok(1) => Signal::try_from(i32::from(number[0])).ok().map(Word::Got),
            _ => None,
        }
    }

    /// Whether it is gone, and has nothing more to say.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        recv(self.socket.as_raw_fd(), &mut [0_u8], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK) == Ok(0)
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the witness has to do, in its own process.
struct Duty {
    supervisor: Pid,
    socket: OwnedFd,
    keeper: OwnedFd,
}

impl Duty {
    /// Reports and watches until nobody listens.
    fn run(&self, signals: &SigSet) -> nix::Result<()> {
        let _ = nix::sys::prctl::set_name(c"lock-witness");
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if Pid::parent() != self.supervisor {
            return Ok(());
        }
        // Nothing ends or stops it: the terminal's keys are for the command.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let alarm = Alarm::new()?;
        let (mut wake_at, mut watching) = (None, true);
        loop {
            alarm.set(wake_at)?;
            let mut fds = vec![
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(alarm.as_fd(), PollFlags::POLLIN),
            ];
            if watching {
                fds.push(PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
            self.testify(&signals)?;
            self.answer(&signals)?;
            if watching {
                watching = self.hear(&mut wake_at)?;
            }
            if wake_at.is_some_and(|at| clock::now() >= at) {
                // One that is not stopped takes no notice.
                kill(self.supervisor, Signal::SIGCONT)?;
                wake_at = Some(clock::now() + WAKE_AGAIN);
            }
        }
    }

    fn testify(&self, signals: &SignalFd) -> nix::Result<()> {
        while let Some(info) = signals.read_signal()? {
            self.say(u8::try_from(info.ssi_signo).unwrap_or(ALL))?;
        }
        Ok(())
    }

    fn answer(&self, signals: &SignalFd) -> nix::Result<()> {
        match recv(self.socket.as_raw_fd(), &mut [0_u8], MsgFlags::MSG_DONTWAIT) {
            // Nobody is there any more.
            Ok(0) => Err(Errno::EPIPE),
            Ok(_) => {
                self.testify(signals)?;
                self.say(ALL)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn say(&self, word: u8) -> nix::Result<()> {
        match send(self.socket.as_raw_fd(), &[word], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            // A supervisor that is stopped reads nothing, and is not to be waited for: it is to be woken.
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(gone) => Err(gone),
        }
    }

    /// Takes in what the keeper says, and whether it is still there. The newest deadline counts.
    fn hear(&self, wake_at: &mut Option<Instant>) -> nix::Result<bool> {
        loop {
            let mut nanos = [0; 8];
            match recv(self.keeper.as_raw_fd(), &mut nanos, MsgFlags::MSG_DONTWAIT) {
                Ok(8) => {
                    let nanos = u64::from_ne_bytes(nanos);
                    *wake_at = (nanos != u64::MAX).then(|| Instant::from_boot(Duration::from_nanos(nanos)));
                }
                Ok(_) | Err(Errno::ECONNRESET) => {
                    *wake_at = Some(clock::now());
                    return Ok(false);
                }
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
