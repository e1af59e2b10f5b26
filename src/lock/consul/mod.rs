//! The lock on Consul: a session, and the keys that it holds.
//!
//! | module | what belongs there |
//! |---|---|
//! | here | one contender: its session, the trait |
//! | `turn`, `leave` | the way to the lock: first try, queue, taking it; and the way out |
//! | `life` | what a contender has on the server |
//! | `queue` | pure: who is next, from what was read |
//! | `api`, `txn` | typed requests and answers |
//! | `http`, `tls` | endpoints, connections, what their errors mean |
//! | `keys`, `info` | names of keys; the holder record |
//! | `probe` | what `distlock doctor` asks |
//!
//! Without contention a lock takes two round trips (session, transaction) and so does its release (transaction,
//! session).

mod api;
mod http;
mod leave;
pub(crate) mod probe;
mod tls;
mod turn;
mod txn;

use crate::sys::clock;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::{Backend, Note, Server, Want};
use crate::lock::transport::pending::Pending;
use api::{Api, NewSession, go_duration};
use distlock_core::consul::keys::Keys;
use distlock_core::consul::queue::View;
use distlock_core::consul::session::{Role, Session, SessionState, Taken};
use distlock_core::error::Failure;
use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::time::Instant;
use txn::{Op, Txn};

/// The server's bounds for a session's TTL.
const MIN_TTL: Duration = Duration::from_secs(10);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The server's bound for the lock-delay.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// How long a read may wait for a change. An idle holder wakes up this often; the server allows twice as much.
const LONG_WAIT: Duration = Duration::from_secs(300);

/// How long a release waits for the answers to requests that it finds under way.
const SETTLE: Duration = Duration::from_secs(1);

/// What is Consul's alone.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the server keeps a lock closed whose session was lost; at most 60 s.
    pub lock_delay: Duration,
    /// Health checks that end the session when they fail; none by default.
    pub health_checks: Vec<String>,
}

/// Refuses a name that cannot be a lock on Consul.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    Keys::new(name).map(drop)
}

/// One contender for one lock on Consul.
pub(crate) struct Contender {
    api: Rc<Api>,
    keys: Keys,
    want: Want,
    options: Options,
    note: Note,
    life: RefCell<SessionState>,
    /// The takings of the lock that were lost before this one, each with its token.
    before: RefCell<Vec<(u64, Taken)>>,
    /// A session whose creation was not answered yet.
    creating: Pending<Outcome<Session>>,
    /// A transaction that was to take a key, and was not answered yet.
    taking: Pending<Outcome<Txn>>,
}

impl Contender {
    /// A contender that has not entered yet; connects lazily.
    pub(crate) fn new(server: &Server, options: &Options, want: Want, note: Note) -> Result<Self, Failure> {
        if want.ttl < MIN_TTL || want.ttl > MAX_TTL {
            return Err(Failure::usage(format!("Consul grants no TTL of {:?}", want.ttl))
                .hint("consul's least TTL is 10s, its greatest 24h: --ttl 15s"));
        }
        if options.lock_delay > MAX_LOCK_DELAY {
            return Err(Failure::usage(format!("Consul grants no lock-delay of {:?}", options.lock_delay))
                .hint("its greatest lock-delay is 60s"));
        }
        let keys = Keys::new(&want.name)?;
        let api = Api::new(server, &keys.name)?;
        Ok(Self {
            api: Rc::new(api),
            keys,
            want,
            options: options.clone(),
            note,
            life: RefCell::default(),
            before: RefCell::default(),
            creating: Pending::default(),
            taking: Pending::default(),
        })
    }

    /// A contender that stands for the session `lease_id`, only good for release.
    pub(crate) fn adopt(
        server: &Server,
        options: &Options,
        want: Want,
        lease_id: &str,
        note: Note,
    ) -> Result<Self, Failure> {
        let contender = Self::new(server, options, want, note)?;
        {
            let mut life = contender.life.borrow_mut();
            life.session = Some(Session { id: lease_id.to_owned(), sent_at: clock::now() });
            life.role = Role::Adopted;
        }
        Ok(contender)
    }

