//! The controlling terminal: whether there is one, and its modes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The controlling terminal and its modes at the start.
#[derive(Debug)]
pub(crate) struct Terminal {
    modes: Option<Termios>,
}

impl Terminal {
    /// Returns the controlling terminal of this session, if it has one.
    #[must_use]
    pub(crate) fn open() -> Option<Self> {
        let tty = open().ok()?;
        Some(Self { modes: tcgetattr(&tty).ok() })
    }

    /// Restores the modes, because a killed command cannot. Does nothing if another job has the terminal.
    ///
    /// Opens the terminal again: a descriptor that stayed open would be inherited by the forked processes.
    pub(crate) fn restore(&self) {
        if let (Some(modes), Ok(tty)) = (&self.modes, open()) {
            restore_if_foreground(&tty, modes);
        }
    }
}

/// Opens the controlling terminal with an open file description of its own, so that `O_NONBLOCK` affects no other process.
pub(super) fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY | O_NONBLOCK).open("/dev/tty")
}

/// Returns whether this process is in the terminal's foreground process group.
pub(super) fn is_foreground(tty: impl AsFd) -> bool {
    tcgetpgrp(tty) == Ok(getpgrp())
}

/// Restores `modes` and returns true, or returns false if another job has the terminal.
pub(super) fn restore_if_foreground(tty: impl AsFd, modes: &Termios) -> bool {
    let foreground = is_foreground(&tty);
    if foreground {
        // Not TCSADRAIN: the output of a terminal that Ctrl-S stopped never drains.
        let _ = tcsetattr(tty, SetArg::TCSANOW, modes);
    }
    foreground
}
