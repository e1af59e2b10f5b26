//! The controlling terminal: whether there is one, and its modes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, getpid, setpgid, tcgetpgrp, tcsetpgrp};

/// The controlling terminal and the modes that it had at the start.
#[derive(Debug)]
pub struct Terminal {
    modes: Option<Termios>,
}

impl Terminal {
    /// The controlling terminal of this session, if it has one and this process's group can be named.
    #[must_use]
    pub fn open() -> Option<Self> {
        let tty = tty().filter(has_group)?;
        Some(Self { modes: tcgetattr(&tty).ok() })
    }

    /// Sets the modes back that a killed command could not. Leaves a terminal alone that somebody else works with.
    pub fn restore(&self) {
        if let (Some(modes), Some(tty)) = (&self.modes, tty())
            && tcgetpgrp(&tty) == Ok(getpgrp())
        {
            // Not after the output has drained: a terminal that Ctrl-S stopped never drains.
            let _ = tcsetattr(&tty, SetArg::TCSANOW, modes);
        }
    }
}

/// Makes sure that this process is in a group that it can name. The first process of a PID namespace is in one from
/// outside: it takes the terminal with a group of its own. False: that was refused, and the terminal stays another's.
fn has_group(tty: &File) -> bool {
    if getpgrp().as_raw() != 0 {
        return true;
    }
    if setpgid(Pid::from_raw(0), Pid::from_raw(0)).is_err() {
        return false;
    }
    let (mut before, mut stops) = (SigSet::empty(), SigSet::empty());
    stops.add(Signal::SIGTTOU);
    // Who sets the foreground from the background is stopped, unless the signal is blocked.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stops), Some(&mut before));
    let taken = tcsetpgrp(tty, getpid()).is_ok();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    taken
}

/// Opened anew each time, so that no process forked meanwhile keeps the terminal open.
fn tty() -> Option<File> {
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty").ok()
}
