//! What the supervisor prints. Nothing here blocks: a pipe that nobody reads or a stopped terminal loses text, never time.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};

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
pub struct Console(Way);

impl Console {
    /// Looks at what stderr is.
    #[must_use]
    pub fn new() -> Self {
        let stderr = std::io::stderr();
        let kind =
            fstat(&stderr).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        Self(match kind {
            SFlag::S_IFSOCK => Way::Socket,
            SFlag::S_IFREG => Way::Plain,
            SFlag::S_IFIFO | SFlag::S_IFCHR => reopen().map_or(Way::Polled, |_| Way::Reopened),
            _ => Way::Polled,
        })
    }

    /// Writes `text`, or as much of it as goes without waiting.
    pub fn write(&mut self, text: &str) {
        let stderr = std::io::stderr();
        let bytes = text.as_bytes();
        match self.0 {
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
