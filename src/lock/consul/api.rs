//! The requests that a lock needs, typed: sessions, transactions, and reads that wait for a change.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::http::{ANSWER, Http, Reply, Request};
use super::txn::{self, Op, Txn};
use crate::lock::transport::endpoint::Server;
use distlock_core::consul::pair::Pair;
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

/// A session to be created.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewSession {
    /// What operators see.
    pub name: String,
    /// Go duration.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// Go duration.
    pub lock_delay: String,
    /// What becomes of its keys.
    pub behavior: &'static str,
    /// Always sent: a server that is told none puts the node's health in.
    pub node_checks: Vec<String>,
}

/// What a server says of a session for a node that its datacenter does not have.
const NO_NODE: &str = "Missing node registration";

/// What is needed for sessions.
const SESSION_RIGHT: &str = "session:write on the agent's node";

/// Consul's HTTP API as far as a lock needs it.
pub(super) struct Api {
    /// The way to the servers.
    pub http: Http,
    scope: Vec<(&'static str, String)>,
    namespace: Option<String>,
    partition: Option<String>,
    datacenter: Option<String>,
    /// What is needed for the lock's keys, to tell those whom the server denies access.
    key_right: String,
    has_token: bool,
}

impl Api {
    /// Reads the TLS files; connects to nothing. `name` is the lock's, as Consul knows it.
    pub(super) fn new(server: &Server, name: &str) -> Result<Self, Failure> {
        let identity = &server.identity;
        let scope = [("dc", &identity.datacenter), ("ns", &identity.namespace), ("partition", &identity.partition)];
        Ok(Self {
            http: Http::new(server)?,
            scope: scope.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect(),
            namespace: identity.namespace.clone(),
            partition: identity.partition.clone(),
            datacenter: identity.datacenter.clone(),
            key_right: format!("key:write on the prefix {name}/"),
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
        let reply = self.put_session(vec!["session", "create"], &json(session)).await;
        let reply = reply.map_err(|trouble| elsewhere(trouble, self.datacenter.as_deref()))?;
        self.parse::<Created>(&reply).map(|created| created.id)
    }

    /// Renews a session. False: the server does not know it.
    pub(super) async fn renew_session(&self, id: &str) -> Outcome<bool> {
        let reply = self.put_session(vec!["session", "renew", id], "").await?;
        match reply.status {
            // It tells the session. What stands between may say yes to anything.
            status if status.is_success() && reply.body.contains(id) => Ok(true),
            // A gateway can say "not found" of a path; only Consul says it of the session.
            StatusCode::NOT_FOUND if reply.body.contains(&format!("Session id '{id}' not found")) => Ok(false),
            _ => Err(self.foreign()),
        }
    }

    /// Destroys a session, if it is there.
    pub(super) async fn destroy_session(&self, id: &str) -> Outcome<()> {
        let reply = self.put_session(vec!["session", "destroy", id], "").await?;
        if reply.status.is_success() { Ok(()) } else { Err(self.foreign()) }
    }

    /// Does all of the operations or none.
    pub(super) async fn txn(&self, ops: Vec<Op>) -> Outcome<Txn> {
        let body = txn::body(ops, self.namespace.as_deref(), self.partition.as_deref());
        let reply = self.put(vec!["txn"], &[("consistent", String::new())], &body).await;
        let reply = reply.map_err(|trouble| self.name_right(trouble, &self.key_right))?;
        let answer = txn::read(reply.status, &reply.body).ok_or_else(|| self.foreign())?;
        let trouble = match &answer {
            Txn::Refused(refusal) => refusal.trouble(&self.http.endpoint().to_string()),
            Txn::Applied(_) => None,
        };
        trouble.map_or(Ok(answer), |trouble| Err(self.name_right(trouble, &self.key_right)))
    }

    /// Waits until a key (or with `recurse` one with this prefix) changes beyond `index`, for `wait` at most, and reads
    /// it. Without an index it reads at once. Returns the index for the next call.
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
        let mut patience = ANSWER;
        if let Some(index) = index {
            query.push(("index", index.to_string()));
            query.push(("wait", go_duration(wait)));
            // The server adds up to a sixteenth, so that not all waits end together.
            patience += wait + wait / 16;
        }
        query.extend(self.scope.iter().cloned());
        let path = ["kv"].into_iter().chain(key.split('/')).collect();
        let request = Request { method: Method::GET, path, query, body: None, patience };
        let reply = self.http.send(request).await.map_err(|trouble| self.name_right(trouble, &self.key_right))?;
        let pairs = match (reply.status, reply.index) {
            (StatusCode::NOT_FOUND, Some(_)) => Vec::new(),
            // Consul tells an index whatever it has found, a gateway does not.
            (StatusCode::NOT_FOUND, None) => return Err(self.foreign()),
            _ => self.parse(&reply)?,
        };
        // An index that goes back is another history's (a snapshot was restored).
        let next = reply.index.filter(|next| *next > 0 && index.is_none_or(|index| *next >= index));
        Ok((pairs, next))
    }

    /// Reads what the agent or the servers tell of themselves, and the server's time as it wrote it.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: Vec<&str>) -> Outcome<(T, Option<String>)> {
        let query = self.scope.clone();
        let reply = self.http.send(Request { method: Method::GET, path, query, body: None, patience: ANSWER }).await?;
        Ok((self.parse(&reply)?, reply.date))
    }

