//! Requests on the current connection, and the change of the endpoint after a failure.
//!
//! etcd-client would spread its requests over all endpoints, dead ones included. Here each connection has one endpoint,
//! and a failure selects the next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{LeaseGrantOptions, ResponseHeader, StatusResponse, Txn};
use futures_util::future::{FutureExt, LocalBoxFuture, Shared};
use tokio::sync::watch;

use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

use super::connection::{Connection, connect};
use super::connector::Connector;
use super::discover::Connectors;
use super::fault::{self, Fault};
use super::transactions::{MalformedReply, Reply};
use crate::lock::backend::{LogFn, NO_LEADER_HINT};
use crate::lock::transport::endpoint::{Secret, Server};
use crate::lock::transport::tls::{self, DistrustedEndpoints};
use crate::sys::clock;

/// Time limit of a connection attempt if there is another endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that a connection attempt to the only endpoint has before a silent request ends it.
const ONLY_ENDPOINT_CONNECT_TIME: Duration = Duration::from_secs(3);

/// Client of one cluster.
pub(super) struct Client {
    connectors: Connectors,
    user: Option<String>,
    password: Option<Secret>,
    /// Prefix of the keys that need permissions, for messages.
    scope: String,
    /// Number of endpoint changes so far; its remainder is the index of the current endpoint.
    changes: watch::Sender<usize>,
    connection: RefCell<Option<Connection>>,
    connecting: RefCell<Option<ConnectionAttempt>>,
    distrusted: DistrustedEndpoints,
    /// Endpoints that denied a request or called it invalid.
    denied_by: RefCell<BTreeSet<usize>>,
    /// Id of the member that answered last.
    member: Cell<u64>,
    log: LogFn,
}

/// Connection attempt, which all requests share.
struct ConnectionAttempt {
    changes: usize,
    started_at: Instant,
    connection: Shared<LocalBoxFuture<'static, Result<Connection, Fault>>>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum RequestError {
    LeaseNotFound,
    Trouble(Trouble),
}

impl Client {
    /// Creates a client. `scope` is the prefix of the keys that it will use. Sends nothing.
    pub(super) fn new(server: &Server, scope: &str, log: LogFn) -> Result<Self, Failure> {
        Ok(Self {
            connectors: Connectors::new(server)?,
            user: server.identity.user.clone(),
            password: server.identity.password.clone(),
            scope: scope.to_owned(),
            changes: watch::Sender::new(0),
            connection: RefCell::new(None),
            connecting: RefCell::new(None),
            distrusted: DistrustedEndpoints::default(),
            denied_by: RefCell::default(),
            member: Cell::new(0),
            log,
        })
    }

    /// Passes a line to the verbose log.
    pub(super) fn log(&self, text: String) {
        (self.log)(text);
    }

    /// Returns the open connection, or a new one to the current endpoint.
    pub(super) async fn connection(&self) -> Outcome<Connection> {
        if let Some(connection) = &*self.connection.borrow() {
            return Ok(connection.clone());
        }
        // Boxed because the future is large and part of every request.
        Box::pin(self.connect()).await
    }

    async fn connect(&self) -> Outcome<Connection> {
        self.connectors.discover().await?;
        let changes = self.endpoint_changes();
        let Some(connector) = self.connectors.after(changes) else {
            return Err(Trouble::Fatal(Failure::fault("there is no server to connect to")));
        };
        match self.join_attempt(changes, connector).await {
            Ok(connection) => Ok(connection),
            Err(fault) => {
                self.connecting.borrow_mut().take_if(|attempt| attempt.changes == changes);
                Err(self.request_error(changes, fault, true).into())
            }
        }
    }

    /// Waits for the connection attempt, which it starts if there is none.
    async fn join_attempt(&self, changes: usize, connector: &Connector) -> Result<Connection, Fault> {
        let start = || {
            let login = self.user.clone().map(|user| (user, self.password.clone()));
            let limit = if self.has_one_endpoint() { Duration::MAX } else { CONNECT_TIMEOUT };
            let connection = connect(connector.clone(), changes, login, limit, Rc::clone(&self.log));
            ConnectionAttempt { changes, started_at: clock::now(), connection: connection.boxed_local().shared() }
        };
        let connection = {
            let mut slot = self.connecting.borrow_mut();
            let attempt = slot.take().filter(|attempt| attempt.changes == changes).unwrap_or_else(start);
            slot.insert(attempt).connection.clone()
        };
        let connection = connection.await?;
        // Another request may have left the endpoint meanwhile, or stored the connection.
        if self.is_current(&connection) && self.connection.borrow().is_none() {
            (self.log)(format!("etcd: connected to {}", connector.url));
            self.connection.replace(Some(connection.clone()));
            self.connecting.replace(None);
        }
        Ok(connection)
    }

