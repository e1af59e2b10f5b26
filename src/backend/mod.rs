//! The lock on a server: one trait, three implementations, and typed outcomes.
//!
//! A [`Backend`] is one contender for one lock. It owns the connections, the lease or session and the contender's key;
//! it decides nothing about time. Every method may be dropped in the middle (the caller's time ran out) and called again:
//! a request that may have been applied is read back before it is repeated.

pub mod consul;
pub mod endpoint;
pub mod etcd;
pub mod local;
mod pending;
pub mod probe;
pub mod tls;
pub mod unlocked;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::error::Failure;
use crate::holder::Record;
use endpoint::{Identity, Server};

/// Where locks can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// etcd, version 3.4 or later.
    Etcd,
    /// Consul's key-value store and sessions.
    Consul,
    /// Files on this host.
    Local,
}

impl Name {
    /// The backend of this name.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        [Self::Etcd, Self::Consul, Self::Local].into_iter().find(|name| name.to_string() == text)
    }
}

/// How the chosen backend is reached.
#[derive(Clone, Debug)]
pub enum Settings {
    /// etcd, version 3.4 or later.
    Etcd(Server),
    /// Consul, and what is Consul's alone.
    Consul(Server, consul::Options),
    /// A directory on this host.
    Local(local::Directory),
}

/// The lock that a contender wants.
#[derive(Clone, Debug)]
pub struct Want {
    /// The lock's name as the user gave it.
    pub name: String,
    /// The lease time asked for.
    pub ttl: Duration,
    /// It may be acquired again after a loss, with [`Backend::alone`] to tell whether nobody else had it.
    pub relock: bool,
    /// What others are shown while this contender holds the lock or waits.
    pub record: Record,
}

/// What the server granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Sampled before the request was sent that created the lease or session (rule 1's first `s`).
    pub s: Instant,
    /// How long the server keeps others away, counted from `s`: the granted TTL, on Consul no more than the
    /// lock-delay. None where the lock cannot expire (local).
    pub cover: Option<Duration>,
}

/// Where a contender stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It holds the lock, as a read sent after its turn came has confirmed.
    Held {
        /// The fencing token: grows with every acquisition of this lock.
        token: u64,
        /// The key that stands for the lock on the server (or the file), as users see it.
        key: String,
    },
    /// Somebody else is first.
    Queued(Queue),
}

/// What is known of those ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// How many are ahead in the queue, the holder included, where the backend knows.
    pub ahead: Option<u32>,
    /// The holder, where it could be read; a foreign holder has an almost empty record.
    pub holder: Option<Record>,
    /// Nobody holds it: the lock-delay of a lost session keeps it closed.
    pub lock_delay: bool,
}

/// Why an answer is not the one hoped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or one that says nothing of the lock: it may work a moment later or on another endpoint.
    Uncertain {
        /// Some server answered, if only with an error: it is not unreachable.
        answered: bool,
        /// What was tried, at which endpoint, and what came of it. Holds no secret.
        cause: String,
    },
    /// The server says that the lease, session or key is gone or somebody else's.
    Lost(String),
    /// Somebody asked this holder to stop (`distlock break`), and who.
    Broken(String),
    /// It cannot work, now or later: access denied, the server not trusted, a name that the backend cannot hold.
    Fatal(Failure),
}

impl Trouble {
    /// What is to be said of it, on one line.
    #[must_use]
    pub fn into_cause(self) -> String {
        match self {
            Self::Uncertain { cause, .. } | Self::Lost(cause) | Self::Broken(cause) => cause,
            Self::Fatal(failure) => {
                std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ")
            }
        }
    }
}

/// The outcome of a request about the lock.
pub type Outcome<T> = Result<T, Trouble>;

/// What becomes of a line of events; [`Backend`] implementations report through it what `-v` shows.
pub type Note = std::rc::Rc<dyn Fn(String)>;

/// One contender for one lock.
#[async_trait(?Send)]
pub trait Backend {
    /// Creates the lease or session and enters the queue, in as few round trips as can be. Called again after
    /// [`Trouble::Uncertain`] it goes on where it was: what was granted once keeps its first `s`.
    ///
    /// After [`Trouble::Lost`] (from here or from [`Backend::wait`]) the next call starts anew with another lease.
    async fn enter(&self) -> Outcome<(Granted, Place)>;

    /// Waits until the place in the queue, or what is known of the holder, may have changed, and reads it. Returns
    /// [`Place::Held`] only after a read, sent after the turn came, that shows this contender as the holder.
    async fn wait(&self) -> Outcome<Place>;

    /// Renews the lease, confirmed as rule 1 demands, and returns the `s` that it gives: the moment before the renewal
    /// was sent. Used while waiting and while holding.
    async fn renew(&self) -> Outcome<Instant>;