    /// The session, created when there is none.
    async fn session(&self) -> Outcome<Session> {
        if let Some(session) = &self.life.borrow().session {
            return Ok(session.clone());
        }
        let new = NewSession {
            name: format!("distlock {}", self.keys.name),
            ttl: go_duration(self.want.ttl),
            lock_delay: go_duration(self.options.lock_delay),
            // What is deleted with its session cannot tell how often it was taken.
            behavior: if self.want.relock { "release" } else { "delete" },
            node_checks: self.options.health_checks.clone(),
        };
        let api = Rc::clone(&self.api);
        let s = clock::now();
        self.creating.begin(async move { Ok(Session { id: api.create_session(&new).await?, sent_at: s }) });
        self.created().await
    }

    /// The session whose creation is under way, once that is answered. One whose answer is lost holds nothing and ends by
    /// itself.
    async fn created(&self) -> Outcome<Session> {
        let session = self.creating.answer().await.unwrap_or_else(|| Err(no_session()))?;
        (self.note)(format!("consul: {}: session {}", self.api.http.endpoint(), session.id));
        self.life.borrow_mut().session = Some(session.clone());
        Ok(session)
    }

    /// A transaction that takes a key for the session.
    async fn take_keys(&self, ops: Vec<Op>) -> Outcome<Txn> {
        let api = Rc::clone(&self.api);
        self.taking.begin(async move { api.txn(ops).await });
        self.taking.answer().await.unwrap_or_else(|| Err(no_session()))
    }

    /// Waits until what is under way has happened: what it creates is to be given up too.
    async fn settle(&self) {
        let settled = async {
            // Its troubles are those of the release that follows.
            let _ = self.created().await;
            drop(self.taking.answer().await);
        };
        // A server that does not answer keeps nobody for long.
        let _ = tokio::time::timeout(SETTLE, settled).await;
    }

    /// The session's id, once there is one.
    fn session_id(&self) -> Outcome<String> {
        self.lease_id().ok_or_else(no_session)
    }

    /// A session that is gone is forgotten, so that the next entry starts with another. A holder's is kept for its
    /// release, which tells the truth about it.
    fn forget_if_lost<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        let mut life = self.life.borrow_mut();
        if matches!(outcome, Err(Trouble::Lost(_))) {
            match life.role {
                Role::Holding => life.lost = true,
                _ => *life = SessionState::default(),
            }
        }
        outcome
    }

    /// Leaves a lost lock behind, and its session, which may live on.
    async fn begin_anew(&self) -> Outcome<()> {
        if !self.life.borrow().lost {
            return Ok(());
        }
        let session = self.session_id()?;
        self.unlock_record(&session).await?;
        self.api.destroy_session(&session).await?;
        let lost = std::mem::take(&mut *self.life.borrow_mut());
        self.before.borrow_mut().extend(lost.taken);
        Ok(())
    }

    /// Waits for the held lock to change, and judges what it has become.
    async fn watch_once(&self, session: &str) -> Outcome<()> {
        let from = self.life.borrow().seen;
        let (pairs, index) = self.api.watch(&self.keys.lock, true, from, LONG_WAIT).await?;
        let view = View::new(&self.keys, pairs);
        match view.holder() {
            Some(holder) if holder == session => {}
            Some(other) => return Err(Trouble::Lost(format!("{} is held by session {other}", self.keys.lock))),
            // A key that the token may not read is left out without a word; a transaction says so.
            None => return self.confirm(session).await.and(Err(self.unreadable())),
        }
        if let Some(stop) = view.record().stop {
            return Err(Trouble::Broken(stop));
        }
        self.life.borrow_mut().seen = index;
        Ok(())
    }

    /// A read, sent now, says that the session holds the lock.
    async fn confirm(&self, session: &str) -> Outcome<()> {
        match self.api.txn(vec![Op::check_session(&self.keys.lock, session)]).await? {
            Txn::Applied(_) => Ok(()),
            Txn::Refused(_) => Err(Trouble::Lost(format!("{} is no longer held by this session", self.keys.lock))),
        }
    }

    fn role(&self) -> Role {
        self.life.borrow().role
    }
}

