//! The messages between keeper and supervisor, and nothing else.
//!
//! The link is a pair of datagram-like sockets. Neither side ever blocks on it: what does not fit waits in an outbox,
//! where a newer deadline replaces an older one, and mere notes are dropped when they pile up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use distlock_core::messages::{FromKeeper, FromSupervisor};

/// No message is longer, and no text from a server makes it so.
const MAX_MESSAGE: usize = 64 * 1024;
/// Notes beyond this many unsent messages are dropped.
const MAX_BACKLOG: usize = 64;

trait Message: Serialize {
    /// The message takes the place of an unsent one of its kind.
    fn replaces(&self, _older: &Self) -> bool {
        false
    }
    /// The message may be lost.
    fn is_droppable(&self) -> bool {
        false
    }
}

impl Message for FromKeeper {
    fn replaces(&self, older: &Self) -> bool {
        Self::replaces(self, older)
    }
    fn is_droppable(&self) -> bool {
        Self::is_droppable(self)
    }
}

impl Message for FromSupervisor {
    fn replaces(&self, older: &Self) -> bool {
        self == older
    }
}

/// One end of the link.
#[derive(Debug)]
pub(crate) struct Link<Out> {
    socket: OwnedFd,
    outbox: VecDeque<Out>,
}

/// What there was to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<In> {
    /// A message.
    Message(In),
    /// Nothing at present.
    Nothing,
    /// The other process is gone.
    Closed,
}

/// Both ends: the supervisor's and the keeper's.
pub(crate) fn pair() -> nix::Result<(Link<FromSupervisor>, Link<FromKeeper>)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((Link { socket: ours, outbox: VecDeque::new() }, Link { socket: theirs, outbox: VecDeque::new() }))
}

#[allow(private_bounds, reason = "the two message types are all there are")]
impl<Out: Message> Link<Out> {
    /// Queues a message and sends what the socket takes.
    pub(crate) fn post(&mut self, message: Out) {
        if message.is_droppable() && self.outbox.len() >= MAX_BACKLOG {
            return;
        }
        // To its end, and not in place of the older one: it is news of after what stands between.
        self.outbox.retain(|older| !message.replaces(older));
        self.outbox.push_back(message);
        self.flush();
    }

    /// Sends what the socket takes. A link whose other end is gone takes everything.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.outbox.front() {
            let Ok(bytes) = serde_json::to_vec(message) else { return };
            if bytes.len() <= MAX_MESSAGE
                && send(self.socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
                    == Err(Errno::EAGAIN)
            {
                return;
            }
            self.outbox.pop_front();
        }
    }

    /// Whether messages wait for the socket to take them.
    #[must_use]
    pub(crate) fn backlog(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Reads one message, without blocking.
    pub(crate) fn receive<In: DeserializeOwned>(&self) -> io::Result<Received<In>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut read = || recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        // An end that left messages unread resets the other, once: what it sent before can still be read.
        let length = match read() {
            Err(Errno::ECONNRESET) => read(),
            other => other,
        };
        match length {
            Ok(0) | Err(Errno::ECONNRESET) => Ok(Received::Closed),
            Ok(length) => Ok(Received::Message(serde_json::from_slice(&buffer[..length])?)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }
}

impl<Out> AsFd for Link<Out> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<Out> AsRawFd for Link<Out> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use distlock_core::lease::Deadlines;
    use distlock_core::messages::{Notice, Verdict};
    use distlock_core::time::Instant;

    use super::*;

    fn deadlines(at: u64) -> FromKeeper {
        let at = Instant::from_boot(Duration::from_secs(at));
        FromKeeper::Deadlines(Deadlines { soft: at, kill: at, hard: at })
    }

    #[test]
    fn a_full_link_keeps_the_newest_deadline_and_drops_notes() {
        let (supervisor, mut keeper) = pair().expect("a socket pair");
        let mut sent = 0;
        while !keeper.backlog() {
            keeper.post(FromKeeper::Notice(Notice::Note("x".repeat(1000))));
            sent += 1;
        }
        for at in 0..1000 {
            keeper.post(deadlines(at));
            keeper.post(FromKeeper::Notice(Notice::Note("y".into())));
        }
        let done = FromKeeper::Done { verdict: Verdict::Exited(0), lingers: false };
        keeper.post(done.clone());
        assert!(keeper.outbox.len() <= MAX_BACKLOG + 2);

        let mut seen = Vec::new();
        loop {
            keeper.flush();
            match supervisor.receive::<FromKeeper>().expect("readable") {
                Received::Message(message) => seen.push(message),
                Received::Nothing => break,
                Received::Closed => panic!("the keeper's end is open"),
            }
        }
        assert!(seen.len() > sent);
        assert_eq!(
            seen.iter().filter(|m| matches!(m, FromKeeper::Deadlines(_))).collect::<Vec<_>>(),
            [&deadlines(999)]
        );
        assert_eq!(seen.last(), Some(&done));
    }

    #[test]
    fn the_end_of_the_other_process_is_seen() {
        let (supervisor, keeper) = pair().expect("a socket pair");
        assert_eq!(supervisor.receive::<FromKeeper>().expect("readable"), Received::Nothing);
        drop(keeper);
        assert_eq!(supervisor.receive::<FromKeeper>().expect("readable"), Received::Closed);
    }
}
