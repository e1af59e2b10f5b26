//! The lock on this host: flock(2) on a file.
//!
//! The kernel keeps the lock for as long as any process of the job has the file open, so there is no lease, nothing to
//! renew, and nothing is lost. `flock FILE command` of util-linux on the same file excludes us and is excluded.

mod file;
pub(crate) mod probe;
mod slots;

use crate::sys::clock;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::{Future, pending, poll_fn};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use nix::errno::Errno;
use nix::fcntl::FlockArg;
use tokio::sync::oneshot;

use super::{Backend, Want};
use distlock_core::error::Failure;
use distlock_core::outcome::{Granted, Outcome, Position, Queue, Trouble};
use distlock_core::time::Instant;
pub(crate) use file::{Directory, LockFile};
use file::{errno, failed, in_place};
use slots::Entry;

/// How often a waiter looks who holds the lock now.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The lock's turn: what the blocked thread's flock came to.
type Turn = oneshot::Receiver<nix::Result<()>>;

/// One contender for one lock on this host.
///
/// The kernel has the queue. A contender that waits has a thread blocked in flock, which nothing can cancel: a
/// contender that is released meanwhile is spent, and its thread unlocks at once should its turn still come. The end of
/// the process ends it too.
#[derive(Debug)]
pub(crate) struct Contender {
    file: Arc<File>,
    path: PathBuf,
    want: Want,
    turn: RefCell<Option<Turn>>,
    held: Cell<bool>,
    spent: Cell<bool>,
    /// What was told of the holder last.
    told: RefCell<Option<Queue>>,
}

impl Contender {
    /// A contender that has not entered yet. Contenders for one [`LockFile`] are one to the kernel.
    pub(crate) fn new(file: &LockFile, want: Want) -> Result<Self, Failure> {
        Ok(Self {
            file: Arc::new(file.duplicate()?),
            path: file.path().to_owned(),
            want,
            turn: RefCell::new(None),
            held: Cell::new(false),
            spent: Cell::new(false),
            told: RefCell::new(None),
        })
    }

    /// What follows from having the flock: the token is counted and the record stored, or it is unlocked again.
    fn locked(&self) -> Outcome<Position> {
        match self.sign() {
            Ok(token) => {
                self.held.set(true);
                Ok(Position::Held { token, key: self.path.display().to_string() })
            }
            Err(failure) => {
                // The failure to report is the first one; the end of the process unlocks as well.
                let _ = flock(&self.file, FlockArg::Unlock);
                Err(Trouble::Fatal(failure))
            }
        }
    }

    /// Enters the new token and this contender's record into the locked file.
    fn sign(&self) -> Result<u64, Failure> {
        if !in_place(&self.file, &self.path).map_err(|e| failed("examine", &self.path, e))? {
            return Err(Failure::fault(format!("{} was removed or replaced meanwhile", self.path.display()))
                .hint("run it again; leave lock files in place, whoever holds them"));
        }
        let last = self.read()?;
        let next = Entry { holder: Some(self.want.record.acquired_at(jiff::Timestamp::now())), ..self.after(&last)? };
        let token = next.token.checked_add(1).ok_or_else(|| self.exhausted())?.max(wall_clock_ms());
        self.write(&Entry { token, ..next })?;
        Ok(token)
    }

    /// Marks the locked file as free. Whether it still had this contender's record.
    fn strike_out(&self) -> Result<bool, Failure> {
        let last = self.read()?;
        let ours = last.holder.as_ref().is_some_and(|holder| holder.id == self.want.record.id);
        if ours {
            self.write(&self.after(&last)?)?;
        }
        Ok(ours)
    }

    /// The entry that follows `last`: the same token, nobody's record.
    fn after(&self, last: &Entry) -> Result<Entry, Failure> {
        let seq = last.seq.checked_add(1).ok_or_else(|| self.exhausted())?;
        Ok(Entry { seq, token: last.token, holder: None })
    }

    fn read(&self) -> Result<Entry, Failure> {
        slots::read(&self.file).map_err(|e| failed("read", &self.path, errno(&e)))
    }

    fn write(&self, entry: &Entry) -> Result<(), Failure> {
        slots::write(&self.file, entry).map_err(|e| failed("write", &self.path, errno(&e)))
    }

    /// No honest count gets there: it would take half a billion years.
    fn exhausted(&self) -> Failure {
        Failure::fault(format!("the counter in {} is at its end", self.path.display()))
            .hint("remove the file while nobody holds the lock; the fencing token then starts anew from the clock")
    }

    /// What the file tells of the holder. Another tool that locks it writes no record.
    fn queue(&self) -> Outcome<Queue> {
        let holder = self.read().map_err(Trouble::Fatal)?.holder.unwrap_or_default();
        Ok(Queue { holder: Some(holder), ..Queue::default() })
    }

