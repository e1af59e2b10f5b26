//! What the supervisor prints. Nothing here blocks: a pipe that nobody reads or a stopped terminal loses text, never time.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{getpgrp, tcgetpgrp};
use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Clears from the cursor to the end of the line.
const CLEAR: &str = "\x1b[K";
/// Of a screen that does not tell its width, in columns.
const DEFAULT_WIDTH: usize = 80;

/// How stderr takes text without blocking.
#[derive(Debug)]
enum Way {
    /// Through an open file description of our own, non-blocking: the flag on the inherited one would be everybody's. It
    /// lives for one text only, so that no process forked meanwhile keeps a reader waiting for the end.
    Reopened,
    /// A socket, which knows to be written without waiting.
    Socket,
    /// A plain file: it cannot keep anybody waiting but for the disk, and its offset is shared.
    Plain,
    /// Closed, or of a kind that cannot be reopened.
    Polled,
}

/// Standard error.
#[derive(Debug)]
pub(super) struct Console {
    way: Way,
    /// A live line stands on the screen.
    live: bool,
}

impl Console {
    /// Looks at what stderr is.
    #[must_use]
    pub(super) fn new() -> Self {
        let stderr = std::io::stderr();
        let kind =
            fstat(&stderr).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let way = match kind {
            SFlag::S_IFSOCK => Way::Socket,
            SFlag::S_IFREG => Way::Plain,
            SFlag::S_IFIFO | SFlag::S_IFCHR => reopen().map_or(Way::Polled, |_| Way::Reopened),
            _ => Way::Polled,
        };
        Self { way, live: false }
    }

    /// Whether a live line can be drawn.
    #[must_use]
    pub(super) fn is_screen() -> bool {
        std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
    }

    /// Writes `text`, or as much of it as goes without waiting, in the place of a live line.
    pub(super) fn write(&mut self, text: &str) {
        self.erase();
        self.put(text);
    }

    /// Draws `text` as the live line, in the place of the last one, cut to the width of the screen. Leaves a terminal
    /// alone that somebody else works with.
    pub(super) fn draw(&mut self, text: &str) {
        let stderr = std::io::stderr();
        if tcgetpgrp(&stderr).is_ok_and(|foreground| foreground != getpgrp()) {
            return;
        }
        // A screen that does not tell its width may be of any.
        let width = tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { DEFAULT_WIDTH } else { width };
        // The last column stays free: some screens go on to the next line once it is written.
        self.put(&format!("\r{}{CLEAR}", fit(text, width - 1)));
        self.live = true;
    }

    /// Erases the live line.
    pub(super) fn erase(&mut self) {
        if std::mem::take(&mut self.live) {
            self.put(&format!("\r{CLEAR}"));
        }
    }

    fn put(&self, text: &str) {
        let stderr = std::io::stderr();
        let bytes = text.as_bytes();
        match self.way {
            Way::Reopened => drop(reopen().and_then(|fd| nix::unistd::write(&fd, bytes))),
            Way::Socket => drop(send(stderr.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)),
            Way::Plain => drop(nix::unistd::write(&stderr, bytes)),
            Way::Polled if writable(&stderr) => drop(nix::unistd::write(&stderr, bytes)),
            Way::Polled => {}
        }
    }
}

fn reopen() -> Result<OwnedFd, Errno> {
    open("/proc/self/fd/2", OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The text, or as much of it as stands in so many columns with a mark that there was more.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let left = room.checked_sub(c.width().unwrap_or(0));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let cut: String = text.chars().take_while(fits).collect();
    if width == 0 { cut } else { cut + "…" }
}

fn writable(fd: &impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(1) && fds[0].revents() == Some(PollFlags::POLLOUT)
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_columns_and_says_so() {
        assert_eq!(fit("waiting", 7), "waiting");
        assert_eq!(fit("waiting", 6), "waiti…");
        assert_eq!(fit("ロック", 6), "ロック");
        assert_eq!(fit("ロック", 5), "ロッ…");
        assert_eq!(fit("ロック", 4), "ロ…");
        assert_eq!(fit("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        assert_eq!((fit("waiting", 1).as_str(), fit("waiting", 0).as_str()), ("…", ""));
    }
}
