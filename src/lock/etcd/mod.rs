//! The lock on etcd: a key per contender, bound to its lease; the oldest key holds the lock.
//!
//! It shares its layout with `etcdctl lock` and Go's `concurrency.Mutex`, and excludes them.
//!
//! | module | what belongs there |
//! |---|---|
//! | here | one contender: the way to the lock, the trait |
//! | `renew`, `leases` | renewals, and when one is believed; the change to a fresh lease |
//! | `watch`, `release` | news of the lock; giving it up, and the truth about it |
//! | `entry`, `queue` | pure: one key and what is known of it; who stands before it |
//! | `view` | the transactions, and what their replies show |
//! | `client`, `link`, `dial`, `fault` | requests, one connection at a time, endpoints, what errors mean |
//! | `discover`, `dns` | servers that DNS tells of |
//! | `probe` | what `distlock doctor` asks |

mod client;
mod dial;
mod discover;
mod fault;
mod leases;
mod link;
pub(crate) mod probe;
mod release;
mod renew;
mod view;
mod watch;

use crate::sys::clock;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Backend, Note, Server, Want};
use crate::lock::transport::pending::{Pending, Race};
use client::Client;
use distlock_core::error::Failure;
use distlock_core::etcd::entry::{Entry, Past};
pub(crate) use distlock_core::etcd::queue::check_name;
use distlock_core::etcd::queue::{Own, Prefix};
use distlock_core::outcome::{Granted, Outcome, Position, Queue, Trouble};
use distlock_core::record::Record;
use distlock_core::time::Instant;
use renew::{Attempt, KeepAlive};
use view::{Confirmed, View};

/// How long the grant runs ahead of the transaction that needs it, on the same connection: enough to be applied first,
/// and less than waiting for its reply.
const HEAD_START: Duration = Duration::from_millis(2);

/// One contender for one lock on etcd.
pub(crate) struct Contender {
    client: Rc<Client>,
    prefix: Prefix,
    /// Whole seconds, as etcd counts.
    ttl: i64,
    value: String,
    entry: RefCell<Entry>,
    /// A lease whose grant was not answered yet.
    granting: Pending<Outcome<(Instant, i64)>>,
    /// Renewals that were not confirmed yet.
    renewing: Race<Attempt>,
    /// A stream for the next renewal.
    keep_alive: RefCell<Option<KeepAlive>>,
    /// The keys before this one.
    past: RefCell<Past>,
    /// A renewal saw that somebody before us is gone; the watch may have died without a word.
    moved: Notify,
}

impl Contender {
    /// A contender that has not entered yet; connects lazily.
    pub(crate) fn new(server: &Server, want: Want, note: Note) -> Result<Self, Failure> {
        Self::with_entry(server, want, note, Entry::with_lease(random_lease()?))
    }

    /// A contender that stands for the lease `lease_id`, only good for release.
    pub(crate) fn adopt(server: &Server, want: Want, lease_id: &str, note: Note) -> Result<Self, Failure> {
        let lease = i64::from_str_radix(lease_id, 16).ok().filter(|lease| *lease > 0);
        let lease = lease.ok_or_else(|| Failure::usage(format!("{lease_id:?} is not an etcd lease")))?;
        let entry = Entry { asked: true, held: true, ..Entry::with_lease(lease) };
        Self::with_entry(server, want, note, entry)
    }

    fn with_entry(server: &Server, want: Want, note: Note, entry: Entry) -> Result<Self, Failure> {
        let Want { name, ttl, record, relock: _ } = want;
        let prefix = Prefix::new(&name);
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        Ok(Self {
            client: Rc::new(Client::new(server, prefix.as_str(), note)?),
            prefix,
            ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
            value: record.to_json(),
            entry: RefCell::new(entry),
            granting: Pending::default(),
            renewing: Race::default(),
            keep_alive: RefCell::new(None),
            past: RefCell::default(),
            moved: Notify::new(),
        })
    }

    /// The lease that our key is bound to.
    fn lease(&self) -> i64 {
        self.entry.borrow().leases.bound()
    }

    fn key(&self) -> String {
        self.prefix.key(self.entry.borrow().leases.first())
    }

    /// Creates the lease, and enters the queue, where it may without waiting for the reply.
    async fn grant_and_enter(&self) -> Outcome<(Granted, View)> {
        let link = self.client.link().await?;
        if !self.granting.is_under_way() {
            self.ask_for_lease()?;
        }
        // On another connection than one that lives both could be held up, and applied when everything was given up.
        let head_start = if link.is_lively() { HEAD_START } else { Duration::MAX };
        let enter = async {
            if let Ok(ttl) = timeout(head_start, self.grant_answer()).await {
                return (ttl, Ok(None));
            }
            tokio::join!(self.grant_answer(), self.put_key())
        };
        let ((ttl, early), ()) = tokio::join!(enter, self.end_strays());
        let granted = self.granted(ttl?);
        self.entry.borrow_mut().granted = Some(granted);
        let view = match early? {
            Some(view) => view,
            None => self.put_key_under_lease().await?,
        };
        Ok((granted, view))
    }

