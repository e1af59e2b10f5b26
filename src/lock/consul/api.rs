//! Typed requests: sessions, transactions, blocking reads.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use distlock_core::consul::pair::Pair;
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

use super::http::{Http, REPLY_TIMEOUT, Request};
use super::reply::Reply;
use super::txn::{self, Op, TxnResult, to_json};
use crate::lock::transport::endpoint::Server;

/// Session to create.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewSession {
    /// Shown to operators.
    pub name: String,
    /// Duration in Go's syntax.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// Duration in Go's syntax.
    pub lock_delay: String,
    /// What the server does with the keys when the session ends: `release` or `delete`.
    pub behavior: &'static str,
    /// Always sent, even if empty: the default is the health of the node.
    pub node_checks: Vec<String>,
}

/// Part of the reply to a session for a node that the datacenter does not know.
const UNKNOWN_NODE: &str = "Missing node registration";

const SESSION_PERMISSION: &str = "session:write on the agent's node";

/// Consul's HTTP API as far as a lock needs it.
pub(super) struct Api {
    pub http: Http,
    scope: Vec<(&'static str, String)>,
    namespace: Option<String>,
    partition: Option<String>,
    datacenter: Option<String>,
    /// Permission for the lock's keys, named in the hint of a denial.
    key_permission: String,
    has_token: bool,
}

impl Api {
    /// Reads the TLS files and connects to nothing. `name` is the lock's name without a leading slash.
    pub(super) fn new(server: &Server, name: &str) -> Result<Self, Failure> {
        let identity = &server.identity;
        let scope = [("dc", &identity.datacenter), ("ns", &identity.namespace), ("partition", &identity.partition)];
        Ok(Self {
            http: Http::new(server)?,
            scope: scope.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect(),
            namespace: identity.namespace.clone(),
            partition: identity.partition.clone(),
            datacenter: identity.datacenter.clone(),
            key_permission: format!("key:write on the prefix {name}/"),
            has_token: identity.token.is_some(),
        })
    }

    /// Creates a session and returns its id.
    pub(super) async fn create_session(&self, session: &NewSession) -> Outcome<String> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let reply = self.put_session(vec!["session", "create"], &to_json(session)).await;
        let reply = reply.map_err(|trouble| explain_unknown_node(trouble, self.datacenter.as_deref()))?;
        self.parse::<Created>(&reply).map(|created| created.id)
    }

    /// Renews a session; returns false if the server does not know it.
    pub(super) async fn renew_session(&self, id: &str) -> Outcome<bool> {
        let reply = self.put_session(vec!["session", "renew", id], "").await?;
        match reply.status {
            // The reply contains the session. A gateway may reply 200 to anything.
            status if status.is_success() && reply.body.contains(id) => Ok(true),
            // A gateway may reply "not found" for the path; only Consul says it of the session.
            StatusCode::NOT_FOUND if reply.body.contains(&format!("Session id '{id}' not found")) => Ok(false),
            _ => Err(self.not_consul()),
        }
    }

    /// Destroys a session if it exists.
    pub(super) async fn destroy_session(&self, id: &str) -> Outcome<()> {
        let reply = self.put_session(vec!["session", "destroy", id], "").await?;
        if reply.status.is_success() { Ok(()) } else { Err(self.not_consul()) }
    }

    /// Applies all operations or none.
    pub(super) async fn txn(&self, ops: Vec<Op>) -> Outcome<TxnResult> {
        let body = txn::body(ops, self.namespace.as_deref(), self.partition.as_deref());
        let reply = self.put(vec!["txn"], &[("consistent", String::new())], &body).await;
        let reply = reply.map_err(|trouble| self.name_permission(trouble, &self.key_permission))?;
        let result = txn::parse(reply.status, &reply.body).ok_or_else(|| self.not_consul())?;
        let trouble = match &result {
            TxnResult::Refused(refusal) => refusal.trouble(&self.http.endpoint().to_string()),
            TxnResult::Applied(_) => None,
        };
        trouble.map_or(Ok(result), |trouble| Err(self.name_permission(trouble, &self.key_permission)))
    }

