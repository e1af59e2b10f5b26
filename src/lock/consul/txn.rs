//! Transactions: what they are made of, and what their answers mean.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::api::json;
use distlock_core::consul::pair::Pair;
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::Trouble;

/// One operation of a transaction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Op {
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
    pub(super) fn lock(key: &str, session: &str, flags: u64, value: &str) -> Self {
        Self { flags: Some(flags), value: Some(BASE64_STANDARD.encode(value)), ..Self::by("lock", key, session) }
    }

    /// Lets go of a key and empties it; demands that the session holds it.
    pub(super) fn unlock(key: &str, session: &str) -> Self {
        Self::by("unlock", key, session)
    }

    /// Demands that the session holds the key.
    pub(super) fn check_session(key: &str, session: &str) -> Self {
        Self::by("check-session", key, session)
    }

    /// Demands that the key was not changed since.
    pub(super) fn check_index(key: &str, modify_index: u64) -> Self {
        Self { index: Some(modify_index), ..Self::new("check-index", key) }
    }

    /// Demands that there is no such key.
    pub(super) fn check_absent(key: &str) -> Self {
        Self::new("check-not-exists", key)
    }

    /// Deletes a key, whoever holds it, if it exists.
    pub(super) fn delete(key: &str) -> Self {
        Self::new("delete", key)
    }

    /// Reads all keys with a prefix.
    pub(super) fn get_tree(prefix: &str) -> Self {
        Self::new("get-tree", prefix)
    }
}

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Txn {
    /// Everything was done; the keys written and read, in order.
    Applied(Vec<Pair>),
    /// Nothing was done.
    Refused(Refusal),
}

/// Why a transaction was refused.
#[derive(Debug)]
pub(super) struct Refusal(Vec<String>);

impl Refusal {
    /// A lock-delay keeps one of the keys closed.
    #[must_use]
    pub(super) fn lock_delay(&self) -> bool {
        self.0.iter().any(|what| what.contains("due to lock delay"))
    }

    /// The session has ended.
    #[must_use]
    pub(super) fn ended(&self, session: &str) -> bool {
        self.0.iter().any(|what| what.contains("invalid session") && what.contains(session))
    }

    /// What it means for the whole lock, if it is more than somebody else's key.
    pub(super) fn trouble(&self, endpoint: &str) -> Option<Trouble> {
        let find = |signs: &[&str]| self.0.iter().find(|what| contains_any(what, signs));
        if let Some(what) = find(&["ermission denied", "ACL not found"]) {
            let failure = Failure::new(Kind::Denied, format!("{endpoint}: the server denies access")).because(what);
            return Some(Trouble::Fatal(failure));
        }
        let stranger = self.0.iter().find(|what| !contains_any(what, CONTENTION));
        stranger.map(|what| Trouble::inconclusive(format!("{endpoint}: {what}")))
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

/// What is sent.
pub(super) fn body(mut ops: Vec<Op>, namespace: Option<&str>, partition: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Entry {
        #[serde(rename = "KV")]
        kv: Op,
    }
    for op in &mut ops {
        op.namespace = namespace.map(ToOwned::to_owned);
        op.partition = partition.map(ToOwned::to_owned);
    }
    json(&ops.into_iter().map(|kv| Entry { kv }).collect::<Vec<_>>())
}

/// Reads an answer. None: it is not Consul's, which always lists what it did, or says with a 409 why it did nothing.
/// What stands between may answer with such a status and JSON of its own.
pub(super) fn read(status: StatusCode, body: &str) -> Option<Txn> {
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
    let Answer { results, errors } = serde_json::from_str(body).ok()?;
    if status.is_success() {
        return results.map(|results| Txn::Applied(results.into_iter().map(|entry| entry.kv).collect()));
    }
    let errors = errors.filter(|errors| status == StatusCode::CONFLICT && !errors.is_empty())?;
    Some(Txn::Refused(Refusal(errors.into_iter().map(|error| error.what).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errors: &[&str]) -> Refusal {
        Refusal(errors.iter().map(|what| (*what).to_owned()).collect())
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
    fn only_consul_refuses() {
        let refused = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key \"a\" exists"}]}"#;
        assert!(matches!(read(StatusCode::CONFLICT, refused), Some(Txn::Refused(_))));
        let applied = r#"{"Results":[],"Errors":null}"#;
        assert!(matches!(read(StatusCode::OK, applied), Some(Txn::Applied(pairs)) if pairs.is_empty()));
        for (status, body) in [
            (StatusCode::NOT_FOUND, refused),
            (StatusCode::NOT_FOUND, r#"{"message":"no Route matched with those values"}"#),
            (StatusCode::CONFLICT, r#"{"message":"busy"}"#),
            (StatusCode::CONFLICT, r#"{"Errors":[]}"#),
            (StatusCode::OK, r#"{"status":"up"}"#),
            (StatusCode::OK, "[]"),
            (StatusCode::OK, "<html>"),
        ] {
            assert!(read(status, body).is_none(), "{status} {body}");
        }
    }
}
