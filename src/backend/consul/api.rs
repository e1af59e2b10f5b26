//! The requests that a lock needs, typed: sessions, transactions, and reads that wait for a change.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::http::{ANSWER, Http, Reply, Request};
use crate::backend::endpoint::Server;
use crate::backend::{Outcome, Trouble};
use crate::error::{Failure, Kind};

/// One key and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pair {
    /// Its whole name.
    pub key: String,
    /// Base64.
    pub value: Option<String>,
    /// What kind of key it is, by convention.
    pub flags: u64,
    /// The session that holds it.
    pub session: Option<String>,
    /// How often a session took it, since the key came to be.
    pub lock_index: u64,
    /// The Raft index at which it came to be.
    pub create_index: u64,
    /// The Raft index of its last change.
    pub modify_index: u64,
}

impl Pair {
    /// The value itself; empty when it is not what it should be.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.value.as_deref().and_then(|value| BASE64_STANDARD.decode(value).ok()).unwrap_or_default()
    }

    /// The session that holds it, if one does.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.session.as_deref().filter(|session| !session.is_empty())
    }
}

/// One operation of a transaction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Op {
    verb: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<String>,
}

impl Op {
    fn new(verb: &'static str, key: &str) -> Self {
        Self {
            verb,
            key: key.to_owned(),
            value: None,
            flags: None,
            session: None,
            index: None,
            namespace: None,
            partition: None,
        }
    }

    fn by(verb: &'static str, key: &str, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..Self::new(verb, key) }
    }

    /// Takes a key for the session, and writes it; demands that no other session holds it.
    pub fn lock(key: &str, session: &str, flags: u64, value: &str) -> Self {
        Self { flags: Some(flags), value: Some(BASE64_STANDARD.encode(value)), ..Self::by("lock", key, session) }
    }

    /// Lets go of a key and empties it; demands that the session holds it.
    pub fn unlock(key: &str, session: &str) -> Self {
        Self::by("unlock", key, session)
    }

    /// Demands that the session holds the key.
    pub fn check_session(key: &str, session: &str) -> Self {
        Self::by("check-session", key, session)
    }

    /// Demands that the key was not changed since.
    pub fn check_index(key: &str, modify_index: u64) -> Self {
        Self { index: Some(modify_index), ..Self::new("check-index", key) }
    }

    /// Demands that there is no such key.
    pub fn check_absent(key: &str) -> Self {
        Self::new("check-not-exists", key)
    }

    /// Deletes a key, whoever holds it, if it exists.
    pub fn delete(key: &str) -> Self {
        Self::new("delete", key)
    }

    /// Reads all keys with a prefix.
    pub fn get_tree(prefix: &str) -> Self {
        Self::new("get-tree", prefix)
    }
}

/// What became of a transaction.
#[derive(Debug)]
pub enum Txn {
    /// Everything was done; the keys written and read, in order.
    Applied(Vec<Pair>),
    /// Nothing was done.
    Refused(Refusal),
}

/// Why a transaction was refused.
#[derive(Debug)]
pub struct Refusal(Vec<String>);

impl Refusal {
    /// A lock-delay keeps one of the keys closed.
    #[must_use]
    pub fn lock_delay(&self) -> bool {
        self.0.iter().any(|what| what.contains("due to lock delay"))
    }

    /// The session has ended.
    #[must_use]
    pub fn ended(&self, session: &str) -> bool {
        self.0.iter().any(|what| what.contains("invalid session") && what.contains(session))
    }

