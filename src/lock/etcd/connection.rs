//! One connection: TCP or TLS, login, and the time of its last answer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Channel, ConnectOptions};
use tokio::time::timeout;
use tonic::codegen::http;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use distlock_core::time::Instant;

use super::connector::Connector;
use super::fault::Fault;
use crate::lock::backend::LogFn;
use crate::lock::transport::endpoint::Secret;
use crate::sys::clock;

/// A connection counts as working for this long after an answer.
const RECENT: Duration = Duration::from_secs(1);

/// Token of a login.
type Token = MetadataValue<Ascii>;

/// Open connection to one endpoint.
#[derive(Clone)]
pub(super) struct Connection {
    pub client: etcd_client::Client,
    /// For requests that etcd-client does not offer.
    pub channel: tonic::transport::Channel,
    /// None if no user is given, or authentication was disabled at the login.
    token: Option<Token>,
    /// Number of endpoint changes before this connection.
    pub changes: usize,
    /// Time of the server's last answer.
    answered_at: Rc<Cell<Option<Instant>>>,
}

impl Connection {
    pub(super) fn answered_recently(&self) -> bool {
        self.answered_at.get().is_some_and(|answered_at| clock::now().since(answered_at) < RECENT)
    }

    pub(super) fn record_answer(&self) {
        self.answered_at.set(Some(clock::now()));
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.token.is_some()
    }

    /// Adds the metadata that etcd-client adds to its requests.
    pub(super) fn add_metadata(&self, request: &mut MetadataMap) {
        // A member without a leader then rejects the stream immediately, instead of keeping it open in silence.
        request.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.insert("token", token.clone());
        }
    }
}

/// User and password.
pub(super) type Login = (String, Option<Secret>);

/// Connects and logs in, within `limit`.
pub(super) async fn connect(
    connector: Connector,
    changes: usize,
    login: Option<Login>,
    limit: Duration,
    log: LogFn,
) -> Result<Connection, Fault> {
    let connected = async {
        let channel = connector.connect().await?;
        // Without TLS and a login only the host has answered yet, not the server.
        let answered_at = (connector.is_secure() || login.is_some()).then(clock::now);
        let token = match login {
            Some(login) => log_in(&connector, channel.clone(), login, &log).await?,
            None => None,
        };
        let client = client(with_token(channel.clone(), token.clone())).await?;
        Ok(Connection { client, channel, token, changes, answered_at: Rc::new(Cell::new(answered_at)) })
    };
    let late = || Fault::Transient { answered: false, cause: "connection timed out".to_owned() };
    timeout(limit, connected).await.unwrap_or_else(|_| Err(late()))
}

/// Returns the user's token, or None if authentication is disabled. etcd-client can log in too, but does not expose the
/// token. A token that expires makes a request fail, and the next connection gets a new one.
async fn log_in(
    connector: &Connector,
    channel: tonic::transport::Channel,
    (user, password): Login,
    log: &LogFn,
) -> Result<Option<Token>, Fault> {
    let mut auth = client(Channel::Tonic(channel)).await?.auth_client();
    let password = password.as_ref().map_or("", Secret::reveal).to_owned();
    match auth.authenticate(user, password).await.map_err(|error| Fault::from_client(&error)) {
        Ok(reply) => {
            let invalid =
                |_| Fault::Transient { answered: true, cause: "the login returned an invalid token".to_owned() };
            Ok(Some(reply.token().parse().map_err(invalid)?))
        }
        Err(Fault::AuthDisabled) => {
            log(format!("etcd: {}: authentication is disabled, so the user is not used", connector.url));
            Ok(None)
        }
        Err(fault) => Err(connector.explain(fault)),
    }
}

/// Returns a channel that adds the token to each request.
fn with_token(channel: tonic::transport::Channel, token: Option<Token>) -> Channel {
    let Some(token) = token else { return Channel::Tonic(channel) };
    let add_token = move |mut request: http::Request<tonic::body::Body>| {
        if let Ok(value) = http::HeaderValue::from_bytes(token.as_bytes()) {
            request.headers_mut().insert("token", value);
        }
        request
    };
    Channel::Custom(BoxCloneSyncService::new(channel.map_request(add_token).map_err(tower::BoxError::from)))
}

async fn client(channel: Channel) -> Result<etcd_client::Client, Fault> {
    // As in `Connection::add_metadata`.
    let options = ConnectOptions::new().with_require_leader(true);
    etcd_client::Client::from_channel(channel, Some(options)).await.map_err(|error| Fault::from_client(&error))
}
