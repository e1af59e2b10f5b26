//! Standard error without blocking: if a pipe is full or the terminal is stopped, text is lost, not time (rule 7).

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
/// Width of a terminal that does not report one, in columns.
const DEFAULT_WIDTH: usize = 80;

/// How to write to stderr without blocking.
#[derive(Debug)]
enum Method {
    /// Opens a non-blocking file description for each text: the flag on the inherited one would affect other processes, and
    /// a copy that stayed open in a forked process would delay end-of-file for a reader.
    Reopen,
    /// Sends to a socket with `MSG_DONTWAIT`.
    Send,
    /// Writes to a regular file, which blocks only for the disk. Reopened, it would not share the offset.
    Write,
    /// Polls before each write, if stderr is closed or cannot be reopened.
    Poll,
}

/// Standard error.
#[derive(Debug)]
pub(super) struct Console {
    method: Method,
    /// A live line is on the screen.
    live: bool,
}

impl Console {
    #[must_use]
    pub(super) fn new() -> Self {
        let stderr = std::io::stderr();
        let kind =
            fstat(&stderr).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let method = match kind {
            SFlag::S_IFSOCK => Method::Send,
            SFlag::S_IFREG => Method::Write,
            SFlag::S_IFIFO | SFlag::S_IFCHR => reopen().map_or(Method::Poll, |_| Method::Reopen),
            _ => Method::Poll,
        };
        Self { method, live: false }
    }

    /// Returns whether stderr is a terminal on which a live line can be redrawn.
    #[must_use]
    pub(super) fn can_redraw() -> bool {
        std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
    }

    /// Erases the live line and writes `text`, or as much of it as is possible without blocking.
    pub(super) fn write(&mut self, text: &str) {
        self.erase();
        self.write_nonblocking(text);
    }

    /// Replaces the live line with `text`, cut to the terminal's width. Does nothing if another job has the terminal.
    pub(super) fn draw(&mut self, text: &str) {
        let stderr = std::io::stderr();
        if tcgetpgrp(&stderr).is_ok_and(|foreground| foreground != getpgrp()) {
            return;
        }
        let width = tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { DEFAULT_WIDTH } else { width };
        // The last column stays free: some terminals move to the next line when it is written.
        self.write_nonblocking(&format!("\r{}{CLEAR}", cut(text, width - 1)));
        self.live = true;
    }

    pub(super) fn erase(&mut self) {
        if std::mem::take(&mut self.live) {
            self.write_nonblocking(&format!("\r{CLEAR}"));
        }
    }

    fn write_nonblocking(&self, text: &str) {
        let stderr = std::io::stderr();
        let bytes = text.as_bytes();
        match self.method {
            Method::Reopen => drop(reopen().and_then(|fd| nix::unistd::write(&fd, bytes))),
            Method::Send => drop(send(stderr.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)),
            Method::Write => drop(nix::unistd::write(&stderr, bytes)),
            Method::Poll if is_writable(&stderr) => drop(nix::unistd::write(&stderr, bytes)),
            Method::Poll => {}
        }
    }
}

fn reopen() -> Result<OwnedFd, Errno> {
    open("/proc/self/fd/2", OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Returns the text, cut to `width` columns and marked with an ellipsis if it is longer.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut columns_left = width.saturating_sub(1);
    let fits = |c: &char| {
        let left = columns_left.checked_sub(c.width().unwrap_or(0));
        columns_left = left.unwrap_or(0);
        left.is_some()
    };
    let cut: String = text.chars().take_while(fits).collect();
    if width == 0 { cut } else { cut + "…" }
}

fn is_writable(fd: &impl AsFd) -> bool {
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
    fn long_line_is_cut_by_columns_and_marked() {
        assert_eq!(cut("waiting", 7), "waiting");
        assert_eq!(cut("waiting", 6), "waiti…");
        assert_eq!(cut("ロック", 6), "ロック");
        assert_eq!(cut("ロック", 5), "ロッ…");
        assert_eq!(cut("ロック", 4), "ロ…");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        assert_eq!((cut("waiting", 1).as_str(), cut("waiting", 0).as_str()), ("…", ""));
    }
}
