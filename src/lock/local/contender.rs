//! One contender for one lock on this host.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::{Future, pending, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use nix::errno::Errno;
use nix::fcntl::FlockArg;
use tokio::sync::oneshot;

use distlock_core::error::Failure;
use distlock_core::outcome::{Granted, Outcome, Position, Queue, Trouble};
use distlock_core::time::Instant;

use super::entry::{self, Entry};
use super::file::{LockFile, errno, failed, flock, has_other_content, is_same_file};
use crate::lock::backend::{Backend, LockSpec};
use crate::sys::clock;

/// Interval at which a waiter reads the holder's record: the kernel does not report a new holder.
const HOLDER_POLL: Duration = Duration::from_secs(1);

/// Result of the waiting thread's flock.
type FlockResult = oneshot::Receiver<nix::Result<()>>;

/// One contender for one lock on this host.
///
/// The queue is the kernel's. A waiter has a thread blocked in flock, which cannot be cancelled: after a release in that
/// state the contender is unusable, and the thread unlocks at once if it still gets the lock. The thread ends with the
/// process.
#[derive(Debug)]
pub(crate) struct Contender {
    file: Arc<File>,
    path: PathBuf,
    spec: LockSpec,
    waiting: RefCell<Option<FlockResult>>,
    held: Cell<bool>,
    released_while_waiting: Cell<bool>,
    reported_queue: RefCell<Option<Queue>>,
}

impl Contender {
    /// Creates a contender. All contenders of one [`LockFile`] are the same one to the kernel.
    pub(crate) fn new(file: &LockFile, spec: LockSpec) -> Result<Self, Failure> {
        Ok(Self {
            file: Arc::new(file.duplicate()?),
            path: file.path().to_owned(),
            spec,
            waiting: RefCell::new(None),
            held: Cell::new(false),
            released_while_waiting: Cell::new(false),
            reported_queue: RefCell::new(None),
        })
    }

    /// Completes an acquisition after flock succeeded; unlocks if that fails.
    fn on_locked(&self) -> Outcome<Position> {
        match self.record_holder() {
            Ok(token) => {
                self.held.set(true);
                Ok(Position::Held { token, key: self.path.display().to_string() })
            }
            Err(failure) => {
                // The first failure is reported; the end of the process unlocks too.
                let _ = flock(&self.file, FlockArg::Unlock);
                Err(Trouble::Fatal(failure))
            }
        }
    }

    /// Writes the next token and this contender's record to the locked file; returns the token.
    fn record_holder(&self) -> Result<u64, Failure> {
        if !is_same_file(&self.file, &self.path).map_err(|e| failed("examine", &self.path, e))? {
            return Err(Failure::fault(format!("{} was removed or replaced in the meantime", self.path.display()))
                .hint("run the command again, and do not remove lock files that are in use"));
        }
        let token = self.read()?.token.checked_add(1).ok_or_else(|| {
            Failure::fault(format!("the fencing token in {} cannot grow any further", self.path.display()))
                .hint("remove the file while the lock is free; the fencing token then starts from the clock")
        })?;
        let token = token.max(wall_clock_ms());
        self.write(&Entry { token, holder: Some(self.spec.record.acquired_at(jiff::Timestamp::now())) })?;
        Ok(token)
    }

    /// Removes this contender's record from the locked file. Returns false if the file had another record or none.
    fn remove_record(&self) -> Result<bool, Failure> {
        let Ok(entry) = self.read() else { return Ok(false) };
        let own = entry.holder.as_ref().is_some_and(|holder| holder.id == self.spec.record.id);
        if own {
            self.write(&Entry { holder: None, ..entry })?;
        }
        Ok(own)
    }

    fn read(&self) -> Result<Entry, Failure> {
        let entry = entry::read(&self.file).map_err(|e| failed("read", &self.path, errno(&e)))?;
        entry.ok_or_else(|| has_other_content(&self.path))
    }

    fn write(&self, entry: &Entry) -> Result<(), Failure> {
        entry::write(&self.file, entry).map_err(|e| failed("write", &self.path, errno(&e)))
    }

    /// Returns the holder according to the file. Other tools that lock it write no record.
    fn queue(&self) -> Outcome<Queue> {
        let holder = self.read().map_err(Trouble::Fatal)?.holder.unwrap_or_default();
        Ok(Queue { holder: Some(holder), ..Queue::default() })
    }

