//! One connection: made, logged in on, and what is known of it.

use crate::sys::clock;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Channel, ConnectOptions};
use tokio::time::timeout;
use tonic::codegen::http;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::dial::Dial;
use super::fault::Fault;
use crate::lock::Note;
use crate::lock::transport::endpoint::Secret;
use distlock_core::time::Instant;

/// For how long after an answer a connection is taken to live.
const LIVELY: Duration = Duration::from_secs(1);

/// The token of a login.
type Token = MetadataValue<Ascii>;

/// An open connection, and the turn in which it was opened.
#[derive(Clone)]
pub(super) struct Link {
    /// Its requests go to one endpoint.
    pub client: etcd_client::Client,
    /// The way there, for what the client does not offer.
    pub channel: tonic::transport::Channel,
    /// Stands for the user; none where no user was given, or the server knew none then.
    token: Option<Token>,
    pub turn: usize,
    /// When something came from the server last.
    heard: Rc<Cell<Option<Instant>>>,
}

impl Link {
    /// Whether the server has answered on it so shortly before that it can be taken to live.
    pub(super) fn is_lively(&self) -> bool {
        self.heard.get().is_some_and(|heard| clock::now().since(heard) < LIVELY)
    }

    /// The server has answered.
    pub(super) fn hear(&self) {
        self.heard.set(Some(clock::now()));
    }

    /// Whether the server knows who we are.
    pub(super) fn is_logged_in(&self) -> bool {
        self.token.is_some()
    }

    /// Signs a request as the client does.
    pub(super) fn sign(&self, request: &mut MetadataMap) {
        // A member that lost its cluster says so at once instead of keeping streams open that will never say anything.
        request.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.insert("token", token.clone());
        }
    }
}

/// Who to be, and the password.
pub(super) type Login = (String, Option<Secret>);

/// Connects to one server, in `limit` at most, and logs in.
pub(super) async fn connect(
    dial: Dial,
    turn: usize,
    login: Option<Login>,
    limit: Duration,
    note: Note,
) -> Result<Link, Fault> {
    let connected = async {
        let channel = dial.connect().await?;
        // Without TLS and login nothing has come from the server yet, only from its host.
        let heard = (dial.is_secure() || login.is_some()).then(clock::now);
        let token = match login {
            Some(login) => log_in(&dial, channel.clone(), login, &note).await?,
            None => None,
        };
        let client = open(signed(channel.clone(), token.clone())).await?;
        Ok(Link { client, channel, token, turn, heard: Rc::new(Cell::new(heard)) })
    };
    let late = || Fault::Passing { answered: false, cause: "no connection in time".to_owned() };
    timeout(limit, connected).await.unwrap_or_else(|_| Err(late()))
}

/// The token that stands for the user, unless the server knows no users. It is asked for here rather than by etcd-client,
/// which shows it to nobody. One that expires takes its connection with it, and the next has a new one.
async fn log_in(
    dial: &Dial,
    channel: tonic::transport::Channel,
    (user, password): Login,
    note: &Note,
) -> Result<Option<Token>, Fault> {
    let mut login = open(Channel::Tonic(channel)).await?.auth_client();
    let password = password.as_ref().map_or("", Secret::reveal).to_owned();
    match login.authenticate(user, password).await.map_err(|error| Fault::of(&error)) {
        Ok(reply) => {
            let unfit = |_| Fault::Passing { answered: true, cause: "an unfit token".to_owned() };
            Ok(Some(reply.token().parse().map_err(unfit)?))
        }
        Err(Fault::AuthDisabled) => {
            note(format!("etcd: {} knows no users", dial.url));
            Ok(None)
        }
        Err(fault) => Err(dial.judge(fault)),
    }
}

/// The same channel, whose requests bring the token.
fn signed(channel: tonic::transport::Channel, token: Option<Token>) -> Channel {
    let Some(token) = token else { return Channel::Tonic(channel) };
    let sign = move |mut request: http::Request<tonic::body::Body>| {
        if let Ok(value) = http::HeaderValue::from_bytes(token.as_bytes()) {
            request.headers_mut().insert("token", value);
        }
        request
    };
    Channel::Custom(BoxCloneSyncService::new(channel.map_request(sign).map_err(tower::BoxError::from)))
}

async fn open(channel: Channel) -> Result<etcd_client::Client, Fault> {
    // A member that lost its cluster says so at once instead of keeping streams open that will never say anything.
    let options = ConnectOptions::new().with_require_leader(true);
    etcd_client::Client::from_channel(channel, Some(options)).await.map_err(|error| Fault::of(&error))
}