    async fn put_session(&self, path: Vec<&str>, body: &str) -> Outcome<Reply> {
        self.put(path, &[], body).await.map_err(|trouble| self.name_right(trouble, SESSION_RIGHT))
    }

    async fn put(&self, path: Vec<&str>, query: &[(&'static str, String)], body: &str) -> Outcome<Reply> {
        let query = query.iter().chain(&self.scope).cloned().collect();
        let request = Request { method: Method::PUT, path, query, body: Some(body.to_owned()), patience: ANSWER };
        self.http.send(request).await
    }

    fn name_right(&self, trouble: Trouble, right: &str) -> Trouble {
        match trouble {
            Trouble::Fatal(failure) if failure.kind == Kind::Denied && failure.hint.is_none() => {
                let unknown = failure.causes.iter().any(|cause| cause.contains("ACL not found"));
                Trouble::Fatal(failure.hint(match (self.has_token, unknown) {
                    (false, _) => format!("--token-file or CONSUL_HTTP_TOKEN gives a token; it needs {right}"),
                    (true, true) => "the servers know no such token: check --token-file or CONSUL_HTTP_TOKEN".into(),
                    (true, false) => format!("the token needs {right}"),
                }))
            }
            other => other,
        }
    }

    /// Reads the JSON of an answer that grants what was asked.
    fn parse<'a, T: Deserialize<'a>>(&self, reply: &'a Reply) -> Outcome<T> {
        let granted = reply.status.is_success().then(|| serde_json::from_str(&reply.body).ok()).flatten();
        granted.ok_or_else(|| self.foreign())
    }

    /// Somebody has answered, but not Consul, and knows nothing of the lock: another endpoint may.
    fn foreign(&self) -> Trouble {
        let cause = format!("{}: the answer is not Consul's", self.http.endpoint());
        self.http.next_endpoint();
        Trouble::no_answer(cause)
    }
}

/// A session belongs to the agent's node, which no other datacenter knows: waiting does not change that.
fn elsewhere(trouble: Trouble, datacenter: Option<&str>) -> Trouble {
    match (trouble, datacenter) {
        (Trouble::Uncertain { cause, .. }, Some(datacenter)) if cause.contains(NO_NODE) => Trouble::Fatal(
            Failure::usage(format!("the datacenter {datacenter} does not know the agent's node"))
                .because(cause)
                .hint("a session belongs to the agent's node: name agents of that datacenter with --endpoints"),
        ),
        (trouble, _) => trouble,
    }
}

/// Plain structs of strings and numbers: nothing in them can fail to be written.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A duration as Consul reads it.
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
    fn durations_are_go_s() {
        assert_eq!(go_duration(Duration::from_secs(15)), "15s");
        assert_eq!(go_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(go_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn a_session_in_a_datacenter_without_the_agent_will_never_be() {
        let unknown = |cause: &str| Trouble::inconclusive(cause);
        let refused = elsewhere(unknown("500: Missing node registration"), Some("west"));
        assert!(matches!(refused, Trouble::Fatal(failure) if failure.kind == Kind::Usage));
        // An agent that has just started is not known yet.
        let passing = unknown("500: Missing node registration");
        assert_eq!(elsewhere(passing.clone(), None), passing);
        let other = unknown("500: No cluster leader");
        assert_eq!(elsewhere(other.clone(), Some("west")), other);
    }

    #[test]
    fn a_value_that_is_no_base64_is_empty() {
        assert_eq!(Pair { value: Some("***".into()), ..Pair::default() }.bytes(), b"");
        assert_eq!(Pair { value: Some("e30=".into()), ..Pair::default() }.bytes(), b"{}");
    }
}