#[async_trait::async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        self.begin_anew().await?;
        let session = self.session().await?;
        let place = self.first_place(&session.id).await;
        let place = self.forget_if_lost(place)?;
        let cover = self.want.ttl.min(self.options.lock_delay);
        Ok((Granted { sent_at: session.sent_at, cover: Some(cover) }, place))
    }

    async fn wait(&self) -> Outcome<Position> {
        let session = self.session_id()?;
        let place = self.await_turn(&session).await;
        self.forget_if_lost(place)
    }

    async fn renew(&self) -> Outcome<Instant> {
        let session = self.session_id()?;
        let s = clock::now();
        let renewed = match self.api.renew_session(&session).await {
            Ok(false) => Err(turn::ended(&session)),
            // A leader that stood still and was replaced acknowledges a while what nobody else knows of. A command that
            // runs would be dead before its successor ends the session; one that was frozen may be long past that.
            Ok(true) if self.want.relock && self.role() == Role::Holding => self.confirm(&session).await,
            outcome => outcome.map(drop),
        };
        self.forget_if_lost(renewed).map(|()| s).map_err(not_fatal)
    }

    async fn watch(&self) -> Trouble {
        let session = match self.session_id() {
            Ok(session) => session,
            Err(trouble) => return trouble,
        };
        loop {
            if let Err(trouble) = self.watch_once(&session).await {
                // Whatever broke: the next watch begins with a look at the lock.
                self.life.borrow_mut().seen = None;
                self.life.borrow_mut().lost |= matches!(trouble, Trouble::Lost(_));
                return not_fatal(trouble);
            }
        }
    }

    async fn held_continuously_since(&self, since: u64) -> Outcome<bool> {
        let Some((_, taken)) = self.life.borrow().taken else { return Ok(false) };
        let before = self.before.borrow();
        let first = before.iter().position(|(token, _)| *token == since);
        Ok(first.is_some_and(|first| taken.follows(before[first].1, before.len() - first)))
    }

    async fn release(&self) -> Outcome<()> {
        self.settle().await;
        let Ok(session) = self.session_id() else { return Ok(()) };
        match self.let_go(&session).await {
            // Keys that the token may not touch go with the session, if it may end that.
            Err(Trouble::Fatal(failure)) => {
                (self.note)(format!("consul: the lock's keys are left to the session's end: {failure}"));
            }
            outcome => outcome?,
        }
        self.api.destroy_session(&session).await?;
        let lost = self.role() == Role::Left { lost: true };
        *self.life.borrow_mut() = SessionState::default();
        (self.note)(format!("consul: {}: session {session} destroyed", self.api.http.endpoint()));
        if lost { Err(Trouble::Lost(format!("{} was not held by session {session}", self.keys.lock))) } else { Ok(()) }
    }

    fn turn(&self) -> usize {
        self.api.http.turn()
    }

    fn overdue(&self, turn: usize) -> String {
        let silent = self.api.http.endpoint_of(turn).to_string();
        if turn != self.turn() {
            return silent;
        }
        self.api.http.next_endpoint();
        self.creating.abandon();
        self.taking.abandon();
        (self.note)(format!("consul: next endpoint: {}", self.api.http.endpoint()));
        silent
    }

    fn lease_id(&self) -> Option<String> {
        self.life.borrow().session.as_ref().map(|session| session.id.clone())
    }
}

fn no_session() -> Trouble {
    Trouble::no_answer("consul: no session yet")
}

/// What was granted once is not lost because a server denies or mistrusts a later request: tokens and certificates are
/// replaced under running jobs, and one endpoint's fault says nothing about the lock.
fn not_fatal(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Fatal(failure) => {
            let cause = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
            Trouble::inconclusive(cause)
        }
        other => other,
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender")
            .field("lock", &self.keys.lock)
            .field("session", &self.lease_id())
            .finish_non_exhaustive()
    }
}
