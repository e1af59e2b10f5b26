//! One connection: made, logged in on, and what is known of it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, ConnectOptions};
use tokio::time::timeout;
use tonic::codegen::http;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::dial::Dial;
use super::fault::Fault;
use crate::backend::Note;
use crate::backend::endpoint::Secret;
use crate::clock::Instant;

/// For how long after an answer a connection is taken to live.
const LIVELY: Duration = Duration::from_secs(1);

/// The token of a login, once there was one.
type Token = Arc<Mutex<Option<MetadataValue<Ascii>>>>;

/// An open connection, and the turn in which it was opened.
#[derive(Clone)]
pub struct Link {
    /// Its requests go to one endpoint.
    pub client: etcd_client::Client,
    /// The way there, for what the client does not offer.
    pub channel: tonic::transport::Channel,
    /// With which token the client signs its requests.
    token: Token,
    pub turn: usize,
    /// When something came from the server last.
    heard: Rc<Cell<Option<Instant>>>,
}

impl Link {
    /// Whether the server has answered on it so shortly before that it can be taken to live.
    pub fn is_lively(&self) -> bool {
        self.heard.get().is_some_and(|heard| Instant::now().since(heard) < LIVELY)
    }

    /// The server has answered.
    pub fn hear(&self) {
        self.heard.set(Some(Instant::now()));
    }

    /// Signs a request as the client does.
    pub fn sign(&self, request: &mut MetadataMap) {
        // A member that lost its cluster says so at once instead of keeping streams open that will never say anything.
        request.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            request.insert("token", token.clone());
        }
    }
}

/// Who to be, and the password.
pub type Login = (String, Option<Secret>);

/// Connects to one server, in `limit` at most, and logs in.
pub async fn connect(
    dial: Dial,
    turn: usize,
    login: Option<Login>,
    limit: Duration,
    note: Note,
) -> Result<Link, Fault> {
    let connected = async {
        let channel = dial.connect().await?;
        let token = Token::default();
        // Without TLS and login nothing has come from the server yet, only from its host.
        let heard = (dial.is_secure() || login.is_some()).then(Instant::now);
        let client = log_in(&dial, overheard(channel.clone(), &token), login, &note).await?;
        Ok(Link { client, channel, token, turn, heard: Rc::new(Cell::new(heard)) })
    };
    let late = || Fault::Passing { answered: false, cause: "no connection in time".to_owned() };
    timeout(limit, connected).await.unwrap_or_else(|_| Err(late()))
}

/// The same channel, of which the client's token is learned: the client shows it to nobody.
fn overheard(channel: tonic::transport::Channel, token: &Token) -> Channel {
    let token = Arc::clone(token);
    let learn = move |request: http::Request<tonic::body::Body>| {
        if let Some(value) = request.headers().get("token").and_then(|value| value.as_bytes().try_into().ok()) {
            token.lock().unwrap_or_else(PoisonError::into_inner).replace(value);
        }
        request
    };
    Channel::Custom(BoxCloneSyncService::new(channel.map_request(learn).map_err(tower::BoxError::from)))
}

async fn log_in(
    dial: &Dial,
    channel: Channel,
    login: Option<Login>,
    note: &Note,
) -> Result<etcd_client::Client, Fault> {
    // A member that lost its cluster says so at once instead of keeping streams open that will never say anything.
    let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
    let Some((user, password)) = login else { return open(channel, options).await };
    let password = password.as_ref().map_or("", Secret::reveal);
    match open(channel.clone(), options.clone().with_user(user, password)).await {
        Err(Fault::AuthDisabled) => {
            note(format!("etcd: {} knows no users", dial.url));
            open(channel, options).await
        }
        opened => opened.map_err(|fault| dial.judge(fault)),
    }
}

async fn open(channel: Channel, options: ConnectOptions) -> Result<etcd_client::Client, Fault> {
    etcd_client::Client::from_channel(channel, Some(options)).await.map_err(|error| Fault::of(&error))
}
