//! Password prompt on the controlling terminal, without echo.
//!
//! No library replaces it: rpassword 7.5 restores the terminal after neither SIGTERM nor SIGTSTP, and reads while its job is
//! in the background. Here signals are read like input, and the modes are restored before a signal takes effect.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc::SI_KERNEL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use nix::unistd::{read, write};

use super::process::{self, Inherited};
use super::{signals, tty};

/// Signals that end the prompt, and TSTP, which suspends it.
const SIGNALS: [Signal; 5] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP];
/// Limit on the attempts to stop until the job is in the foreground. In an orphaned process group TTIN has no effect.
const MAX_STOPS: u32 = 16;

/// What ended the prompt.
#[derive(Debug)]
pub(crate) enum Answer {
    Line(String),
    /// Ctrl-D on an empty line.
    EndOfInput,
    Signal {
        signal: Signal,
        /// Sent by the terminal, so a shell stops its loop.
        keyboard: bool,
    },
}

/// A terminal that can be asked for a password.
#[derive(Debug)]
pub(crate) struct Prompt(File);

impl Prompt {
    /// Opens the controlling terminal.
    pub(crate) fn open() -> io::Result<Self> {
        tty::open().map(Self)
    }

    /// Shows `question` and returns the answer, with the terminal's modes and the signal mask as they were before.
    /// Signals that `inherited` says are ignored stay ignored.
    pub(crate) fn ask(&self, question: &str, inherited: &Inherited) -> io::Result<Answer> {
        Dialog::new(&self.0, question, inherited)?.run()
    }
}

struct Dialog<'a> {
    tty: &'a File,
    question: &'a str,
    modes_before: Termios,
    mask_before: SigSet,
    signals: SignalFd,
}

impl<'a> Dialog<'a> {
    fn new(tty: &'a File, question: &'a str, inherited: &Inherited) -> io::Result<Self> {
        let modes_before = tcgetattr(tty)?;
        let set = signals::set(SIGNALS.into_iter().filter(|signal| !inherited.ignores(*signal)));
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut mask_before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut mask_before))?;
        Ok(Self { tty, question, modes_before, mask_before, signals })
    }

    fn run(&self) -> io::Result<Answer> {
        let mut line = Vec::new();
        let mut shown = false;
        loop {
            if !shown {
                if let Some(interrupted) = self.wait_for_foreground()? {
                    return Ok(interrupted);
                }
                self.show()?;
                shown = true;
            }
            match self.next_signal()? {
                Some(Answer::Signal { signal: Signal::SIGTSTP, .. }) => {
                    self.restore();
                    process::stop_by_signal(Signal::SIGTSTP);
                    shown = false;
                }
                Some(interrupted) => return Ok(interrupted),
                None => {
                    if let Some(answer) = self.read(&mut line)? {
                        return Ok(answer);
                    }
                    self.wait()?;
                }
            }
        }
    }

    /// Stops this process with TTIN, like a background job that reads, until it is in the foreground.
    fn wait_for_foreground(&self) -> io::Result<Option<Answer>> {
        for _ in 0..MAX_STOPS {
            match self.next_signal()? {
                Some(Answer::Signal { signal: Signal::SIGTSTP, .. }) => {}
                Some(interrupted) => return Ok(Some(interrupted)),
                None if tty::is_foreground(self.tty) => return Ok(None),
                None => {}
            }
            process::stop_by_signal(Signal::SIGTTIN);
        }
        Err(io::Error::other("another job has the terminal"))
    }

    /// Turns the echo off and writes the question. The terminal still edits lines and sends signals.
    fn show(&self) -> io::Result<()> {
        let mut modes = self.modes_before.clone();
        modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        modes.local_flags.insert(LocalFlags::ICANON | LocalFlags::ISIG);
        // Not TCSADRAIN: the output of a terminal that Ctrl-S stopped never drains.
        tcsetattr(self.tty, SetArg::TCSANOW, &modes)?;
        let _ = write(self.tty, self.question.as_bytes());
        Ok(())
    }

    fn restore(&self) {
        if tty::restore_if_foreground(self.tty, &self.modes_before) {
            // The user's own newline was not echoed.
            let _ = write(self.tty, b"\n");
        }
    }

    fn next_signal(&self) -> io::Result<Option<Answer>> {
        let Some(info) = self.signals.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        // A half-typed password must not reach the next program that reads.
        if tty::is_foreground(self.tty) {
            let _ = tcflush(self.tty, FlushArg::TCIFLUSH);
        }
        Ok(Some(Answer::Signal { signal: Signal::try_from(number)?, keyboard: info.ssi_code == SI_KERNEL }))
    }

    fn read(&self, line: &mut Vec<u8>) -> io::Result<Option<Answer>> {
        let mut buffer = [0; 1024];
        let length = match read(self.tty, &mut buffer) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        line.extend_from_slice(&buffer[..length]);
        let complete = match line.strip_suffix(b"\n") {
            Some(complete) => complete,
            None if length > 0 => return Ok(None),
            None if line.is_empty() => return Ok(Some(Answer::EndOfInput)),
            None => line,
        };
        let text = str::from_utf8(complete).map_err(|_| ErrorKind::InvalidData)?;
        Ok(Some(Answer::Line(text.to_owned())))
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = [self.signals.as_fd(), self.tty.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Dialog<'_> {
    fn drop(&mut self) {
        self.restore();
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask_before), None);
    }
}