    /// What it means for the whole lock, if it is more than somebody else's key.
    fn trouble(&self, endpoint: &str) -> Option<Trouble> {
        let find = |signs: &[&str]| self.0.iter().find(|what| contains_any(what, signs));
        if let Some(what) = find(&["ermission denied", "ACL not found"]) {
            let failure = Failure::new(Kind::Denied, format!("{endpoint}: the server denies access")).because(what);
            return Some(Trouble::Fatal(failure));
        }
        let stranger = self.0.iter().find(|what| !contains_any(what, CONTENTION));
        stranger.map(|what| Trouble::Uncertain { answered: true, cause: format!("{endpoint}: {what}") })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// What the server says when a key is not as the transaction demands.
const CONTENTION: &[&str] =
    &["lock is already held", "due to lock delay", "\" exists", "index", "lock isn't held", "session"];

fn contains_any(text: &str, signs: &[&str]) -> bool {
    signs.iter().any(|sign| text.contains(sign))
}

/// A session to be created.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NewSession {
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

/// What is needed for sessions.
const SESSION_RIGHT: &str = "session:write on the agent's node";

/// Consul's HTTP API as far as a lock needs it.
pub struct Api {
    /// The way to the servers.
    pub http: Http,
    scope: Vec<(&'static str, String)>,
    namespace: Option<String>,
    partition: Option<String>,
    /// What is needed for the lock's keys, to tell those whom the server denies access.
    key_right: String,
    has_token: bool,
}

impl Api {
    /// Reads the TLS files; connects to nothing. `name` is the lock's, as Consul knows it.
    pub fn new(server: &Server, name: &str) -> Result<Self, Failure> {
        let identity = &server.identity;
        let scope = [("dc", &identity.datacenter), ("ns", &identity.namespace), ("partition", &identity.partition)];
        Ok(Self {
            http: Http::new(server)?,
            scope: scope.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect(),
            namespace: identity.namespace.clone(),
            partition: identity.partition.clone(),
            key_right: format!("key:write on the prefix {name}/"),
            has_token: identity.token.is_some(),
        })
    }

    /// Creates a session and returns its id.
    pub async fn create_session(&self, session: &NewSession) -> Outcome<String> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let reply = self.put_session(vec!["session", "create"], &json(session)).await?;
        self.parse::<Created>(&reply).map(|created| created.id)
    }

    /// Renews a session. False: the server does not know it.
    pub async fn renew_session(&self, id: &str) -> Outcome<bool> {
        let reply = self.put_session(vec!["session", "renew", id], "").await?;
        match reply.status {
            status if status.is_success() => Ok(true),
            // A gateway can say "not found" of a path; only Consul says it of the session.
            StatusCode::NOT_FOUND if reply.body.contains(&format!("Session id '{id}' not found")) => Ok(false),
            _ => Err(self.foreign()),
        }
    }

    /// Destroys a session, if it is there.
    pub async fn destroy_session(&self, id: &str) -> Outcome<()> {
        self.put_session(vec!["session", "destroy", id], "").await.map(drop)
    }

    /// Does all of the operations or none.
    pub async fn txn(&self, mut ops: Vec<Op>) -> Outcome<Txn> {
        #[derive(Serialize)]
        struct Entry {
            #[serde(rename = "KV")]
            kv: Op,
        }
        #[derive(Deserialize)]
        struct Applied {
            #[serde(rename = "KV")]
            kv: Pair,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Refused {
            what: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            results: Option<Vec<Applied>>,
            errors: Option<Vec<Refused>>,
        }
        for op in &mut ops {
            op.namespace.clone_from(&self.namespace);
            op.partition.clone_from(&self.partition);
        }
        let body = json(&ops.into_iter().map(|kv| Entry { kv }).collect::<Vec<_>>());
        let reply = self.put(vec!["txn"], &[("consistent", String::new())], &body).await;
        let reply = reply.map_err(|trouble| self.name_right(trouble, &self.key_right))?;
        let answer: Answer = self.parse(&reply)?;
        if reply.status.is_success() {
            return Ok(Txn::Applied(answer.results.unwrap_or_default().into_iter().map(|entry| entry.kv).collect()));
        }
        let errors = answer.errors.unwrap_or_default().into_iter();
        let refusal = Refusal(errors.map(|error| error.what).collect());
        match refusal.trouble(&self.http.endpoint().to_string()) {
            Some(trouble) => Err(self.name_right(trouble, &self.key_right)),
            None => Ok(Txn::Refused(refusal)),
        }
    }

    /// Waits until a key (or with `recurse` one with this prefix) changes beyond `index`, for `wait` at most, and reads
    /// it. Without an index it reads at once. Returns the index for the next call.
    pub async fn watch(
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
    pub async fn get<T: DeserializeOwned>(&self, path: Vec<&str>) -> Outcome<(T, Option<String>)> {
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

    /// Reads an answer's JSON.
    pub fn parse<'a, T: Deserialize<'a>>(&self, reply: &'a Reply) -> Outcome<T> {
        serde_json::from_str(&reply.body).map_err(|_| self.foreign())
    }

    /// Somebody has answered, but not Consul, and knows nothing of the lock: another endpoint may.
    fn foreign(&self) -> Trouble {
        let cause = format!("{}: the answer is not Consul's", self.http.endpoint());
        self.http.next_endpoint();
        Trouble::Uncertain { answered: false, cause }
    }
}

/// Plain structs of strings and numbers: nothing in them can fail to be written.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A duration as Consul reads it.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errors: &[&str]) -> Refusal {
        Refusal(errors.iter().map(|what| (*what).to_owned()).collect())
    }

    #[test]
    fn durations_are_go_s() {
        assert_eq!(go_duration(Duration::from_secs(15)), "15s");
        assert_eq!(go_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(go_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn refusals_are_told_apart() {
        let held = refusal(&["failed to lock key \"a/.lock\", lock is already held"]);
        assert!(!held.lock_delay() && held.trouble("x").is_none());
        let delay = refusal(&["failed to lock key \"a/.lock\" due to lock delay", "key \"a\" exists"]);
        assert!(delay.lock_delay() && delay.trouble("x").is_none());
        let gone = refusal(&["invalid session \"0000\""]);
        assert!(gone.ended("0000") && !gone.ended("1111") && gone.trouble("x").is_none());
        let unheard_of = refusal(&["the moon is full"]);
        assert!(matches!(unheard_of.trouble("x"), Some(Trouble::Uncertain { answered: true, .. })));
        let denied = refusal(&["Permission denied"]);
        assert!(matches!(denied.trouble("x"), Some(Trouble::Fatal(failure)) if failure.kind == Kind::Denied));
    }

    #[test]
    fn a_value_that_is_no_base64_is_empty() {
        assert_eq!(Pair { value: Some("***".into()), ..Pair::default() }.bytes(), b"");
        assert_eq!(Pair { value: Some("e30=".into()), ..Pair::default() }.bytes(), b"{}");
    }
}
