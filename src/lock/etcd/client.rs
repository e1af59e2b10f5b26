//! The requests, on one connection at a time, and the turn around the endpoints.
//!
//! etcd-client would spread its requests over all endpoints blindly, the dead ones included. Here each connection goes to
//! one endpoint, and whatever fails makes the next request go to the next one.

use crate::sys::clock;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{LeaseGrantOptions, ResponseHeader, StatusResponse, Txn};
use futures_util::future::{FutureExt, LocalBoxFuture, Shared};
use tokio::sync::watch;

use super::dial::Dial;
use super::discover::Dials;
use super::fault::Fault;
use super::link::{Link, connect};
use super::view::{Odd, Reply};
use crate::lock::transport::endpoint::{Secret, Server};
use crate::lock::transport::tls::{self, Distrusted};
use crate::lock::{NO_LEADER, Note};
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

/// How long a connection may take where there is another endpoint to try.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long the only endpoint is given to come to a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// A client of one cluster.
pub(super) struct Client {
    dials: Dials,
    user: Option<String>,
    password: Option<Secret>,
    /// The keys that we need access to, for the words of a refusal.
    scope: String,
    /// Grows whenever a connection is given up; its remainder is the present endpoint.
    turn: watch::Sender<usize>,
    link: RefCell<Option<Link>>,
    connecting: RefCell<Option<Connecting>>,
    distrusted: Distrusted,
    /// The endpoints that denied or refused something.
    deniers: RefCell<BTreeSet<usize>>,
    /// The member that answered last.
    member: Cell<u64>,
    note: Note,
}

/// A connection that is being made, in the turn that needs it. All who need it wait for the same.
struct Connecting {
    turn: usize,
    since: Instant,
    link: Shared<LocalBoxFuture<'static, Result<Link, Fault>>>,
}

/// Why a request came back without what it asked for.
#[derive(Debug)]
pub enum Refusal {
    /// The server knows no such lease.
    NoLease,
    /// Anything else.
    Trouble(Trouble),
}

impl Client {
    /// A client that has not connected yet; `scope` is the prefix of the keys that it is going to need.
    pub(super) fn new(server: &Server, scope: &str, note: Note) -> Result<Self, Failure> {
        Ok(Self {
            dials: Dials::new(server)?,
            user: server.identity.user.clone(),
            password: server.identity.password.clone(),
            scope: scope.to_owned(),
            turn: watch::Sender::new(0),
            link: RefCell::new(None),
            connecting: RefCell::new(None),
            distrusted: Distrusted::default(),
            deniers: RefCell::default(),
            member: Cell::new(0),
            note,
        })
    }

    /// Tells what `-v` shows.
    pub(super) fn note(&self, text: String) {
        (self.note)(text);
    }

    /// The open connection, or a new one to the present endpoint.
    pub(super) async fn link(&self) -> Outcome<Link> {
        if let Some(link) = &*self.link.borrow() {
            return Ok(link.clone());
        }
        // Boxed, since every request begins here.
        Box::pin(self.open()).await
    }

    async fn open(&self) -> Outcome<Link> {
        self.dials.find().await?;
        let turn = self.turn();
        let Some(dial) = self.dials.at(turn) else {
            return Err(Trouble::Fatal(Failure::fault("there is no server to connect to")));
        };
        match self.connecting(turn, dial).await {
            Ok(link) => Ok(link),
            Err(fault) => {
                self.connecting.borrow_mut().take_if(|connecting| connecting.turn == turn);
                Err(self.refusal(turn, fault, true).into())
            }
        }
    }

    /// Connects, unless somebody does so already.
    async fn connecting(&self, turn: usize, dial: &Dial) -> Result<Link, Fault> {
        let fresh = || {
            let login = self.user.clone().map(|user| (user, self.password.clone()));
            let limit = if self.is_alone() { Duration::MAX } else { CONNECT_LIMIT };
            let link = connect(dial.clone(), turn, login, limit, Rc::clone(&self.note)).boxed_local().shared();
            Connecting { turn, since: clock::now(), link }
        };
        let link = {
            let mut slot = self.connecting.borrow_mut();
            let present = slot.take().filter(|connecting| connecting.turn == turn).unwrap_or_else(fresh);
            slot.insert(present).link.clone()
        };
        let link = link.await?;
        // Somebody may have turned away from this endpoint meanwhile.
        if self.is_current(&link) && self.link.borrow().is_none() {
            (self.note)(format!("etcd: connected to {}", dial.url));
            self.link.replace(Some(link.clone()));
            self.connecting.replace(None);
        }
        Ok(link)
    }