    /// Asks for a lease under an id of our own. One that may have been granted before is not asked for again: a request for it
    /// that is held up somewhere could be applied after we gave everything up, and a key with it.
    fn ask_for_lease(&self) -> Outcome<()> {
        let mut entry = self.entry.borrow_mut();
        if std::mem::replace(&mut entry.asked, true) {
            entry.leases.start_anew(random_lease().map_err(Trouble::Fatal)?);
        }
        let (client, lease, ttl) = (Rc::clone(&self.client), entry.leases.bound(), self.ttl);
        let s = clock::now();
        self.granting.begin(async move { Ok((s, client.grant(lease, ttl).await?)) });
        Ok(())
    }

    /// Ends earlier leases, if they were granted after all, so that we do not stand in line behind a key of our own. The
    /// release does it once more.
    async fn end_strays(&self) {
        let strays = self.entry.borrow().leases.others().to_vec();
        for lease in strays {
            // One trouble on the way to the server is the grant's too.
            let _ = self.client.revoke(lease).await;
        }
    }

    async fn grant_answer(&self) -> Outcome<(Instant, i64)> {
        let lost = || Err(Trouble::no_answer("the grant's answer was missed"));
        self.granting.answer().await.unwrap_or_else(lost)
    }

    /// What counts is what the server granted.
    fn granted(&self, (s, ttl): (Instant, i64)) -> Granted {
        if ttl > self.ttl {
            self.client
                .note(format!("etcd: granted a TTL of {ttl}s, the least of the server, instead of {}s", self.ttl));
        }
        Granted { sent_at: s, cover: Some(Duration::from_secs(ttl.unsigned_abs())) }
    }

    /// Enters the queue. None where the lease is unknown: this overtook the grant, or the lease is gone.
    async fn put_key(&self) -> Outcome<Option<View>> {
        let lease = self.lease();
        let (key, value) = (self.key(), &self.value);
        let Some(reply) = self.client.txn(view::enter(&self.prefix, &key, lease, value)).await? else {
            return Ok(None);
        };
        self.client.understood(View::entered(reply, &self.prefix, &key, lease, value)).map(Some)
    }

    async fn put_key_under_lease(&self) -> Outcome<View> {
        self.put_key().await?.ok_or_else(gone)
    }

    /// Reads the queue.
    async fn look(&self) -> Outcome<Position> {
        let key = self.key();
        let reply = self.client.read(view::look(&self.prefix, &key)).await?;
        self.place(self.client.understood(View::looked(reply, &self.prefix, &key))?).await
    }

    /// What a view of the queue makes of us.
    async fn place(&self, mut view: View) -> Outcome<Position> {
        let own = self.checked(view.own.take())?;
        while let Some(rest) = view.rest() {
            let page = self.client.read(view::page(&self.prefix, rest, view.revision)).await?;
            self.client.understood(view.read_on(page, &self.prefix))?;
        }
        let line = view.line(own.created);
        {
            let mut entry = self.entry.borrow_mut();
            entry.created = Some(own.created);
            entry.seen = Some(view.revision);
            entry.line.clone_from(&line);
            entry.held = line.is_none();
            entry.held_at = entry.held.then_some(view.revision);
        }
        let Some(line) = line else {
            // Revisions are positive.
            return Ok(Position::Held { token: own.created.unsigned_abs(), key: self.key() });
        };
        let holder = match view.oldest {
            Some((key, value)) if key == line.first => Some(Record::parse(&value)),
            _ => self.client.value(&line.first).await?.map(|value| Record::parse(&value)),
        };
        Ok(Position::Queued(Queue { ahead: Some(line.ahead), holder, lock_delay: false }))
    }

    fn checked(&self, own: Option<Own>) -> Outcome<Own> {
        let entry = self.entry.borrow();
        Own::check(own, &self.key(), &entry.leases, entry.created)
    }

    /// The keys of those before us of whom we must know whether they are still there.
    fn ahead(&self) -> Vec<Vec<u8>> {
        let line = self.entry.borrow().line.clone();
        line.map_or(Vec::new(), |line| vec![line.before, line.first])
    }

    /// Reads our key, and whether those before us are still there. Returns the key and the Raft term of the read.
    async fn confirm(&self) -> Outcome<(Own, u64)> {
        let (key, ahead) = (self.key(), self.ahead());
        let others: Vec<_> = ahead.iter().map(Vec::as_slice).collect();
        let reply = self.client.read(view::confirm(&key, &others)).await?;
        let read = self.client.understood(Confirmed::of(reply, &key, &others))?;
        let term = read.term;
        Ok((self.confirmed(read)?, term))
    }

