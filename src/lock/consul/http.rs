//! HTTP to the servers: one client per endpoint, tried in turn, and errors told apart by what they say about a lock.

use std::cell::RefCell;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};
use tokio::sync::Notify;

use super::tls::{Trust, sensitive};
use crate::lock::NO_LEADER;
use crate::lock::transport::endpoint::{Endpoint, Rotation, Secret, Server};
use crate::lock::transport::tls::{self, Distrusted};
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a server may take to answer what it can answer at once.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// How long a connection is kept for the next request. Each contender has a read that waits on one; a second one, for its
/// renewals, would be kept for nothing most of the time, and a server allows 200 from one address.
const IDLE: Duration = Duration::from_secs(1);
/// A peer that vanished without a word is noticed on an idle connection after about a minute.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// No more of an error's text than this is shown.
const MAX_TEXT: usize = 300;

/// One request.
pub(super) struct Request<'a> {
    /// GET or PUT.
    pub method: Method,
    /// Segments of the path after `/v1/`, not encoded.
    pub path: Vec<&'a str>,
    /// The query, not encoded.
    pub query: Vec<(&'static str, String)>,
    /// JSON, if any.
    pub body: Option<String>,
    /// How long the server may take.
    pub patience: Duration,
}

/// An answer that says something about what was asked: success, "not found" or "conflict".
pub(super) struct Reply {
    /// 2xx, 404 or 409.
    pub status: StatusCode,
    /// The index from which to wait for the next change.
    pub index: Option<u64>,
    /// The server's time, as it wrote it.
    pub date: Option<String>,
    /// The body.
    pub body: String,
}

/// The endpoints and the way to them.
pub(super) struct Http {
    server: Server,
    /// None where no endpoint speaks TLS.
    trust: Option<Trust>,
    distrusted: Distrusted,
    rotation: Rotation,
    /// A client per endpoint, dropped with its connections when it failed to answer.
    clients: RefCell<Vec<Option<Client>>>,
    moved: Notify,
}

