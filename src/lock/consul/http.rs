//! HTTP requests to the current endpoint, and the change to the next one after a failure.

use std::cell::RefCell;
use std::time::Duration;

use reqwest::{Client, Method, Url};
use tokio::sync::Notify;

use distlock_core::error::{self, Failure};
use distlock_core::outcome::{Outcome, Trouble};

use super::reply::{Reply, classify};
use super::tls::{TlsClient, sensitive_header};
use crate::lock::transport::endpoint::{Endpoint, Rotation, Secret, Server};
use crate::lock::transport::tcp;
use crate::lock::transport::tls::{self, DistrustedEndpoints};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for a reply that does not wait for a change.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an idle connection is kept. Each contender has a blocking read on one connection; a second one for the renewals
/// would be idle most of the time, and a server allows 200 connections from one address.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Request<'a> {
    pub method: Method,
    /// Segments after `/v1/`, not encoded.
    pub path: Vec<&'a str>,
    /// Not encoded.
    pub query: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Option<String>,
    pub timeout: Duration,
}

/// HTTP client for all endpoints, with one current endpoint.
pub(super) struct Http {
    server: Server,
    /// None if no endpoint uses TLS.
    tls: Option<TlsClient>,
    distrusted: DistrustedEndpoints,
    rotation: Rotation,
    /// One client per endpoint. It is dropped with its connections when the endpoint is left.
    clients: RefCell<Vec<Option<Client>>>,
    endpoint_left: Notify,
}

impl Http {
    /// Reads the TLS files and connects to nothing.
    pub(super) fn new(server: &Server) -> Result<Self, Failure> {
        let secure = server.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Https { .. }));
        let tls = secure.then(|| TlsClient::read(&server.tls)).transpose()?;
        // Invalid settings are reported now, not at the first request.
        let clients: Result<_, Failure> =
            server.endpoints.iter().map(|endpoint| build_client(endpoint, tls.as_ref()).map(Some)).collect();
        Ok(Self {
            tls,
            distrusted: DistrustedEndpoints::default(),
            server: server.clone(),
            rotation: Rotation::default(),
            clients: RefCell::new(clients?),
            endpoint_left: Notify::new(),
        })
    }

    /// Returns the current endpoint, to which the next request goes.
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.endpoint_after(self.endpoint_changes())
    }

    /// Returns the endpoint that was the current one after this number of changes.
    pub(super) fn endpoint_after(&self, changes: usize) -> &Endpoint {
        &self.server.endpoints[changes % self.server.endpoints.len()]
    }

    /// Returns how often the endpoint was changed.
    pub(super) fn endpoint_changes(&self) -> usize {
        self.rotation.changes()
    }

    /// Closes the connections to the current endpoint and selects the next one. Pending reads are sent there again.
    pub(super) fn next_endpoint(&self) {
        let current = self.rotation.current(self.server.endpoints.len());
        self.clients.borrow_mut()[current] = None;
        self.rotation.advance();
        self.endpoint_left.notify_waiters();
    }

    /// Sends a request and waits for its reply, for [`Request::timeout`] at most. If the endpoint is left in the meantime, a
    /// read is sent again to the next one.
    pub(super) async fn send(&self, request: Request<'_>) -> Outcome<Reply> {
        if request.method != Method::GET {
            return self.send_or_leave(&request).await;
        }
        loop {
            let endpoint_left = self.endpoint_left.notified();
            tokio::select! {
                reply = self.send_or_leave(&request) => return reply,
                () = endpoint_left => {}
            }
        }
    }

    /// Sends a request once; changes the endpoint after an uncertain outcome.
    async fn send_or_leave(&self, request: &Request<'_>) -> Outcome<Reply> {
        let changes = self.rotation.changes();
        let reply = self.send_once(request).await;
        // Several requests that fail on one connection change the endpoint once.
        if matches!(reply, Err(Trouble::Uncertain { .. })) && self.rotation.changes() == changes {
            self.next_endpoint();
        }
        reply
    }

    async fn send_once(&self, request: &Request<'_>) -> Outcome<Reply> {
        let endpoint = self.endpoint().clone();
        let timeout = request.timeout;
        let reply = async {
            let response =
                self.prepare(&endpoint, request)?.send().await.map_err(|e| self.connection_error(&endpoint, &e))?;
            self.distrusted.stop_recording();
            let status = response.status();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let index = header("X-Consul-Index").and_then(|index| index.parse().ok());
            let body = response.text().await.map_err(|e| self.connection_error(&endpoint, &e))?;
            classify(&endpoint, Reply { status, index, body })
        };
        tokio::time::timeout(timeout, reply).await.unwrap_or_else(|_| {
            let cause = format!("{endpoint}: no answer within {timeout:?}");
            Err(Trouble::no_answer(cause))
        })
    }

    fn prepare(&self, endpoint: &Endpoint, request: &Request<'_>) -> Outcome<reqwest::RequestBuilder> {
        let url = self.url(endpoint, &request.path, &request.query).map_err(Trouble::Fatal)?;
        let mut builder = self.client(endpoint).map_err(Trouble::Fatal)?.request(request.method.clone(), url);
        let identity = &self.server.identity;
        if let Some(token) = &identity.token {
            builder = builder.header("X-Consul-Token", sensitive_header(token).map_err(Trouble::Fatal)?);
        }
        if let Some(user) = &identity.user {
            builder = builder.basic_auth(user, identity.password.as_ref().map(Secret::reveal));
        }
        Ok(match &request.body {
            Some(body) => builder.header("Content-Type", "application/json").body(body.clone()),
            None => builder,
        })
    }

    fn url(&self, endpoint: &Endpoint, path: &[&str], query: &[(&str, String)]) -> Result<Url, Failure> {
        let base = match endpoint {
            Endpoint::Unix { .. } => "http://localhost".to_owned(),
            Endpoint::Http { .. } | Endpoint::Discovered { .. } => endpoint.to_string(),
            Endpoint::Https { authority } => match &self.tls {
                Some(tls) => tls.base_url(authority),
                None => endpoint.to_string(),
            },
        };
        let invalid = || Failure::usage(format!("{endpoint} is not the address of a server"));
        let mut url = Url::parse(&base).map_err(|_| invalid())?;
        url.path_segments_mut().map_err(|()| invalid())?.push("v1").extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn client(&self, endpoint: &Endpoint) -> Result<Client, Failure> {
        let current = self.rotation.current(self.server.endpoints.len());
        if let Some(client) = &self.clients.borrow()[current] {
            return Ok(client.clone());
        }
        let client = build_client(endpoint, self.tls.as_ref())?;
        self.clients.borrow_mut()[current] = Some(client.clone());
        Ok(client)
    }

    /// Returns the trouble of a failed connection: uncertain, unless no endpoint is trusted.
    fn connection_error(&self, endpoint: &Endpoint, error: &reqwest::Error) -> Trouble {
        let Some(distrust) = tls::cause(error).map(|error| tls::failure(endpoint, error)) else {
            return Trouble::no_answer(format!("{endpoint}: {}", reason(error)));
        };
        let count = self.server.endpoints.len();
        if self.distrusted.record(self.rotation.current(count), count) {
            return Trouble::Fatal(distrust);
        }
        Trouble::no_answer(Trouble::Fatal(distrust).into_cause())
    }
}