    /// What such a read shows.
    fn confirmed(&self, read: Confirmed) -> Outcome<Own> {
        let own = self.checked(read.own)?;
        // What the watch may have missed must be read, even by a wait that starts later.
        let mut entry = self.entry.borrow_mut();
        entry.seen = read.complete.then_some(read.revision);
        if entry.held {
            entry.held_at = Some(read.revision);
        }
        drop(entry);
        if !read.complete {
            self.moved.notify_one();
        }
        Ok(own)
    }

    async fn try_enter(&self) -> Outcome<(Granted, Position)> {
        if self.entry.borrow().lost.is_some() {
            let (key, left) = (self.key(), self.entry.borrow().clone());
            match self.try_release().await {
                Ok(()) | Err(Trouble::Lost(_)) => self.past.borrow_mut().add(key, &left),
                Err(trouble) => return Err(trouble),
            }
        }
        let granted = self.entry.borrow().granted;
        let (granted, view) = match granted {
            Some(granted) => (granted, self.put_key_under_lease().await?),
            None => Box::pin(self.grant_and_enter()).await?,
        };
        self.entry.borrow_mut().term = view.term;
        Ok((granted, self.place(view).await?))
    }

    async fn try_wait(&self) -> Outcome<Position> {
        let Entry { seen, line, .. } = self.entry.borrow().clone();
        // Without a revision to go on from, whatever was missed shows by reading.
        if let (Some(seen), Some(line)) = (seen, line) {
            let key = self.key();
            let keys = [key.as_bytes(), line.before.as_slice()];
            tokio::select! {
                change = watch::change(&self.client, &keys, seen) => drop(change?),
                () = self.moved.notified() => {}
            }
        }
        self.look().await
    }

    /// The next revision from which to watch our key, once something happened that is no trouble.
    async fn watch_on(&self) -> Outcome<()> {
        let seen = self.entry.borrow().seen;
        let Some(seen) = seen else { return self.confirm().await.map(|_| ()) };
        let change = watch::change(&self.client, &[self.key().as_bytes()], seen).await?;
        self.checked(change.now)?;
        self.entry.borrow_mut().seen = Some(change.revision);
        Ok(())
    }

    /// Whether the history since our key of that token shows no other contender. What was compacted may have held one.
    async fn try_alone(&self, token: u64) -> Outcome<bool> {
        let (since, created) = (self.past.borrow().since(token), self.entry.borrow().created);
        let (Some((held_at, keys)), Some(created)) = (since, created) else { return Ok(false) };
        watch::nobody_between(&self.client, &self.prefix, held_at, &keys, created).await
    }

    /// Remembers what a trouble means for the next call.
    fn note(&self, trouble: &Trouble) {
        let mut entry = self.entry.borrow_mut();
        entry.seen = None;
        if let Trouble::Lost(cause) = trouble {
            entry.lost.get_or_insert_with(|| cause.clone());
        }
    }
}

fn gone() -> Trouble {
    Trouble::Lost("the lease expired or was revoked".to_owned())
}

/// An id of our own for a lease: positive, since etcd prints ids as signed numbers in places; zero would let the server
/// choose.
fn random_lease() -> Result<i64, Failure> {
    let random = getrandom::u64().map_err(|error| Failure::fault("no random number to be had").because(error))?;
    Ok(i64::try_from(random >> 1).unwrap_or(i64::MAX).max(1))
}

#[async_trait::async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        self.try_enter().await.inspect_err(|trouble| self.note(trouble))
    }

    async fn wait(&self) -> Outcome<Position> {
        self.try_wait().await.inspect_err(|trouble| self.note(trouble))
    }

    async fn renew(&self) -> Outcome<Instant> {
        self.try_renew().await.inspect_err(|trouble| self.note(trouble))
    }

    async fn watch(&self) -> Trouble {
        loop {
            if let Err(trouble) = self.watch_on().await {
                self.note(&trouble);
                return trouble;
            }
        }
    }

    async fn held_continuously_since(&self, since: u64) -> Outcome<bool> {
        self.try_alone(since).await.inspect_err(|trouble| self.note(trouble))
    }

    async fn release(&self) -> Outcome<()> {
        self.give_up().await
    }

    fn turn(&self) -> usize {
        self.client.turn()
    }

    fn overdue(&self, turn: usize) -> String {
        let silent = self.client.url(turn).to_owned();
        if self.client.overdue(turn) {
            self.granting.abandon();
        }
        silent
    }

    fn lease_id(&self) -> Option<String> {
        Some(format!("{:x}", self.entry.borrow().leases.first()))
    }
}