impl Http {
    /// Reads the TLS files; connects to nothing.
    pub(super) fn new(server: &Server) -> Result<Self, Failure> {
        let secure = server.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Https { .. }));
        let trust = secure.then(|| Trust::read(&server.tls)).transpose()?;
        // What is wrong with the settings is to be known now, not at the first request.
        let clients: Result<_, Failure> =
            server.endpoints.iter().map(|endpoint| build(endpoint, trust.as_ref()).map(Some)).collect();
        Ok(Self {
            trust,
            distrusted: Distrusted::default(),
            server: server.clone(),
            rotation: Rotation::default(),
            clients: RefCell::new(clients?),
            moved: Notify::new(),
        })
    }

    /// The endpoint that the next request goes to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.endpoint_of(self.turn())
    }

    /// The endpoint that requests went to in this turn.
    pub(super) fn endpoint_of(&self, turn: usize) -> &Endpoint {
        &self.server.endpoints[turn % self.server.endpoints.len()]
    }

    /// How often an endpoint was given up.
    pub(super) fn turn(&self) -> usize {
        self.rotation.turn()
    }

    /// Gives the present endpoint's connections up and turns to the next; reads that wait there move along.
    pub(super) fn next_endpoint(&self) {
        let current = self.rotation.current(self.server.endpoints.len());
        self.clients.borrow_mut()[current] = None;
        self.rotation.advance();
        self.moved.notify_waiters();
    }

    /// Sends a request and waits for its answer, for [`Request::patience`] at most. A read goes on elsewhere when the
    /// endpoint is given up meanwhile.
    pub(super) async fn send(&self, request: Request<'_>) -> Outcome<Reply> {
        if request.method != Method::GET {
            return self.exchange(&request).await;
        }
        loop {
            let moved = self.moved.notified();
            tokio::select! {
                reply = self.exchange(&request) => return reply,
                () = moved => {}
            }
        }
    }

    async fn exchange(&self, request: &Request<'_>) -> Outcome<Reply> {
        let turn = self.rotation.turn();
        let answer = self.exchange_here(request).await;
        // Several requests that fail on one connection are one reason to go on, not several.
        if matches!(answer, Err(Trouble::Uncertain { .. })) && self.rotation.turn() == turn {
            self.next_endpoint();
        }
        answer
    }

    async fn exchange_here(&self, request: &Request<'_>) -> Outcome<Reply> {
        let endpoint = self.endpoint().clone();
        let patience = request.patience;
        let answer = async {
            let response = self.prepare(&endpoint, request)?.send().await.map_err(|e| self.broken(&endpoint, &e))?;
            self.distrusted.end();
            let status = response.status();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let index = header("X-Consul-Index").and_then(|index| index.parse().ok());
            let date = header("Date").map(ToOwned::to_owned);
            let body = response.text().await.map_err(|e| self.broken(&endpoint, &e))?;
            judge(&endpoint, Reply { status, index, date, body })
        };
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
            let cause = format!("{endpoint}: no answer within {patience:?}");
            Err(Trouble::no_answer(cause))
        })
    }

    fn prepare(&self, endpoint: &Endpoint, request: &Request<'_>) -> Outcome<reqwest::RequestBuilder> {
        let url = self.url(endpoint, &request.path, &request.query).map_err(Trouble::Fatal)?;
        let mut builder = self.client(endpoint).map_err(Trouble::Fatal)?.request(request.method.clone(), url);
        let identity = &self.server.identity;
        if let Some(token) = &identity.token {
            builder = builder.header("X-Consul-Token", sensitive(token).map_err(Trouble::Fatal)?);
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
            Endpoint::Https { authority } => match &self.trust {
                Some(trust) => trust.base(authority),
                None => endpoint.to_string(),
            },
        };
        let refused = || Failure::usage(format!("{endpoint} is not the address of a server"));
        let mut url = Url::parse(&base).map_err(|_| refused())?;
        url.path_segments_mut().map_err(|()| refused())?.push("v1").extend(path);
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
        let client = build(endpoint, self.trust.as_ref())?;
        self.clients.borrow_mut()[current] = Some(client.clone());
        Ok(client)
    }

    /// What a connection that failed says: nothing about the lock.
    fn broken(&self, endpoint: &Endpoint, error: &reqwest::Error) -> Trouble {
        let Some(distrust) = tls::cause(error).map(|error| tls::failure(endpoint, error)) else {
            return Trouble::no_answer(format!("{endpoint}: {}", reason(error)));
        };
        let count = self.server.endpoints.len();
        if self.distrusted.add(self.rotation.current(count), count) {
            return Trouble::Fatal(distrust);
        }
        Trouble::no_answer(Trouble::Fatal(distrust).into_cause())
    }
}

/// A client that has connected to nothing yet.
fn build(endpoint: &Endpoint, trust: Option<&Trust>) -> Result<Client, Failure> {
    let builder = Client::builder()
        .user_agent(concat!("distlock/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE / 3)
        .tcp_keepalive_retries(3);
    let builder = match endpoint {
        // Without TLS nobody is trusted; loading the system's authorities would take longer than the lock.
        Endpoint::Unix { path } => builder.tls_certs_only([]).unix_socket(path.as_path()),
        Endpoint::Http { .. } | Endpoint::Discovered { .. } => builder.tls_certs_only([]),
        Endpoint::Https { authority } => match trust {
            Some(trust) => trust.apply(builder, authority),
            None => builder.tls_certs_only([]),
        },
    };
    builder.build().map_err(|e| {
        let failure = Failure::usage(format!("the TLS settings for {endpoint} are refused"));
        distlock_core::error::chain(&e.without_url()).into_iter().fold(failure, Failure::because)
    })
}

/// What a server says of a datacenter that it has not heard of.
const NO_DATACENTER: &str = "No path to datacenter";

/// What a server says of namespaces and partitions where it has none.
const ENTERPRISE: &str = "Consul Enterprise feature";

/// Sorts answers: the ones to go on with, and what the others mean.
fn judge(endpoint: &Endpoint, reply: Reply) -> Outcome<Reply> {
    let text = reply.body.trim();
    let said = match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    let said = said.replace(char::is_control, " ");
    let fatal = |kind, message: &str| Failure::new(kind, format!("{endpoint}: {message}")).because(&said);
    match reply.status {
        status if status.is_success() => Ok(reply),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(reply),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Trouble::Fatal(fatal(Kind::Denied, "the server denies access")))
        }
        StatusCode::BAD_REQUEST if said.contains("HTTP request to an HTTPS server") => {
            Err(Trouble::Fatal(tls::wrong_scheme(endpoint, true)))
        }
        StatusCode::BAD_REQUEST if said.contains(ENTERPRISE) => Err(Trouble::Fatal(
            fatal(Kind::Usage, "the server refuses the request")
                .hint("leave out --namespace and --partition, CONSUL_NAMESPACE and CONSUL_PARTITION included"),
        )),
        StatusCode::INTERNAL_SERVER_ERROR if permanent(&said) => {
            let failure = fatal(Kind::Usage, "the server refuses the request");
            Err(Trouble::Fatal(if said.contains(NO_DATACENTER) {
                failure.hint("--datacenter names one that the servers know")
            } else {
                failure
            }))
        }
        status if passing(status) => {
            let hint = said.contains("No cluster leader").then(|| NO_LEADER.to_owned());
            Err(Trouble::Uncertain { answered: true, cause: format!("{endpoint}: {}: {said}", status.as_u16()), hint })
        }
        status => Err(Trouble::Fatal(
            fatal(Kind::Usage, &format!("the server refuses the request with {status}")).hint("is it a Consul server?"),
        )),
    }
}

