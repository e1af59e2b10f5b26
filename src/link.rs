//! The messages between keeper and supervisor, and nothing else.
//!
//! The link is a pair of datagram-like sockets. Neither side ever blocks on it: what does not fit waits in an outbox,
//! where a newer deadline replaces an older one, and mere notes are dropped when they pile up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::Queue;
use crate::clock::Instant;
use crate::error::Failure;
use crate::lease::Deadlines;
use crate::tree::{Process, Usage};

/// No message is longer, and no text from a server makes it so.
const MAX_MESSAGE: usize = 64 * 1024;
/// Notes beyond this many unsent messages are dropped.
const MAX_BACKLOG: usize = 64;

/// What the keeper tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeeper {
    /// This lease or session was, or is about to be, created.
    Lease(String),
    /// From here on these deadlines hold.
    Deadlines(Deadlines),
    /// Somebody else is first.
    Waiting(Queue),
    /// The place in the queue is gone, and why. Deadlines told before are void: the command does not run.
    Rejoining(String),
    /// Servers answer and grant nothing, and why.
    NotServed(String),
    /// The lock is held.
    Held {
        /// The fencing token.
        token: u64,
    },
    /// The command runs.
    Started,
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The command goes on after it was stopped.
    Continued,
    /// The command was ended and the lock given up, and why; it is to be acquired again for another run.
    Restarting(String),
    /// A step on the way back to a lock that is sure.
    Relock(Step),
    /// The command is being ended, and why.
    Ending(String),
    /// It is being killed and not dead yet: the keeper is at it.
    Killing,
    /// Nothing is left of the command; this is the verdict unless the release tells of a loss.
    Ended(Verdict),
    /// These processes run on without the lock, as the user asked for.
    Left(Vec<Process>),
    /// These processes cannot be killed.
    Stuck(Vec<Process>),
    /// Something that `-v` shows.
    Note(String),
    /// What only the keeper knows, told before [`FromKeeper::Done`].
    Account(Account),
    /// All is over: nothing is left of the command, and the lock was given up as far as the servers could be reached.
    Done {
        /// How it ended.
        verdict: Verdict,
        /// The keeper stays for a while, to end a lease whose servers do not answer.
        lingers: bool,
    },
}

impl FromKeeper {
    /// Until when the command may run from here on, where this message says something of it. The inner None: it does not
    /// run, or no deadline counts.
    #[must_use]
    pub fn kill_at(&self) -> Option<Option<Instant>> {
        match self {
            Self::Deadlines(deadlines) => Some(Some(deadlines.kill)),
            Self::Rejoining(_)
            | Self::Restarting(_)
            | Self::Relock(Step::Frozen)
            | Self::Ended(_)
            | Self::Done { .. } => Some(None),
            _ => None,
        }
    }
}

/// What only the keeper knows of a run, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Renewals that were confirmed.
    pub renewals: u64,
    /// How the command itself ended the last time it ran.
    pub command: Option<Verdict>,
    /// What the command and all below it used up.
    pub usage: Usage,
}

/// What happens to a lock that is not sure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A renewal was not confirmed, and why.
    Uncertain(String),
    /// The whole tree stands still. From here on only its death or [`Step::Thawed`] counts; deadlines are void.
    Frozen,
    /// The lock was acquired again, and nobody else held it meanwhile.
    Relocked {
        /// The new fencing token.
        token: u64,
    },
    /// The command goes on.
    Thawed,
}

/// What the supervisor tells the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSupervisor {
    /// It has taken over the deadlines sent last.
    Acknowledged(Deadlines),
    /// This signal came for the command.
    Signal(i32),
    /// The terminal sent this signal to the whole group when the command may have been in it: the command has it already,
    /// or it is meant for the wait.
    Typed(i32),
    /// End the command at once.
    Kill,
}

/// How the whole thing ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The command ended by itself with this exit code.
    Exited(i32),
    /// The command died of this signal.
    Signaled(i32),
    /// It failed, in distlock's own terms.
    Failed(Failure),
}

trait Message: Serialize {
    /// The message takes the place of an unsent one of its kind.
    fn replaces(&self, _older: &Self) -> bool {
        false
    }
    /// The message may be lost.
    fn droppable(&self) -> bool {
        false
    }
}

impl Message for FromKeeper {
    fn replaces(&self, older: &Self) -> bool {
        matches!(
            (self, older),
            (Self::Deadlines(_), Self::Deadlines(_))
                | (Self::Waiting(_), Self::Waiting(_))
                | (Self::Killing, Self::Killing)
                | (Self::Stuck(_), Self::Stuck(_))
                | (Self::Continued | Self::Stopped(_), Self::Stopped(_))
        )
    }
    fn droppable(&self) -> bool {
        matches!(self, Self::Note(_))
    }
}

impl Message for FromSupervisor {
    fn replaces(&self, older: &Self) -> bool {
        self == older
    }
}

/// One end of the link.
#[derive(Debug)]
pub struct Link<Out> {
    socket: OwnedFd,
    outbox: VecDeque<Out>,
}

/// What there was to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<In> {
    /// A message.
    Message(In),
    /// Nothing at present.
    Nothing,
    /// The other process is gone.
    Closed,
}

/// Both ends: the supervisor's and the keeper's.
pub fn pair() -> nix::Result<(Link<FromSupervisor>, Link<FromKeeper>)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((Link { socket: ours, outbox: VecDeque::new() }, Link { socket: theirs, outbox: VecDeque::new() }))
}

#[allow(private_bounds, reason = "the two message types are all there are")]
impl<Out: Message> Link<Out> {
    /// Queues a message and sends what the socket takes.
    pub fn post(&mut self, message: Out) {
        if message.droppable() && self.outbox.len() >= MAX_BACKLOG {
            return;
        }
        // To its end, and not in place of the older one: it is news of after what stands between.
        self.outbox.retain(|older| !message.replaces(older));
        self.outbox.push_back(message);
        self.flush();
    }

    /// Sends what the socket takes. A link whose other end is gone takes everything.
    pub fn flush(&mut self) {
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
    pub fn backlog(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Reads one message, without blocking.
    pub fn receive<In: DeserializeOwned>(&self) -> io::Result<Received<In>> {
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
            keeper.post(FromKeeper::Note("x".repeat(1000)));
            sent += 1;
        }
        for at in 0..1000 {
            keeper.post(deadlines(at));
            keeper.post(FromKeeper::Note("y".into()));
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