    /// How often a connection was given up.
    pub(super) fn turn(&self) -> usize {
        *self.turn.borrow()
    }

    /// Whether there is no other endpoint.
    pub(super) fn is_alone(&self) -> bool {
        self.dials.count() == 1
    }

    /// The endpoint of a turn.
    pub(super) fn url(&self, turn: usize) -> &str {
        self.dials.url(turn)
    }

    /// The endpoint whose turn it is.
    pub(super) fn endpoint(&self) -> &str {
        self.dials.url(self.turn())
    }

    /// Somebody who began in this turn got no answer in time: the next request goes to the next endpoint. Where there is no
    /// other one, a connection that is slow and lives is better than a new one, and so is one that is just being made.
    /// Returns whether it was given up.
    pub(super) fn overdue(&self, turn: usize) -> bool {
        let lively = self.link.borrow().as_ref().is_some_and(Link::is_lively);
        let young = |connecting: &Connecting| clock::now().since(connecting.since) < CONNECT_PATIENCE;
        let promising = lively || self.connecting.borrow().as_ref().is_some_and(young);
        let stay = self.is_alone() && promising;
        if !stay {
            self.leave(turn);
        }
        !stay
    }

    /// Gives `turn`'s connection up: the next request goes to the next endpoint. Several requests on one connection that
    /// broke are one reason to go on, not several.
    fn leave(&self, turn: usize) {
        if self.turn() == turn {
            self.link.replace(None);
            self.turn.send_replace(turn.wrapping_add(1));
        }
    }

    /// Returns once `link` is no longer the connection to use.
    pub(super) async fn left(&self, link: &Link) {
        // It fails only when the sender is gone, and that is us.
        let _ = self.turn.subscribe().wait_for(|turn| *turn != link.turn).await;
    }

    /// Whether `link` is still the connection to use.
    pub(super) fn is_current(&self, link: &Link) -> bool {
        self.turn() == link.turn
    }

    /// What an error on `link` means; the next endpoint's turn comes where it may help.
    pub(super) fn judge(&self, link: &Link, error: &etcd_client::Error) -> Refusal {
        let fault = Fault::of(error);
        self.refusal(
            link.turn,
            match self.dials.at(link.turn) {
                Some(dial) => dial.judge(fault),
                None => fault,
            },
            link.is_logged_in(),
        )
    }

    /// No verdict, on `link`, for a reason that only the reader of its replies knows.
    pub(super) fn uncertain(&self, link: &Link, cause: &str) -> Trouble {
        self.passing(link.turn, true, cause)
    }

    fn refusal(&self, turn: usize, fault: Fault, logged_in: bool) -> Refusal {
        let url = self.dials.url(turn);
        Refusal::Trouble(match fault {
            Fault::NoLease => return Refusal::NoLease,
            // The server has come to know users since.
            Fault::Denied(words) if self.user.is_some() && !logged_in => self.passing(turn, true, &words),
            Fault::Denied(words) => self.no(turn, self.denied(url, words)),
            Fault::Refused(words) => {
                self.no(turn, Failure::usage(format!("etcd at {url} refused the request")).because(words))
            }
            Fault::Untrusted(error) => self.distrust(turn, tls::failure(url, &error)),
            Fault::WrongScheme { speaks_tls } => self.distrust(turn, tls::wrong_scheme(url, speaks_tls)),
            Fault::AuthDisabled => self.passing(turn, true, "authentication is not enabled"),
            Fault::Passing { answered, cause } => self.passing(turn, answered, &cause),
        })
    }

    fn passing(&self, turn: usize, answered: bool, cause: &str) -> Trouble {
        self.leave(turn);
        let hint = hint(cause);
        Trouble::Uncertain { answered, cause: format!("{}: {cause}", self.dials.url(turn)), hint }
    }

    /// One endpoint's no. It is the last word where all say so; a new connection is tried in any case, since rights and
    /// users change under running jobs.
    fn no(&self, turn: usize, failure: Failure) -> Trouble {
        let mut deniers = self.deniers.borrow_mut();
        deniers.insert(turn % self.dials.count());
        self.leave(turn);
        if deniers.len() >= self.dials.count() {
            return Trouble::Fatal(failure);
        }
        Trouble::inconclusive(Trouble::Fatal(failure).into_cause())
    }

    fn distrust(&self, turn: usize, failure: Failure) -> Trouble {
        if self.distrusted.add(turn % self.dials.count(), self.dials.count()) {
            return Trouble::Fatal(failure);
        }
        self.leave(turn);
        Trouble::no_answer(Trouble::Fatal(failure).into_cause())
    }