/// Whether the next answer may be another one. Who has not implemented what was asked never will have.
fn passing(status: StatusCode) -> bool {
    let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY].contains(&status);
    busy || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Consul answers 500 to most of what it refuses for good.
fn permanent(said: &str) -> bool {
    ["Invalid Session TTL", "Missing check", "Invalid LockDelay", NO_DATACENTER]
        .iter()
        .any(|refusal| said.contains(refusal))
}

/// What the client says of a connection that the server closed without an answer.
const CLOSED: &str = "connection closed before message completed";

/// The innermost cause in a few words, without the address, which is shown already.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() {
        return "connecting took too long".to_owned();
    }
    let text = match innermost.downcast_ref::<reqwest::Error>() {
        Some(_) => "the connection broke".to_owned(),
        None => innermost.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    if text == CLOSED {
        return format!(
            "{text} (a server that has too many from one address does so: limits.http_max_conns_per_client)"
        );
    }
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Outcome<()> {
        let endpoint = Endpoint::Http { authority: "127.0.0.1:8500".into() };
        let status = StatusCode::from_u16(status).expect("a status");
        judge(&endpoint, Reply { status, index: None, date: None, body: body.into() }).map(drop)
    }

    fn kind(outcome: Outcome<()>) -> Option<Kind> {
        match outcome {
            Err(Trouble::Fatal(failure)) => Some(failure.kind),
            _ => None,
        }
    }

    #[test]
    fn a_server_without_a_leader_says_nothing_of_the_lock() {
        for (status, body) in [(500, "No cluster leader"), (429, ""), (408, ""), (425, ""), (503, ""), (502, "<html>")]
        {
            assert!(matches!(judged(status, body), Err(Trouble::Uncertain { answered: true, .. })), "{status}");
        }
    }

    #[test]
    fn answers_about_keys_go_on() {
        for status in [200, 404, 409] {
            assert_eq!(judged(status, ""), Ok(()));
        }
    }

    #[test]
    fn refusals_for_good_end_it() {
        assert_eq!(kind(judged(403, "Permission denied")), Some(Kind::Denied));
        assert_eq!(kind(judged(401, "")), Some(Kind::Denied));
        assert_eq!(kind(judged(500, "Invalid Session TTL '5', must be between …")), Some(Kind::Usage));
        assert_eq!(kind(judged(501, "Unsupported method ('PUT')")), Some(Kind::Usage));
        let namespace = judged(400, "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature");
        assert!(
            matches!(namespace, Err(Trouble::Fatal(Failure { hint: Some(hint), .. })) if hint.contains("CONSUL_NAMESPACE"))
        );
        let tls = judged(400, "Client sent an HTTP request to an HTTPS server.");
        assert_eq!(kind(tls), Some(Kind::Unreachable));
    }

    #[test]
    fn a_server_s_text_is_cut_and_harmless() {
        let Err(Trouble::Uncertain { cause, .. }) = judged(500, &format!("\u{1b}[31m{}", "ü".repeat(1000))) else {
            panic!("500 is uncertain");
        };
        assert!(cause.len() < 2 * MAX_TEXT + 50 && !cause.contains('\u{1b}'));
    }
}