    /// Starts the thread that waits in the kernel's queue.
    fn start_waiting(&self) -> Result<FlockResult, Failure> {
        let (sender, receiver) = oneshot::channel();
        let file = Arc::clone(&self.file);
        let wait = move || {
            let result = flock(&file, FlockArg::LockExclusive);
            if sender.send(result).is_err() {
                // The contender was released in the meantime.
                let _ = flock(&file, FlockArg::Unlock);
            }
        };
        std::thread::Builder::new()
            .name("lock-wait".to_owned())
            .spawn(wait)
            .map(|_| receiver)
            .map_err(|e| Failure::fault("cannot start a thread to wait for the lock").because(e))
    }

    /// Waits until flock succeeded. A call that is dropped and repeated continues with the same thread.
    async fn flocked(&self) -> Outcome<()> {
        if self.waiting.borrow().is_none() {
            *self.waiting.borrow_mut() = Some(self.start_waiting().map_err(Trouble::Fatal)?);
        }
        let result = poll_fn(|cx| match self.waiting.borrow_mut().as_mut() {
            Some(waiting) => Pin::new(waiting).poll(cx),
            // Released during this call: it never returns.
            None => Poll::Pending,
        })
        .await;
        self.waiting.take();
        // The thread always sends before it ends.
        let result = result.unwrap_or(Err(Errno::ECANCELED));
        result.map_err(|e| Trouble::Fatal(failed("lock", &self.path, e)))
    }
}

#[async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        if self.released_while_waiting.get() {
            return Err(Trouble::Fatal(Failure::fault("this contender was released while it waited")));
        }
        let granted = Granted { sent_at: clock::now(), cover: None };
        let position = match flock(&self.file, FlockArg::LockExclusiveNonblock) {
            Ok(()) => self.on_locked()?,
            Err(Errno::EWOULDBLOCK) => {
                let queue = self.queue()?;
                self.reported_queue.replace(Some(queue.clone()));
                Position::Queued(queue)
            }
            Err(e) => return Err(Trouble::Fatal(failed("lock", &self.path, e))),
        };
        Ok((granted, position))
    }

    async fn wait(&self) -> Outcome<Position> {
        loop {
            tokio::select! {
                biased;
                flocked = self.flocked() => return flocked.and_then(|()| self.on_locked()),
                () = tokio::time::sleep(HOLDER_POLL) => {}
            }
            // A waiter that cannot read the holder's record still waits.
            let Ok(queue) = self.queue() else { continue };
            if self.reported_queue.replace(Some(queue.clone())).is_some_and(|reported| reported != queue) {
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

    /// Reports the losses that are possible here: the command unlocked its descriptor, or the file was removed.
    async fn release(&self) -> Outcome<()> {
        if self.waiting.take().is_some() {
            self.released_while_waiting.set(true);
        }
        let held = self.held.replace(false);
        let lost = |why: &str| if held { Err(Trouble::Lost(format!("{} {why}", self.path.display()))) } else { Ok(()) };
        match flock(&self.file, FlockArg::LockExclusiveNonblock) {
            Ok(()) => {}
            Err(Errno::EWOULDBLOCK) => return lost("was unlocked, and another process has locked it"),
            Err(e) => return Err(Trouble::Fatal(failed("unlock", &self.path, e))),
        }
        let same_file = is_same_file(&self.file, &self.path);
        let own_record = self.remove_record();
        flock(&self.file, FlockArg::Unlock).map_err(|e| Trouble::Fatal(failed("unlock", &self.path, e)))?;
        match (same_file, own_record) {
            (Ok(false), _) => lost("was removed or replaced while it was locked"),
            (_, Ok(false)) => lost("was unlocked in the meantime, and another process had locked it"),
            // A record that could not be removed is harmless: the file is unlocked.
            _ => Ok(()),
        }
    }

    fn endpoint_changes(&self) -> usize {
        0
    }

    fn leave_endpoint(&self, _changes: usize) -> String {
        self.path.display().to_string()
    }

    fn lease_id(&self) -> Option<String> {
        None
    }
}

/// Returns the wall clock in milliseconds since 1970: tokens also grow across a boot, which empties `/run`.
fn wall_clock_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