    fn denied(&self, url: &str, words: String) -> Failure {
        let scope = &self.scope;
        let denied = |message, hint: String| Failure::new(Kind::Denied, message).because(words).hint(hint);
        match &self.user {
            None => denied(
                format!("etcd at {url} denied access to the keys under {scope}"),
                "name a user with --user and its password with --password-file or ETCDCTL_PASSWORD".to_owned(),
            ),
            Some(user) => denied(
                format!("etcd at {url} denied user {user} access to the keys under {scope}"),
                format!("check the password; the user needs a role with readwrite on the prefix {scope}"),
            ),
        }
    }

    async fn ask<T>(
        &self,
        request: impl AsyncFnOnce(&mut etcd_client::Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, Refusal> {
        let link = self.link().await?;
        self.ask_on(&link, request).await
    }

    async fn ask_on<T>(
        &self,
        link: &Link,
        request: impl AsyncFnOnce(&mut etcd_client::Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, Refusal> {
        // Boxed, since the client's futures are large and callers nest.
        let answer = Box::pin(request(&mut link.client.clone())).await.map_err(|error| self.judge(link, &error))?;
        link.hear();
        self.distrusted.end();
        Ok(answer)
    }

    /// Grants a lease under an id of our own, which is asked for only once. Returns the TTL in seconds.
    pub(super) async fn grant(&self, lease: i64, ttl: i64) -> Outcome<i64> {
        let options = LeaseGrantOptions::new().with_id(lease);
        let reply = self.ask(async |client| client.lease_grant(ttl, Some(options)).await).await?;
        match reply.ttl() {
            ttl @ 1.. if reply.id() == lease => Ok(ttl),
            _ => Err(self.odd("another lease was granted than was asked for")),
        }
    }

    /// Ends a lease, if there is such a one, and with it what is bound to it.
    pub(super) async fn revoke(&self, lease: i64) -> Outcome<()> {
        match self.ask(async |client| client.lease_revoke(lease).await).await {
            Ok(_) | Err(Refusal::NoLease) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A transaction; a read-only one is linearizable. None where the lease that it names is unknown.
    pub(super) async fn txn(&self, txn: Txn) -> Outcome<Option<Reply>> {
        let link = self.link().await?;
        self.txn_on(&link, txn).await
    }

    async fn txn_on(&self, link: &Link, txn: Txn) -> Outcome<Option<Reply>> {
        match self.ask_on(link, async |client| client.txn(txn).await).await {
            Ok(reply) => {
                reply.header().inspect(|header| self.introduce(header));
                self.understood(Reply::of(reply.0)).map(Some)
            }
            Err(Refusal::NoLease) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A transaction that names no lease.
    pub(super) async fn read(&self, txn: Txn) -> Outcome<Reply> {
        let link = self.link().await?;
        self.read_on(&link, txn).await
    }

    /// The same, on this connection.
    pub(super) async fn read_on(&self, link: &Link, txn: Txn) -> Outcome<Reply> {
        self.txn_on(link, txn).await?.ok_or_else(|| self.odd("a lease was missed that nobody asked for"))
    }

    /// What was read of a reply. One that is none to what was asked says nothing of the lock.
    pub(super) fn understood<T>(&self, read: Result<T, Odd>) -> Outcome<T> {
        read.map_err(|Odd(why)| self.odd(why))
    }

    fn odd(&self, why: &str) -> Trouble {
        self.passing(self.turn(), true, why)
    }

    /// The value of one key, where it exists; linearizable.
    pub(super) async fn value(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let reply = self.ask(async |client| client.get(key, None).await).await?;
        Ok(reply.kvs().first().map(|kv| kv.value().to_vec()))
    }

    /// What the member at the present endpoint tells of itself and its cluster.
    pub(super) async fn status(&self) -> Outcome<StatusResponse> {
        Ok(self.ask(async |client| client.status().await).await?)
    }

    /// Notes which member of which cluster answers, whenever that changes.
    fn introduce(&self, header: &ResponseHeader) {
        if self.member.replace(header.member_id()) != header.member_id() {
            (self.note)(format!("etcd: cluster {:x}, member {:x}", header.cluster_id(), header.member_id()));
        }
    }
}

/// What the user can do about a server that answers with this.
fn hint(cause: &str) -> Option<String> {
    let cause = cause.to_lowercase();
    if cause.contains("database space exceeded") {
        Some("etcd's store is full: compact it, defragment each member, then `etcdctl alarm disarm`".to_owned())
    } else if cause.contains("no leader") || cause.contains("request timed out") {
        Some(NO_LEADER.to_owned())
    } else {
        None
    }
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoLease => super::gone(),
            Refusal::Trouble(trouble) => trouble,
        }
    }
}