    /// Returns the number of endpoint changes so far.
    pub(super) fn endpoint_changes(&self) -> usize {
        *self.changes.borrow()
    }

    pub(super) fn has_one_endpoint(&self) -> bool {
        self.connectors.count() == 1
    }

    /// Returns the address of the endpoint that was the current one after so many changes.
    pub(super) fn url(&self, changes: usize) -> &str {
        self.connectors.url(changes)
    }

    /// Returns the address of the current endpoint.
    pub(super) fn endpoint(&self) -> &str {
        self.connectors.url(self.endpoint_changes())
    }

    /// Leaves the endpoint of a request that timed out, unless it is the only one and either its connection answered
    /// recently or a connection attempt has just begun. Returns whether it was left.
    pub(super) fn leave_silent_endpoint(&self, changes: usize) -> bool {
        let working = self.connection.borrow().as_ref().is_some_and(Connection::answered_recently);
        let young = |attempt: &ConnectionAttempt| clock::now().since(attempt.started_at) < ONLY_ENDPOINT_CONNECT_TIME;
        let promising = working || self.connecting.borrow().as_ref().is_some_and(young);
        let leave = !(self.has_one_endpoint() && promising);
        if leave {
            self.leave(changes);
        }
        leave
    }

    /// Closes the connection and selects the next endpoint, once for all requests that fail on one connection.
    fn leave(&self, changes: usize) {
        if self.endpoint_changes() == changes {
            self.connection.replace(None);
            self.changes.send_replace(changes.wrapping_add(1));
        }
    }

