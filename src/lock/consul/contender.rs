//! One contender's state, and the reads that its parts share.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use distlock_core::consul::keys::Keys;
use distlock_core::consul::limits;
use distlock_core::consul::queue::Snapshot;
use distlock_core::consul::session::{Acquisition, Role, Session, SessionState};
use distlock_core::error::Failure;
use distlock_core::outcome::{Outcome, Trouble};

use super::api::Api;
use super::txn::{Op, TxnResult};
use crate::lock::backend::{LockSpec, LogFn};
use crate::lock::transport::endpoint::Server;
use crate::lock::transport::requests::PendingRequest;
use crate::sys::clock;

/// Longest wait of a blocking read: an idle holder wakes up this often. The server allows twice as much.
pub(super) const MAX_WATCH: Duration = Duration::from_secs(300);

/// Settings that only Consul has.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the server excludes others after the session of a holder was lost; at most 60 s.
    pub lock_delay: Duration,
    /// Health checks that invalidate the session if they fail; none by default.
    pub health_checks: Vec<String>,
}

/// Refuses a name that cannot be a lock on Consul.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    Keys::new(name).map(drop)
}

/// One contender for one lock on Consul.
pub(crate) struct Contender {
    pub(super) api: Rc<Api>,
    pub(super) keys: Keys,
    pub(super) spec: LockSpec,
    pub(super) options: Options,
    pub(super) log: LogFn,
    pub(super) state: RefCell<SessionState>,
    /// Acquisitions that were lost before the current one, each with its token, oldest first.
    pub(super) lost_acquisitions: RefCell<Vec<(u64, Acquisition)>>,
    pub(super) session_request: PendingRequest<Outcome<Session>>,
    /// A transaction that locks a key.
    pub(super) locking_request: PendingRequest<Outcome<TxnResult>>,
}

impl Contender {
    /// Creates a contender that has sent nothing yet.
    pub(crate) fn new(server: &Server, options: &Options, spec: LockSpec, log: LogFn) -> Result<Self, Failure> {
        limits::check_ttl(spec.ttl)?;
        limits::check_lock_delay(options.lock_delay)?;
        let keys = Keys::new(&spec.name)?;
        let api = Api::new(server, &keys.name)?;
        Ok(Self {
            api: Rc::new(api),
            keys,
            spec,
            options: options.clone(),
            log,
            state: RefCell::default(),
            lost_acquisitions: RefCell::default(),
            session_request: PendingRequest::default(),
            locking_request: PendingRequest::default(),
        })
    }

    /// Creates a contender for the session `lease_id` of another process. It can only be released.
    pub(crate) fn adopt_lease(
        server: &Server,
        options: &Options,
        spec: LockSpec,
        lease_id: &str,
        log: LogFn,
    ) -> Result<Self, Failure> {
        let contender = Self::new(server, options, spec, log)?;
        {
            let mut state = contender.state.borrow_mut();
            state.session = Some(Session { id: lease_id.to_owned(), sent_at: clock::now() });
            state.role = Role::Adopted;
        }
        Ok(contender)
    }

    pub(super) fn session_id(&self) -> Outcome<String> {
        self.state.borrow().session.as_ref().map(|session| session.id.clone()).ok_or_else(no_session)
    }

    pub(super) fn role(&self) -> Role {
        self.state.borrow().role
    }

    /// Reads the lock and the queue.
    pub(super) async fn read_snapshot(&self) -> Outcome<Snapshot> {
        let keys = &self.keys;
        match self.api.txn(vec![Op::get_tree(&keys.queue), Op::get_tree(&keys.lock)]).await? {
            TxnResult::Applied(pairs) => Ok(Snapshot::new(keys, pairs)),
            TxnResult::Refused(_) => Err(self.unreadable()),
        }
    }

    /// Confirms with a read that the session holds the lock.
    pub(super) async fn confirm_held(&self, session: &str) -> Outcome<()> {
        match self.api.txn(vec![Op::check_session(&self.keys.lock, session)]).await? {
            TxnResult::Applied(_) => Ok(()),
            TxnResult::Refused(_) => {
                Err(Trouble::Lost(format!("{} is no longer held by session {session}", self.keys.lock)))
            }
        }
    }

    pub(super) fn unreadable(&self) -> Trouble {
        Trouble::inconclusive(format!("{}: the lock cannot be read", self.api.http.endpoint()))
    }
}

pub(super) fn no_session() -> Trouble {
    Trouble::no_answer("consul: no session yet")
}

pub(super) fn session_ended(session: &str) -> Trouble {
    Trouble::Lost(format!("session {session} has expired or was invalidated"))
}

pub(super) fn not_a_lock(keys: &Keys) -> Failure {
    Failure::usage(format!("the key {} is not a lock", keys.lock)).hint("choose another name")
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender")
            .field("lock", &self.keys.lock)
            .field("session", &self.session_id().ok())
            .finish_non_exhaustive()
    }
}
