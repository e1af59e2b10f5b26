//! The password of a user, asked for on the terminal and not shown.
//!
//! Whatever ends the question, the terminal shows again what is typed: while it is put, signals come as text does, and
//! the modes are restored before anything is done about them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK, SI_KERNEL};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp, write};

use super::Early;
use crate::lock::Settings;
use crate::lock::transport::endpoint::Secret;
use crate::sys::process::{self, Inherited};
use crate::sys::signals;
use distlock_core::error::Failure;

/// What ends the question; Ctrl-Z only puts it off.
const SIGNALS: [Signal; 5] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP];
/// Each time that a job comes to the front counts. Where stopping has no effect, as in a group without a shell, it ends.
const MOST_STOPS: u32 = 16;

/// Completes the identity of a user who has no password yet.
///
/// # Errors
///
/// Nobody answered, or a signal came.
pub(super) fn complete(settings: &mut Settings, inherited: &Inherited) -> Result<(), Early> {
    let backend = settings.name();
    let Some(identity) = settings.identity() else { return Ok(()) };
    let Some(user) = identity.user.as_ref().filter(|_| identity.password.is_none()) else { return Ok(()) };
    let refuse = |why: &str| {
        Failure::usage(format!("the user {user} has no password, and {why}"))
            .hint("name a file that holds it with --password-file")
    };
    let tty = tty().map_err(|error| refuse("there is no terminal to ask for it").because(error))?;
    let question = format!("Password of {user} on {backend}: ");
    let answer = Question::new(&tty, inherited).and_then(|asked| asked.put(&question));
    match answer.map_err(|error| refuse("the terminal gave none").because(error))? {
        Answer::Line(line) => identity.password = Some(Secret::new(line)),
        Answer::Nothing => return Err(refuse("none was typed").into()),
        Answer::Signal { signal, keyboard } => {
            let failure = Failure::interrupted(signals::from_nix(signal), "while asking for a password");
            return Err(Early { failure, keyboard });
        }
    }
    Ok(())
}

/// A description of our own, so that what is done to it concerns nobody else: not waiting, above all.
fn tty() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY | O_NONBLOCK).open("/dev/tty")
}

/// What came of a question.
enum Answer {
    Line(String),
    /// Ctrl-D.
    Nothing,
    Signal {
        signal: Signal,
        /// From the terminal, so that a shell's loop is to stop.
        keyboard: bool,
    },
}

/// A terminal that is about to be asked, and its modes before that.
struct Question<'a> {
    tty: &'a File,
    modes: Termios,
    mask: SigSet,
    signals: SignalFd,
}

impl<'a> Question<'a> {
    fn new(tty: &'a File, inherited: &Inherited) -> io::Result<Self> {
        let modes = tcgetattr(tty)?;
        let mut set = SigSet::empty();
        SIGNALS.into_iter().filter(|signal| !inherited.ignores(*signal)).for_each(|signal| set.add(signal));
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut mask))?;
        Ok(Self { tty, modes, mask, signals })
    }

    fn put(&self, question: &str) -> io::Result<Answer> {
        let mut line = Vec::new();
        let mut shown = false;
        loop {
            if !shown {
                if let Some(interrupted) = self.come_to_the_front()? {
                    return Ok(interrupted);
                }
                self.hide(question)?;
                shown = true;
            }
            match self.signal()? {
                Some(Answer::Signal { signal: Signal::SIGTSTP, .. }) => {
                    self.restore();
                    process::stop_by(Signal::SIGTSTP);
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

    /// Stops, as a job in the background does that reads, until the terminal is ours.
    fn come_to_the_front(&self) -> io::Result<Option<Answer>> {
        for _ in 0..MOST_STOPS {
            match self.signal()? {
                Some(Answer::Signal { signal: Signal::SIGTSTP, .. }) => {}
                Some(interrupted) => return Ok(Some(interrupted)),
                None if self.in_front() => return Ok(None),
                None => {}
            }
            process::stop_by(Signal::SIGTTIN);
        }
        Err(io::Error::other("it is in use by another job"))
    }

    fn in_front(&self) -> bool {
        tcgetpgrp(self.tty) == Ok(getpgrp())
    }

    /// Lines are edited as the user is used to, unseen. Not after the output has drained: a terminal that Ctrl-S
    /// stopped never drains.
    fn hide(&self, question: &str) -> io::Result<()> {
        let mut modes = self.modes.clone();
        modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        modes.local_flags.insert(LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(self.tty, SetArg::TCSANOW, &modes)?;
        let _ = write(self.tty, question.as_bytes());
        Ok(())
    }

    /// Leaves a terminal alone that somebody else works with. The end of the line was not shown when it was typed.
    fn restore(&self) {
        if self.in_front() {
            let _ = tcsetattr(self.tty, SetArg::TCSANOW, &self.modes);
            let _ = write(self.tty, b"\n");
        }
    }

    fn signal(&self) -> io::Result<Option<Answer>> {
        let Some(info) = self.signals.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        // What was typed so far is nobody else's to read.
        if self.in_front() {
            let _ = tcflush(self.tty, FlushArg::TCIFLUSH);
        }
        Ok(Some(Answer::Signal { signal: Signal::try_from(number)?, keyboard: info.ssi_code == SI_KERNEL }))
    }

    fn read(&self, line: &mut Vec<u8>) -> io::Result<Option<Answer>> {
        let mut some = [0; 1024];
        let length = match read(self.tty, &mut some) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if length == 0 && line.is_empty() {
            return Ok(Some(Answer::Nothing));
        }
        line.extend_from_slice(&some[..length]);
        let whole = line.strip_suffix(b"\n").or((length == 0).then_some(&**line));
        let text = |whole: &[u8]| String::from_utf8(whole.to_owned()).map_err(|_| ErrorKind::InvalidData.into());
        whole.map(|whole| text(whole).map(Answer::Line)).transpose()
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = [self.signals.as_fd(), self.tty.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.restore();
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}
