//! The controlling terminal: whether there is one, and its modes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The controlling terminal and the modes that it had at the start.
#[derive(Debug)]
pub(crate) struct Terminal {
    modes: Option<Termios>,
}

impl Terminal {
    /// The controlling terminal of this session, if it has one.
    #[must_use]
    pub(crate) fn open() -> Option<Self> {
        let tty = tty()?;
        Some(Self { modes: tcgetattr(&tty).ok() })
    }

    /// Sets the modes back that a killed command could not. Leaves a terminal alone that somebody else works with.
    pub(crate) fn restore(&self) {
        if let (Some(modes), Some(tty)) = (&self.modes, tty())
            && tcgetpgrp(&tty) == Ok(getpgrp())
        {
            // Not after the output has drained: a terminal that Ctrl-S stopped never drains.
            let _ = tcsetattr(&tty, SetArg::TCSANOW, modes);
        }
    }
}

/// Opened anew each time, so that no process forked meanwhile keeps the terminal open.
fn tty() -> Option<File> {
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty").ok()
}
