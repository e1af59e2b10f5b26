//! The link: carries the messages between keeper and supervisor.
//!
//! It is a pair of sockets that keep message boundaries. Neither process blocks on it: a message that does not fit waits in
//! an outbox, in which a newer deadline replaces an older one, and notes are dropped if too many are unsent (rule 7).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use distlock_core::messages::{FromKeeper, FromSupervisor};

use crate::sys::process::FixedDescriptor;

/// Limit on the length of a message in bytes. Longer ones are dropped.
const MAX_MESSAGE: usize = 64 * 1024;
/// Limit on unsent messages; droppable ones beyond it are dropped.
const MAX_UNSENT: usize = 64;

trait Message: Serialize {
    /// Returns whether this message makes an unsent `older` one obsolete.
    fn replaces(&self, _older: &Self) -> bool {
        false
    }
    /// Returns whether this message may be dropped if too many are unsent.
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
        Self::replaces(self, older)
    }
}

/// One end of the link.
#[derive(Debug)]
pub(crate) struct Link<Out> {
    socket: OwnedFd,
    outbox: VecDeque<Out>,
}

/// Result of [`Link::receive`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<In> {
    Message(In),
    /// No message is available yet.
    Nothing,
    /// The other end is closed: its process has exited or is about to.
    Closed,
}

/// Returns both ends: the supervisor's and the keeper's.
pub(crate) fn pair() -> nix::Result<(Link<FromSupervisor>, Link<FromKeeper>)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (supervisor, keeper) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((Link { socket: supervisor, outbox: VecDeque::new() }, Link { socket: keeper, outbox: VecDeque::new() }))
}

#[allow(private_bounds, reason = "no other message types exist")]
impl<Out: Message> Link<Out> {
    /// Queues a message and sends as much as the socket accepts.
    pub(crate) fn send(&mut self, message: Out) {
        if message.is_droppable() && self.outbox.len() >= MAX_UNSENT {
            return;
        }
        // At the end, not at the older one's position: it happened after the messages in between.
        self.outbox.retain(|older| !message.replaces(older));
        self.outbox.push_back(message);
        self.flush();
    }

    /// Sends as much as the socket accepts. If the other end is closed, all messages are dropped.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.outbox.front() {
            let Ok(bytes) = serde_json::to_vec(message) else { return };
            if bytes.len() <= MAX_MESSAGE
                && socket::send(self.socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
                    == Err(Errno::EAGAIN)
            {
                return;
            }
            self.outbox.pop_front();
        }
    }

    #[must_use]
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Reads one message, without blocking.
    pub(crate) fn receive<In: DeserializeOwned>(&self) -> io::Result<Received<In>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut read = || socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        // An end that is closed with unread messages resets the other once. Earlier messages can still be read.
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

impl<Out> FixedDescriptor for Link<Out> {}

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
    fn full_link_keeps_newest_deadline_and_drops_notes() {
        let (supervisor, mut keeper) = pair().expect("a socket pair");
        let mut sent = 0;
        while !keeper.has_unsent() {
            keeper.send(FromKeeper::Notice(Notice::Note("x".repeat(1000))));
            sent += 1;
        }
        for at in 0..1000 {
            keeper.send(deadlines(at));
            keeper.send(FromKeeper::Notice(Notice::Note("y".into())));
        }
        let done = FromKeeper::Done { verdict: Verdict::Exited(0), lingers: false };
        keeper.send(done.clone());
        assert!(keeper.outbox.len() <= MAX_UNSENT + 2);

        let mut received = Vec::new();
        loop {
            keeper.flush();
            match supervisor.receive::<FromKeeper>().expect("readable") {
                Received::Message(message) => received.push(message),
                Received::Nothing => break,
                Received::Closed => panic!("the keeper's end is open"),
            }
        }
        assert!(received.len() > sent);
        assert_eq!(
            received.iter().filter(|m| matches!(m, FromKeeper::Deadlines(_))).collect::<Vec<_>>(),
            [&deadlines(999)]
        );
        assert_eq!(received.last(), Some(&done));
    }

    #[test]
    fn closed_link_is_noticed() {
        let (supervisor, keeper) = pair().expect("a socket pair");
        assert_eq!(supervisor.receive::<FromKeeper>().expect("readable"), Received::Nothing);
        drop(keeper);
        assert_eq!(supervisor.receive::<FromKeeper>().expect("readable"), Received::Closed);
    }
}