    /// Watches the held lock. Returns only with bad news: [`Trouble::Lost`], [`Trouble::Broken`], or
    /// [`Trouble::Uncertain`] when the watch itself broke (the caller calls again).
    async fn watch(&self) -> Trouble;

    /// After [`Trouble::Lost`] and a new [`Backend::enter`] that holds: whether provably nobody else held the lock since
    /// it was held with this token and known to be. Where that cannot be known, somebody may have. There may have been
    /// further leases in between, which were lost too: the token names the one that the command ran under.
    async fn alone(&self, _since: u64) -> Outcome<bool> {
        Ok(false)
    }

    /// Gives everything up that [`Backend::enter`] created, whether held or queued. Idempotent. [`Trouble::Lost`]
    /// says that it was held and is no longer ours.
    async fn release(&self) -> Outcome<()>;

    /// How often an endpoint was given up so far.
    fn turn(&self) -> usize;

    /// A caller that began in this turn saw no answer in time: the next request goes to another endpoint, on a new
    /// connection, unless others have left that endpoint already. After an error that a backend sees itself it goes there by
    /// itself. Names the endpoint that was silent.
    fn overdue(&self, turn: usize) -> String;

    /// Names the lease or session, once there is one (or before it is created, where its id is chosen here), so that
    /// another process can give it up through [`Prepared::adopt`].
    fn lease_id(&self) -> Option<String>;
}

/// A backend before the processes part: what both of them must hold is open, nothing is connected.
#[derive(Debug)]
pub enum Prepared {
    /// An etcd client to be.
    Etcd(Server),
    /// A Consul client to be.
    Consul(Server, consul::Options),
    /// The open lock file, which every process of the job holds.
    Local(local::LockFile),
    /// No lock.
    Unlocked,
}

impl Settings {
    /// Checks the name against what the backend can hold, and opens what must be open before the fork.
    pub fn prepare(&self, name: &str) -> Result<Prepared, Failure> {
        match self {
            Self::Etcd(server) => etcd::check_name(name).map(|()| Prepared::Etcd(server.clone())),
            Self::Consul(server, options) => {
                consul::check_name(name).map(|()| Prepared::Consul(server.clone(), options.clone()))
            }
            Self::Local(directory) => directory.open(name).map(Prepared::Local),
        }
    }

    /// Finds out whether a lock could be had, without taking one. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// What is wrong before anything is sent: the name, the TLS files.
    pub async fn probe(&self, inquiry: &probe::Inquiry, note: Note) -> Result<probe::Findings, Failure> {
        install_tls();
        match self {
            Self::Etcd(server) => Box::pin(etcd::probe::probe(server, inquiry, note)).await,
            Self::Consul(server, options) => consul::probe::probe(server, options, inquiry, note).await,
            Self::Local(directory) => local::probe::probe(directory, inquiry),
        }
    }

    /// Where it is reached.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        match self {
            Self::Etcd(server) | Self::Consul(server, _) => server.endpoints.iter().map(ToString::to_string).collect(),
            Self::Local(directory) => vec![format!("file://{}", directory.0.display())],
        }
    }

    /// Who we are to the servers, where there are any.
    pub fn identity(&mut self) -> Option<&mut Identity> {
        match self {
            Self::Etcd(server) | Self::Consul(server, _) => Some(&mut server.identity),
            Self::Local(_) => None,
        }
    }

    /// Which backend it is.
    #[must_use]
    pub fn name(&self) -> Name {
        match self {
            Self::Etcd(_) => Name::Etcd,
            Self::Consul(..) => Name::Consul,
            Self::Local(_) => Name::Local,
        }
    }
}

impl Prepared {
    /// A contender that has not entered yet. Needs a tokio runtime; sends nothing.
    pub fn contender(&self, want: Want, note: Note) -> Result<Box<dyn Backend>, Failure> {
        install_tls();
        Ok(match self {
            Self::Etcd(server) => Box::new(etcd::Contender::new(server, want, note)?),
            Self::Consul(server, options) => Box::new(consul::Contender::new(server, options, want, note)?),
            Self::Local(file) => Box::new(local::Contender::new(file, want)?),
            Self::Unlocked => Box::new(unlocked::Contender),
        })
    }

    /// A contender that stands for a lease or session which another process created, only good for
    /// [`Backend::release`].
    pub fn adopt(&self, want: Want, lease_id: &str, note: Note) -> Result<Box<dyn Backend>, Failure> {
        install_tls();
        Ok(match self {
            Self::Etcd(server) => Box::new(etcd::Contender::adopt(server, want, lease_id, note)?),
            Self::Consul(server, options) => Box::new(consul::Contender::adopt(server, options, want, lease_id, note)?),
            Self::Local(file) => Box::new(local::Contender::new(file, want)?),
            Self::Unlocked => Box::new(unlocked::Contender),
        })
    }
}

/// Makes ring the process's only TLS implementation; both clients look for it there.
fn install_tls() {
    // An error says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::Local => "local",
        })
    }
}
