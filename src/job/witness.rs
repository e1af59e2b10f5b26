//! The witness: a third process in the supervisor's process group. It exists only with a controlling terminal.
//!
//! It observes signals: `kill %1` and `timeout` signal the whole group, and the signal itself does not show that. What the
//! witness received too was sent to the group and is not forwarded again.
//!
//! It wakes a suspended supervisor: while a job is stopped, the keeper would be the only guardian of descendants that
//! continue in a session of their own. So the witness learns the kill deadline from the keeper, and sends SIGCONT to the
//! supervisor when the deadline has passed or the keeper is dead.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use distlock_core::time::Instant;

use crate::exit;
use crate::sys::clock::{self, Alarm};
use crate::sys::process;

/// Byte for [`Testimony::Complete`] on the supervisor's socket: no signal has this number.
const COMPLETE: u8 = 0;
/// How often to wake a supervisor that stops again.
const WAKE_INTERVAL: Duration = Duration::from_millis(100);

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Witness {
    socket: OwnedFd,
    pid: Pid,
}

/// Message of the witness to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Testimony {
    /// The witness received this signal, so the whole group did.
    Received(Signal),
    /// All signals received before the last [`Witness::request_testimony`] were reported.
    Complete,
}

/// The keeper's end: sends the kill deadline to the witness.
#[derive(Debug)]
pub(crate) struct DeadlineSender(OwnedFd);

impl DeadlineSender {
    /// Sends the kill deadline; None while the command does not run or is frozen.
    ///
    /// The witness always reads, so a message does not fit only if the witness is stopped and cannot use it anyway.
    pub(crate) fn send(&self, kill_at: Option<Instant>) {
        let nanos = kill_at.map_or(u64::MAX, |at| u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX));
        let _ = send(self.0.as_raw_fd(), &nanos.to_ne_bytes(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }
}

impl Witness {
    /// Forks the witness, which reports `signals` and is killed when this process exits.
    pub(crate) fn fork(signals: &SigSet) -> anyhow::Result<(Self, DeadlineSender)> {
        let pair = || {
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("cannot create a socket pair for the witness")
        };
        let ((socket, to_supervisor), (keepers_end, to_keeper)) = (pair()?, pair()?);
        let supervisor = getpid();
        let pid = process::fork_into(|| {
            // Every other descriptor is the supervisor's or the command's. A copy here would delay end-of-file for readers.
            process::close_all_except(&[to_supervisor.as_raw_fd(), to_keeper.as_raw_fd()]);
            let _ = Observer { supervisor, to_supervisor, to_keeper }.run(signals);
            exit::OK
        })
        .context("cannot fork the witness")?;
        Ok((Self { socket, pid }, DeadlineSender(keepers_end)))
    }

    /// Kills and reaps the witness.
    pub(crate) fn end(&self) {
        // A child that is reaped only here: the pid cannot belong to another process.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }

    #[must_use]
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks the witness to report all signals that it has received, then [`Testimony::Complete`].
    pub(crate) fn request_testimony(&self) {
        let _ = send(self.socket.as_raw_fd(), &[COMPLETE], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }

    /// Returns the next message, without blocking.
    pub(crate) fn next(&self) -> Option<Testimony> {
        let mut number = [COMPLETE];
        match recv(self.socket.as_raw_fd(), &mut number, MsgFlags::MSG_DONTWAIT) {
            Ok(1) if number == [COMPLETE] => Some(Testimony::Complete),
            Ok(1) => Signal::try_from(i32::from(number[0])).ok().map(Testimony::Received),
            _ => None,
        }
    }

    /// Returns whether the witness is dead and all its messages were read.
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

/// The witness in its own process.
struct Observer {
    supervisor: Pid,
    to_supervisor: OwnedFd,
    to_keeper: OwnedFd,
}

impl Observer {
    /// Runs until the supervisor's end is closed.
    fn run(&self, signals: &SigSet) -> nix::Result<()> {
        process::rename(c"lock-witness");
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if Pid::parent() != self.supervisor {
            return Ok(());
        }
        // No signal ends or stops the witness: the terminal's keys are for the command.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let alarm = Alarm::new()?;
        let (mut wake_at, mut keeper_alive) = (None, true);
        loop {
            alarm.set(wake_at)?;
            let mut fds = vec![
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.to_supervisor.as_fd(), PollFlags::POLLIN),
                PollFd::new(alarm.as_fd(), PollFlags::POLLIN),
            ];
            if keeper_alive {
                fds.push(PollFd::new(self.to_keeper.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
            self.report_signals(&signals)?;
            self.answer_request(&signals)?;
            if keeper_alive {
                keeper_alive = self.read_deadlines(&mut wake_at)?;
            }
            if wake_at.is_some_and(|at| clock::now() >= at) {
                // It has no effect on a supervisor that is not stopped.
                kill(self.supervisor, Signal::SIGCONT)?;
                wake_at = Some(clock::now() + WAKE_INTERVAL);
            }
        }
    }

    fn report_signals(&self, signals: &SignalFd) -> nix::Result<()> {
        while let Some(info) = signals.read_signal()? {
            self.send(u8::try_from(info.ssi_signo).unwrap_or(COMPLETE))?;
        }
        Ok(())
    }

    fn answer_request(&self, signals: &SignalFd) -> nix::Result<()> {
        match recv(self.to_supervisor.as_raw_fd(), &mut [0_u8], MsgFlags::MSG_DONTWAIT) {
            // The supervisor's end is closed.
            Ok(0) => Err(Errno::EPIPE),
            Ok(_) => {
                self.report_signals(signals)?;
                self.send(COMPLETE)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&self, byte: u8) -> nix::Result<()> {
        match send(self.to_supervisor.as_raw_fd(), &[byte], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            // Never wait for a stopped supervisor, which reads nothing: the witness must wake it.
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the deadlines, of which the newest counts. Returns whether the keeper is alive.
    fn read_deadlines(&self, wake_at: &mut Option<Instant>) -> nix::Result<bool> {
        loop {
            let mut nanos = [0; 8];
            match recv(self.to_keeper.as_raw_fd(), &mut nanos, MsgFlags::MSG_DONTWAIT) {
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
