//! The lock on a server: one trait, three implementations, and typed outcomes.
//!
//! A [`Backend`] is one contender for one lock. It owns the connections, the lease or session and the contender's key;
//! it decides nothing about time. Every method may be dropped in the middle (the caller's time ran out) and called again:
//! a request that may have been applied is read back before it is repeated.

pub(crate) mod consul;
pub(crate) mod etcd;
pub(crate) mod handle;
pub(crate) mod local;
pub(crate) mod probe;
pub(crate) mod transport;
pub(crate) mod unlocked;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use distlock_core::error::Failure;
use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::record::Record;
use distlock_core::time::Instant;
use transport::endpoint::{Identity, Server};

/// Where locks can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
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
    pub(crate) fn of(text: &str) -> Option<Self> {
        [Self::Etcd, Self::Consul, Self::Local].into_iter().find(|name| name.to_string() == text)
    }
}

/// How the chosen backend is reached.
#[derive(Clone, Debug)]
pub(crate) enum Settings {
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
    /// It may be acquired again after a loss, with [`Backend::held_continuously_since`] to tell whether nobody else had it.
    pub relock: bool,
    /// What others are shown while this contender holds the lock or waits.
    pub record: Record,
}

/// Hint for servers that cannot elect a leader.
const NO_LEADER: &str = "the servers have no leader: most of them are down, or do not reach each other";

/// What becomes of a line of events; [`Backend`] implementations report through it what `-v` shows.
pub(crate) type Note = std::rc::Rc<dyn Fn(String)>;

/// One contender for one lock.
#[async_trait(?Send)]
pub trait Backend {
    /// Creates the lease or session and enters the queue, in as few round trips as can be. Called again after
    /// [`Trouble::Uncertain`] it goes on where it was: what was granted once keeps its first `s`.
    ///
    /// After [`Trouble::Lost`] (from here or from [`Backend::wait`]) the next call starts anew with another lease.
    async fn enter(&self) -> Outcome<(Granted, Position)>;

    /// Waits until the place in the queue, or what is known of the holder, may have changed, and reads it. Returns
    /// [`Position::Held`] only after a read, sent after the turn came, that shows this contender as the holder.
    async fn wait(&self) -> Outcome<Position>;

    /// Renews the lease, confirmed as rule 1 demands, and returns the `s` that it gives: the moment before the renewal
    /// was sent. Used while waiting and while holding.
    async fn renew(&self) -> Outcome<Instant>;

    /// Watches the held lock. Returns only with bad news: [`Trouble::Lost`], [`Trouble::Broken`], or
    /// [`Trouble::Uncertain`] when the watch itself broke (the caller calls again).
    async fn watch(&self) -> Trouble;

    /// After [`Trouble::Lost`] and a new [`Backend::enter`] that holds: whether provably nobody else held the lock since
    /// it was held with this token and known to be. Where that cannot be known, somebody may have. There may have been
    /// further leases in between, which were lost too: the token names the one that the command ran under.
    async fn held_continuously_since(&self, _since: u64) -> Outcome<bool> {
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
    pub(crate) fn prepare(&self, name: &str) -> Result<Prepared, Failure> {
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
    pub(crate) async fn probe(&self, inquiry: &probe::Inquiry, note: Note) -> Result<probe::Findings, Failure> {
        install_tls();
        match self {
            Self::Etcd(server) => Box::pin(etcd::probe::probe(server, inquiry, note)).await,
            Self::Consul(server, options) => consul::probe::probe(server, options, inquiry, note).await,
            Self::Local(directory) => local::probe::probe(directory, inquiry),
        }
    }

    /// Where it is reached.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<String> {
        match self {
            Self::Etcd(server) | Self::Consul(server, _) => server.endpoints.iter().map(ToString::to_string).collect(),
            Self::Local(directory) => vec![format!("file://{}", directory.0.display())],
        }
    }

    /// Who we are to the servers, where there are any.
    pub(crate) fn identity(&mut self) -> Option<&mut Identity> {
        match self {
            Self::Etcd(server) | Self::Consul(server, _) => Some(&mut server.identity),
            Self::Local(_) => None,
        }
    }

    /// Which backend it is.
    #[must_use]
    pub(crate) fn name(&self) -> Name {
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