    /// Waits until `connection` is no longer the current one.
    pub(super) async fn until_left(&self, connection: &Connection) {
        // Cannot fail because the sender is part of `self`.
        let _ = self.changes.subscribe().wait_for(|changes| *changes != connection.changes).await;
    }

    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        self.endpoint_changes() == connection.changes
    }

    /// Returns what an error on `connection` means. Leaves the endpoint if another one may answer better.
    pub(super) fn classify(&self, connection: &Connection, error: &etcd_client::Error) -> RequestError {
        let fault = Fault::from_client(error);
        let fault = match self.connectors.after(connection.changes) {
            Some(connector) => connector.explain(fault),
            None => fault,
        };
        self.request_error(connection.changes, fault, connection.is_logged_in())
    }

    /// Returns an uncertain outcome of a request on `connection`, and leaves the endpoint.
    pub(super) fn uncertain(&self, connection: &Connection, cause: &str) -> Trouble {
        self.transient(connection.changes, true, cause)
    }

    fn request_error(&self, changes: usize, fault: Fault, logged_in: bool) -> RequestError {
        let url = self.connectors.url(changes);
        RequestError::Trouble(match fault {
            Fault::LeaseNotFound => return RequestError::LeaseNotFound,
            // Authentication was enabled after this connection was opened without a login.
            Fault::Denied(text) if self.user.is_some() && !logged_in => self.transient(changes, true, &text),
            Fault::Denied(text) => self.record_denial(changes, self.denied(url, text)),
            Fault::InvalidRequest(text) => self.record_denial(
                changes,
                Failure::usage(format!("etcd at {url} rejected the request as invalid")).because(text),
            ),
            Fault::Untrusted(error) => self.record_distrust(changes, tls::failure(url, &error)),
            Fault::WrongScheme { speaks_tls } => self.record_distrust(changes, tls::wrong_scheme(url, speaks_tls)),
            Fault::AuthDisabled => self.transient(changes, true, "authentication is not enabled"),
            Fault::Transient { answered, cause } => self.transient(changes, answered, &cause),
        })
    }

    fn transient(&self, changes: usize, answered: bool, cause: &str) -> Trouble {
        self.leave(changes);
        let hint = hint(cause);
        Trouble::Uncertain { answered, cause: format!("{}: {cause}", self.connectors.url(changes)), hint }
    }

    /// Records a denial, which is fatal once every endpoint has denied. The endpoint is left in any case, because
    /// permissions and users change under running jobs.
    fn record_denial(&self, changes: usize, failure: Failure) -> Trouble {
        let mut denied_by = self.denied_by.borrow_mut();
        denied_by.insert(changes % self.connectors.count());
        self.leave(changes);
        if denied_by.len() >= self.connectors.count() {
            return Trouble::Fatal(failure);
        }
        Trouble::inconclusive(Trouble::Fatal(failure).into_cause())
    }

    fn record_distrust(&self, changes: usize, failure: Failure) -> Trouble {
        if self.distrusted.record(changes % self.connectors.count(), self.connectors.count()) {
            return Trouble::Fatal(failure);
        }
        self.leave(changes);
        Trouble::no_answer(Trouble::Fatal(failure).into_cause())
    }

    fn denied(&self, url: &str, text: String) -> Failure {
        let scope = &self.scope;
        let denied = |message, hint: String| Failure::new(Kind::Denied, message).because(text).hint(hint);
        match &self.user {
            None => denied(
                format!("etcd at {url} denied access to the keys under {scope}"),
                "give a user with --user and its password with --password-file or ETCDCTL_PASSWORD".to_owned(),
            ),
            Some(user) => denied(
                format!("etcd at {url} denied user {user} access to the keys under {scope}"),
                format!("check the password; the user needs a role with readwrite permission on the prefix {scope}"),
            ),
        }
    }

    async fn request<T>(
        &self,
        request: impl AsyncFnOnce(&mut etcd_client::Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, RequestError> {
        let connection = self.connection().await?;
        self.request_on(&connection, request).await
    }

    async fn request_on<T>(
        &self,
        connection: &Connection,
        request: impl AsyncFnOnce(&mut etcd_client::Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, RequestError> {
        // Boxed because the client's futures are large and callers nest.
        let answer = Box::pin(request(&mut connection.client.clone()))
            .await
            .map_err(|error| self.classify(connection, &error))?;
        connection.record_answer();
        self.distrusted.stop_recording();
        Ok(answer)
    }

    /// Grants a lease under an id that no earlier request named. Returns the TTL in seconds.
    pub(super) async fn grant(&self, lease: i64, ttl: i64) -> Outcome<i64> {
        let options = LeaseGrantOptions::new().with_id(lease);
        let reply = self.request(async |client| client.lease_grant(ttl, Some(options)).await).await?;
        match reply.ttl() {
            ttl @ 1.. if reply.id() == lease => Ok(ttl),
            _ => Err(self.malformed("the server granted another lease than requested")),
        }
    }

    /// Revokes a lease, if it exists, which deletes the keys bound to it.
    pub(super) async fn revoke(&self, lease: i64) -> Outcome<()> {
        match self.request(async |client| client.lease_revoke(lease).await).await {
            Ok(_) | Err(RequestError::LeaseNotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a transaction; a read-only one is linearizable. Returns None if the server does not know its lease.
    pub(super) async fn txn(&self, txn: Txn) -> Outcome<Option<Reply>> {
        let connection = self.connection().await?;
        self.txn_on(&connection, txn).await
    }

    async fn txn_on(&self, connection: &Connection, txn: Txn) -> Outcome<Option<Reply>> {
        match self.request_on(connection, async |client| client.txn(txn).await).await {
            Ok(reply) => {
                reply.header().inspect(|header| self.log_member(header));
                self.parsed(Reply::parse(reply.0)).map(Some)
            }
            Err(RequestError::LeaseNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a transaction that names no lease.
    pub(super) async fn read(&self, txn: Txn) -> Outcome<Reply> {
        let connection = self.connection().await?;
        self.read_on(&connection, txn).await
    }

    /// Sends a transaction that names no lease, on this connection.
    pub(super) async fn read_on(&self, connection: &Connection, txn: Txn) -> Outcome<Reply> {
        self.txn_on(connection, txn)
            .await?
            .ok_or_else(|| self.malformed("the server does not know a lease that the request did not name"))
    }

    /// Returns the parsed reply. A malformed one makes the outcome uncertain.
    pub(super) fn parsed<T>(&self, reply: Result<T, MalformedReply>) -> Outcome<T> {
        reply.map_err(|MalformedReply(why)| self.malformed(why))
    }

    fn malformed(&self, why: &str) -> Trouble {
        self.transient(self.endpoint_changes(), true, why)
    }

    /// Returns the value of one key, if it exists; linearizable.
    pub(super) async fn value(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let reply = self.request(async |client| client.get(key, None).await).await?;
        Ok(reply.kvs().first().map(|kv| kv.value().to_vec()))
    }

    /// Returns the status of the member at the current endpoint.
    pub(super) async fn status(&self) -> Outcome<StatusResponse> {
        Ok(self.request(async |client| client.status().await).await?)
    }

    /// Logs which member of which cluster answers, if it is not the last one.
    fn log_member(&self, header: &ResponseHeader) {
        if self.member.replace(header.member_id()) != header.member_id() {
            (self.log)(format!("etcd: cluster {:x}, member {:x}", header.cluster_id(), header.member_id()));
        }
    }
}

/// Returns what the user can do about an error of a server.
fn hint(cause: &str) -> Option<String> {
    let cause = cause.to_lowercase();
    if cause.contains("database space exceeded") {
        Some(
            "the etcd database is full: compact it, defragment each member, then run `etcdctl alarm disarm`".to_owned(),
        )
    } else if cause.contains("no leader") || cause.contains("request timed out") {
        Some(NO_LEADER_HINT.to_owned())
    } else {
        None
    }
}

impl From<Trouble> for RequestError {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<RequestError> for Trouble {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::LeaseNotFound => fault::lease_lost(),
            RequestError::Trouble(trouble) => trouble,
        }
    }
}