    /// Reads a key, or with `recurse` all keys with this prefix, after a change beyond `index` or after `wait`; without an
    /// index at once. Returns the index for the next call.
    pub(super) async fn watch(
        &self,
        key: &str,
        recurse: bool,
        index: Option<u64>,
        wait: Duration,
    ) -> Outcome<(Vec<Pair>, Option<u64>)> {
        let mut query = vec![("consistent", String::new())];
        if recurse {
            query.push(("recurse", String::new()));
        }
        let mut timeout = REPLY_TIMEOUT;
        if let Some(index) = index {
            query.push(("index", index.to_string()));
            query.push(("wait", go_duration(wait)));
            // The server adds up to a sixteenth at random.
            timeout += wait + wait / 16;
        }
        query.extend(self.scope.iter().cloned());
        let path = ["kv"].into_iter().chain(key.split('/')).collect();
        let request = Request { method: Method::GET, path, query, body: None, timeout };
        let reply =
            self.http.send(request).await.map_err(|trouble| self.name_permission(trouble, &self.key_permission))?;
        let pairs = match (reply.status, reply.index) {
            (StatusCode::NOT_FOUND, Some(_)) => Vec::new(),
            // Consul always sends an index, a gateway does not.
            (StatusCode::NOT_FOUND, None) => return Err(self.not_consul()),
            _ => self.parse(&reply)?,
        };
        // A lower index belongs to another history: a snapshot was restored.
        let next = reply.index.filter(|next| *next > 0 && index.is_none_or(|index| *next >= index));
        Ok((pairs, next))
    }

    /// Reads JSON about the agent or its cluster.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: Vec<&str>) -> Outcome<T> {
        let query = self.scope.clone();
        let reply =
            self.http.send(Request { method: Method::GET, path, query, body: None, timeout: REPLY_TIMEOUT }).await?;
        self.parse(&reply)
    }

    async fn put_session(&self, path: Vec<&str>, body: &str) -> Outcome<Reply> {
        self.put(path, &[], body).await.map_err(|trouble| self.name_permission(trouble, SESSION_PERMISSION))
    }

    async fn put(&self, path: Vec<&str>, query: &[(&'static str, String)], body: &str) -> Outcome<Reply> {
        let query = query.iter().chain(&self.scope).cloned().collect();
        let request = Request { method: Method::PUT, path, query, body: Some(body.to_owned()), timeout: REPLY_TIMEOUT };
        self.http.send(request).await
    }

    /// Adds a hint that names the missing permission to a denial.
    fn name_permission(&self, trouble: Trouble, permission: &str) -> Trouble {
        match trouble {
            Trouble::Fatal(failure) if failure.kind == Kind::Denied && failure.hint.is_none() => {
                let unknown_token = failure.causes.iter().any(|cause| cause.contains("ACL not found"));
                Trouble::Fatal(failure.hint(match (self.has_token, unknown_token) {
                    (false, _) => format!("set a token with {permission}: --token-file or CONSUL_HTTP_TOKEN"),
                    (true, true) => "the servers know no such token: check --token-file or CONSUL_HTTP_TOKEN".into(),
                    (true, false) => format!("the token needs {permission}"),
                }))
            }
            other => other,
        }
    }

    /// Parses the JSON of a successful reply.
    fn parse<'a, T: Deserialize<'a>>(&self, reply: &'a Reply) -> Outcome<T> {
        let parsed = reply.status.is_success().then(|| serde_json::from_str(&reply.body).ok()).flatten();
        parsed.ok_or_else(|| self.not_consul())
    }

    /// Returns the trouble for a reply that is not from Consul, and changes to the next endpoint.
    fn not_consul(&self) -> Trouble {
        let cause = format!("{}: the reply is not from Consul", self.http.endpoint());
        self.http.next_endpoint();
        Trouble::no_answer(cause)
    }
}

/// Makes the trouble fatal if another datacenter does not know the agent's node, because no retry can change that. Without a
/// datacenter the agent may have started a moment ago.
fn explain_unknown_node(trouble: Trouble, datacenter: Option<&str>) -> Trouble {
    match (trouble, datacenter) {
        (Trouble::Uncertain { cause, .. }, Some(datacenter)) if cause.contains(UNKNOWN_NODE) => Trouble::Fatal(
            Failure::usage(format!("the datacenter {datacenter} does not know the agent's node"))
                .because(cause)
                .hint("a session belongs to the agent's node: set --endpoints to agents of that datacenter"),
        ),
        (trouble, _) => trouble,
    }
}

/// Formats a duration in Go's syntax, which Consul parses.
#[must_use]
pub(super) fn go_duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_syntax_of_go() {
        assert_eq!(go_duration(Duration::from_secs(15)), "15s");
        assert_eq!(go_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(go_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn an_unknown_node_is_fatal_in_another_datacenter_only() {
        let unknown = |cause: &str| Trouble::inconclusive(cause);
        let refused = explain_unknown_node(unknown("500: Missing node registration"), Some("west"));
        assert!(matches!(refused, Trouble::Fatal(failure) if failure.kind == Kind::Usage));
        let starting = unknown("500: Missing node registration");
        assert_eq!(explain_unknown_node(starting.clone(), None), starting);
        let other = unknown("500: No cluster leader");
        assert_eq!(explain_unknown_node(other.clone(), Some("west")), other);
    }

    #[test]
    fn a_value_that_is_not_base64_is_empty() {
        assert_eq!(Pair { value: Some("***".into()), ..Pair::default() }.bytes(), b"");
        assert_eq!(Pair { value: Some("e30=".into()), ..Pair::default() }.bytes(), b"{}");
    }
}