fn build_client(endpoint: &Endpoint, tls: Option<&TlsClient>) -> Result<Client, Failure> {
    let builder = Client::builder()
        .user_agent(concat!("distlock/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(tcp::KEEPALIVE_IDLE)
        .tcp_keepalive_interval(tcp::KEEPALIVE_INTERVAL)
        .tcp_keepalive_retries(tcp::KEEPALIVE_PROBES)
        .tcp_user_timeout(tcp::DETECTION_LIMIT);
    let builder = match endpoint {
        // Without TLS no CA certificates are needed, and loading the system's takes longer than acquiring a lock.
        Endpoint::Unix { path } => builder.tls_certs_only([]).unix_socket(path.as_path()),
        Endpoint::Http { .. } | Endpoint::Discovered { .. } => builder.tls_certs_only([]),
        Endpoint::Https { authority } => match tls {
            Some(tls) => tls.apply(builder, authority),
            None => builder.tls_certs_only([]),
        },
    };
    builder.build().map_err(|e| {
        let failure = Failure::usage(format!("invalid TLS settings for {endpoint}"));
        error::chain(&e.without_url()).into_iter().fold(failure, Failure::because)
    })
}

/// Message of hyper for a connection that the server closed without a reply.
const CLOSED: &str = "connection closed before message completed";

/// Returns the innermost cause in a few words, without the address, which is shown anyway.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() {
        return "connecting timed out".to_owned();
    }
    let text = match innermost.downcast_ref::<reqwest::Error>() {
        Some(_) => "the connection broke".to_owned(),
        None => innermost.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    if text == CLOSED {
        return format!(
            "{text} (Consul does this to an address with too many connections: limits.http_max_conns_per_client)"
        );
    }
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
