//! State of one contender, and the reads that its parts share.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::Notify;

use distlock_core::error::Failure;
use distlock_core::etcd::key::{EarlierKeys, KeyState};
use distlock_core::etcd::queue::{OwnKey, Prefix};
use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

use super::client::Client;
use super::keep_alive::{KeepAlive, RenewalAttempt};
use super::lease_id::random_lease_id;
use super::transactions::{self, Confirmation};
use crate::lock::backend::{LockSpec, LogFn};
use crate::lock::transport::endpoint::Server;
use crate::lock::transport::requests::{ParallelRequests, PendingRequest};

/// One contender for one lock on etcd.
pub(crate) struct Contender {
    pub(super) client: Rc<Client>,
    pub(super) prefix: Prefix,
    /// In seconds.
    pub(super) ttl: i64,
    /// Value of the key: the contender's record as JSON.
    pub(super) record: String,
    pub(super) state: RefCell<KeyState>,
    pub(super) grant: PendingRequest<Outcome<LeaseGrant>>,
    pub(super) renewals: ParallelRequests<RenewalAttempt>,
    /// Stream for the next renewal.
    pub(super) keep_alive: RefCell<Option<KeepAlive>>,
    /// Keys that this contender had and lost.
    pub(super) earlier_keys: RefCell<EarlierKeys>,
    /// Wakes a wait whose watch may be broken: a renewal saw that a contender ahead left.
    pub(super) queue_moved: Notify,
}

/// Lease that the server granted.
pub(super) struct LeaseGrant {
    /// Sampled before the request was sent.
    pub sent_at: Instant,
    /// In seconds.
    pub ttl: i64,
}

impl Contender {
    /// Creates a contender that is not in the queue yet. Sends nothing.
    pub(crate) fn new(server: &Server, spec: LockSpec, log: LogFn) -> Result<Self, Failure> {
        Self::with_state(server, spec, log, KeyState::with_lease(random_lease_id()?))
    }

    /// Creates a contender that can release the lease `lease_id` of another process, and nothing else.
    pub(crate) fn adopt_lease(server: &Server, spec: LockSpec, lease_id: &str, log: LogFn) -> Result<Self, Failure> {
        let lease = i64::from_str_radix(lease_id, 16).ok().filter(|lease| *lease > 0);
        let lease = lease.ok_or_else(|| Failure::usage(format!("{lease_id:?} is not an etcd lease id")))?;
        let state = KeyState { grant_sent: true, held: true, ..KeyState::with_lease(lease) };
        Self::with_state(server, spec, log, state)
    }

    fn with_state(server: &Server, spec: LockSpec, log: LogFn, state: KeyState) -> Result<Self, Failure> {
        let LockSpec { name, ttl, record, relock: _ } = spec;
        let prefix = Prefix::new(&name);
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        Ok(Self {
            client: Rc::new(Client::new(server, prefix.as_str(), log)?),
            prefix,
            ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
            record: record.to_json(),
            state: RefCell::new(state),
            grant: PendingRequest::default(),
            renewals: ParallelRequests::default(),
            keep_alive: RefCell::new(None),
            earlier_keys: RefCell::default(),
            queue_moved: Notify::new(),
        })
    }

    /// Returns the lease that the key is bound to.
    pub(super) fn lease(&self) -> i64 {
        self.state.borrow().leases.bound()
    }

    pub(super) fn key(&self) -> String {
        self.prefix.key(self.state.borrow().leases.first())
    }

    /// Checks that what was read at the contender's key is its own.
    pub(super) fn checked(&self, own: Option<OwnKey>) -> Outcome<OwnKey> {
        let state = self.state.borrow();
        OwnKey::check(own, &self.key(), &state.leases, state.create_revision)
    }

    /// Returns the keys ahead in the queue whose deletion matters to this contender.
    pub(super) fn keys_ahead(&self) -> Vec<Vec<u8>> {
        let ahead = self.state.borrow().ahead.clone();
        ahead.map_or(Vec::new(), |ahead| vec![ahead.predecessor, ahead.holder])
    }

    /// Reads the contender's key, and whether the keys ahead still exist.
    pub(super) async fn confirm(&self) -> Outcome<OwnKey> {
        let (key, ahead) = (self.key(), self.keys_ahead());
        let ahead: Vec<_> = ahead.iter().map(Vec::as_slice).collect();
        let reply = self.client.read(transactions::confirm(&key, &ahead)).await?;
        self.confirmed(self.client.parsed(Confirmation::parse(reply, &key, &ahead))?)
    }

    /// Checks the result of such a read, and records the revision at which it was valid.
    pub(super) fn confirmed(&self, read: Confirmation) -> Outcome<OwnKey> {
        let own = self.checked(read.own)?;
        let mut state = self.state.borrow_mut();
        // Without a revision to watch from, the next wait reads the queue, as it must if the watch missed a deletion.
        state.seen_revision = read.all_exist.then_some(read.revision);
        if state.held {
            state.held_revision = Some(read.revision);
        }
        drop(state);
        if !read.all_exist {
            self.queue_moved.notify_one();
        }
        Ok(own)
    }

    /// Records what a failure means for the next call.
    pub(super) fn record_failure(&self, trouble: &Trouble) {
        let mut state = self.state.borrow_mut();
        state.seen_revision = None;
        if let Trouble::Lost(cause) = trouble {
            state.lost.get_or_insert_with(|| cause.clone());
        }
    }
}
