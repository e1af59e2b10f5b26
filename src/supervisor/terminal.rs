//! The controlling terminal: whether there is one, and its modes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The controlling terminal and the modes that it had at the start.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    modes: Option<Termios>,
}

impl Terminal {
    /// The controlling terminal of this session, if it has one.
    #[must_use]
    pub fn open() -> Option<Self> {
        let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
        let tty = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty").ok()?;
        let modes = tcgetattr(&tty).ok();
        Some(Self { tty, modes })
    }

    /// Sets the modes back that a killed command could not. Leaves a terminal alone that somebody else works with.
    pub fn restore(&self) {
        if let Some(modes) = &self.modes
            && tcgetpgrp(&self.tty) == Ok(getpgrp())
        {
            let _ = tcsetattr(&self.tty, SetArg::TCSADRAIN, modes);
        }
    }
}
