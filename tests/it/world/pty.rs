//! An interactive terminal: bash in a pseudo-terminal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use super::proc::pid_of;
use super::process::start;
use super::{World, poll_until, secs};

/// The prompt of the shell. Tests never type it, since the echo of a command line would look like a prompt.
const PROMPT: &str = "ready> ";

/// An interactive bash with job control, in its own terminal.
pub struct Terminal {
    screen: File,
    shell: Child,
    /// Text shown after the last expected text.
    unread: String,
}

impl Terminal {
    /// Opens a terminal of 80 columns and waits for the first prompt.
    #[track_caller]
    pub fn open(world: &World) -> Self {
        // With bracketed paste, bash prints escape codes between a command line and its output.
        fs::write(world.path().join(".inputrc"), "set enable-bracketed-paste off\n").expect("a file in the world");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let (screen, slave) = pair().expect("a pseudo-terminal");
        tcsetwinsize(&slave, size).expect("a size");
        let slave = || slave.try_clone().expect("a descriptor can be duplicated");
        // setsid makes its stdin the controlling terminal and executes bash.
        let shell = world
            .command("setsid")
            .args(["--ctty", "bash", "--norc", "--noprofile", "-i"])
            .env("PS1", PROMPT)
            .env("TERM", "xterm");
        let mut shell = shell.into_command();
        let shell = start(shell.stdin(slave()).stdout(slave()).stderr(slave())).expect("bash starts");
        let mut terminal = Self { screen, shell, unread: String::new() };
        terminal.prompt();
        terminal
    }

    /// Returns the shell's process id.
    pub fn pid(&self) -> Pid {
        pid_of(&self.shell)
    }

    /// Types these characters: `\n` is the Enter key, `\x03` Ctrl-C, `\x1a` Ctrl-Z, `\x1c` Ctrl-\.
    pub fn send(&mut self, keys: &str) {
        self.screen.write_all(keys.replace('\n', "\r").as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until the terminal has turned its echo off, then types hidden input.
    #[track_caller]
    pub fn send_hidden(&mut self, keys: &str) {
        let echo_is_off = || {
            let modes = tcgetattr(&self.screen).expect("the terminal's modes");
            !modes.local_flags.contains(LocalFlags::ECHO)
        };
        poll_until("a prompt for hidden input", secs(30), echo_is_off);
        self.send(keys);
    }

    /// Types a command line, waits for its echo, then types Enter.
    #[track_caller]
    pub fn line(&mut self, command: &str) {
        self.send(command);
        self.expect(command);
        self.send("\n");
    }

    /// Waits for a prompt; returns the text before it.
    #[track_caller]
    pub fn prompt(&mut self) -> String {
        self.expect(PROMPT)
    }

    /// Waits until this text is shown after the last expected text; returns the text between them. Panics after 30 s.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let bound = secs(30);
        let started = Instant::now();
        loop {
            if let Some(at) = self.unread.find(text) {
                let rest = self.unread.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.unread, rest);
                before.truncate(at);
                return before;
            }
            let open = self.read_some(bound.saturating_sub(started.elapsed()));
            assert!(open && started.elapsed() < bound, "waited {bound:?} for {text:?}; shown: {:?}", self.unread);
        }
    }

    /// Reads new text within this time, if any; returns false if the terminal was closed.
    fn read_some(&mut self, wait: Duration) -> bool {
        let mut readable = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(wait).expect("seconds");
        if poll(&mut readable, timeout).expect("the terminal can be polled") == 0 {
            return true;
        }
        let mut buffer = [0; 4096];
        // The end of a pseudo-terminal is an error, EIO.
        let length = self.screen.read(&mut buffer).unwrap_or(0);
        self.unread.push_str(&String::from_utf8_lossy(&buffer[..length]));
        length > 0
    }
}

/// Opens both ends. Children inherit neither, because another open descriptor would prevent a hangup.
fn pair() -> nix::Result<(File, File)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = open(&*ptsname_r(&master)?, flags, Mode::empty())?;
    Ok((File::from(OwnedFd::from(master)), File::from(slave)))
}

impl Terminal {
    /// Closes the terminal; returns the exit status of the session leader.
    #[track_caller]
    pub fn hang_up(mut self) -> ExitStatus {
        // The screen is the last descriptor of the master side.
        self.screen = File::open("/dev/null").expect("a device of every Linux");
        let mut status = None;
        poll_until("the exit of the session leader", secs(20), || {
            status = self.shell.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("the session leader has exited")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The world kills the jobs of the shell.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