    /// Starts the thread that waits in the kernel's queue.
    fn line_up(&self) -> Result<Turn, Failure> {
        let (result, turn) = oneshot::channel();
        let file = Arc::clone(&self.file);
        let wait = move || {
            let outcome = flock(&file, FlockArg::LockExclusive);
            if result.send(outcome).is_err() {
                // Released meanwhile: nobody wants it any more.
                let _ = flock(&file, FlockArg::Unlock);
            }
        };
        std::thread::Builder::new()
            .name("lock-wait".to_owned())
            .spawn(wait)
            .map(|_| turn)
            .map_err(|e| Failure::fault("cannot start a thread to wait for the lock").because(e))
    }

    /// Waits for the thread's outcome. Dropped and called again, it goes on with the same thread.
    async fn turn(&self) -> Outcome<()> {
        if self.turn.borrow().is_none() {
            *self.turn.borrow_mut() = Some(self.line_up().map_err(Trouble::Fatal)?);
        }
        let outcome = poll_fn(|cx| match self.turn.borrow_mut().as_mut() {
            Some(turn) => Pin::new(turn).poll(cx),
            // Released while somebody waits: the turn never comes.
            None => std::task::Poll::Pending,
        })
        .await;
        self.turn.take();
        // The thread sends before it ends.
        let locked = outcome.unwrap_or(Err(Errno::ECANCELED));
        locked.map_err(|e| Trouble::Fatal(failed("lock", &self.path, e)))
    }
}

#[async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        if self.spent.get() {
            return Err(Trouble::Fatal(Failure::fault("this contender gave the lock up while it waited")));
        }
        let granted = Granted { sent_at: clock::now(), cover: None };
        let place = match flock(&self.file, FlockArg::LockExclusiveNonblock) {
            Ok(()) => self.locked()?,
            Err(Errno::EWOULDBLOCK) => {
                let queue = self.queue()?;
                self.told.replace(Some(queue.clone()));
                Position::Queued(queue)
            }
            Err(e) => return Err(Trouble::Fatal(failed("lock", &self.path, e))),
        };
        Ok((granted, place))
    }

    async fn wait(&self) -> Outcome<Position> {
        loop {
            tokio::select! {
                biased;
                turn = self.turn() => return turn.and_then(|()| self.locked()),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            // The kernel tells nobody that others got the lock meanwhile. What cannot be read is no reason to leave.
            let Ok(queue) = self.queue() else { continue };
            if self.told.replace(Some(queue.clone())).is_some_and(|told| told != queue) {
                return Ok(Position::Queued(queue));
            }
        }
    }

    async fn renew(&self) -> Outcome<Instant> {
        Ok(clock::now())
    }

    async fn watch(&self) -> Trouble {
        pending().await
    }

    /// The kernel cannot lose the lock, but the command has the descriptor and could unlock it, and anybody with the
    /// right to it can remove the file: both are known here at the latest.
    async fn release(&self) -> Outcome<()> {
        if self.turn.take().is_some() {
            self.spent.set(true);
        }
        let held = self.held.replace(false);
        let lost = |why: &str| if held { Err(Trouble::Lost(format!("{} {why}", self.path.display()))) } else { Ok(()) };
        match flock(&self.file, FlockArg::LockExclusiveNonblock) {
            Ok(()) => {}
            Err(Errno::EWOULDBLOCK) => return lost("was unlocked, and somebody else has locked it"),
            Err(e) => return Err(Trouble::Fatal(failed("unlock", &self.path, e))),
        }
        let in_place = in_place(&self.file, &self.path);
        let ours = self.strike_out();
        flock(&self.file, FlockArg::Unlock).map_err(|e| Trouble::Fatal(failed("unlock", &self.path, e)))?;
        match (in_place, ours) {
            (Ok(false), _) => lost("was removed or replaced while it was locked"),
            (_, Ok(false)) => lost("was unlocked meanwhile, and somebody else had locked it"),
            // A record that could not be struck out does no harm: nobody holds the lock.
            _ => Ok(()),
        }
    }

    fn turn(&self) -> usize {
        0
    }

    fn overdue(&self, _turn: usize) -> String {
        self.path.display().to_string()
    }

    fn lease_id(&self) -> Option<String> {
        None
    }
}

/// flock(2), repeated when a signal interrupts it.
///
/// Not [`nix::fcntl::Flock`]: it unlocks when it is dropped, and the lock belongs to other processes too.
#[expect(deprecated, reason = "its successor unlocks on drop")]
fn flock(file: &File, arg: FlockArg) -> nix::Result<()> {
    loop {
        match nix::fcntl::flock(file.as_raw_fd(), arg) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// The wall clock in milliseconds since 1970: tokens grow even across a boot that empties `/run`.
fn wall_clock_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
