//! Transactions: their operations, and the meaning of their replies.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use distlock_core::consul::pair::Pair;
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::Trouble;

/// Operation of a transaction.
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

    fn for_session(verb: &'static str, key: &str, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..Self::new(verb, key) }
    }

    /// Locks a key for the session and writes its value; demands that no other session has locked it.
    pub(super) fn lock(key: &str, session: &str, flags: u64, value: &str) -> Self {
        Self {
            flags: Some(flags),
            value: Some(BASE64_STANDARD.encode(value)),
            ..Self::for_session("lock", key, session)
        }
    }

    /// Unlocks a key and deletes its value; demands that the session has locked it.
    pub(super) fn unlock(key: &str, session: &str) -> Self {
        Self::for_session("unlock", key, session)
    }

    /// Demands that the session has locked the key.
    pub(super) fn check_session(key: &str, session: &str) -> Self {
        Self::for_session("check-session", key, session)
    }

    /// Demands that the key has not changed since `modify_index`.
    pub(super) fn check_index(key: &str, modify_index: u64) -> Self {
        Self { index: Some(modify_index), ..Self::new("check-index", key) }
    }

    /// Demands that the key does not exist.
    pub(super) fn check_absent(key: &str) -> Self {
        Self::new("check-not-exists", key)
    }

    /// Deletes a key if it exists, even if another session has locked it.
    pub(super) fn delete(key: &str) -> Self {
        Self::new("delete", key)
    }

    /// Reads all keys with the prefix.
    pub(super) fn get_tree(prefix: &str) -> Self {
        Self::new("get-tree", prefix)
    }
}

/// Result of a transaction.
#[derive(Debug)]
pub(super) enum TxnResult {
    /// All operations were applied. Contains the keys that they wrote and read, in order.
    Applied(Vec<Pair>),
    /// No operation was applied.
    Refused(Refusal),
}

/// The server's reasons for refusing a transaction.
#[derive(Debug)]
pub(super) struct Refusal(Vec<String>);

impl Refusal {
    /// Returns whether one of the keys is in its lock-delay.
    #[must_use]
    pub(super) fn lock_delay(&self) -> bool {
        self.0.iter().any(|reason| reason.contains("due to lock delay"))
    }

    #[must_use]
    pub(super) fn session_ended(&self, session: &str) -> bool {
        self.0.iter().any(|reason| reason.contains("invalid session") && reason.contains(session))
    }

    /// Returns the trouble if a reason is something else than the state of the keys.
    pub(super) fn trouble(&self, endpoint: &str) -> Option<Trouble> {
        let denial = self.0.iter().find(|reason| contains_any(reason, &["ermission denied", "ACL not found"]));
        if let Some(reason) = denial {
            let failure = Failure::new(Kind::Denied, format!("{endpoint}: the server denies access")).because(reason);
            return Some(Trouble::Fatal(failure));
        }
        let unknown = self.0.iter().find(|reason| !contains_any(reason, CONTENTION));
        unknown.map(|reason| Trouble::inconclusive(format!("{endpoint}: {reason}")))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Parts of the reasons for which a transaction's demands are not met.
const CONTENTION: &[&str] =
    &["lock is already held", "due to lock delay", "\" exists", "index", "lock isn't held", "session"];

fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

/// Returns the request body.
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
    to_json(&ops.into_iter().map(|kv| Entry { kv }).collect::<Vec<_>>())
}

/// Parses a reply; None if it is not from Consul, which lists the results, or the errors with status 409. A gateway may send
/// other JSON with the same status.
pub(super) fn parse(status: StatusCode, body: &str) -> Option<TxnResult> {
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
    struct Reply {
        results: Option<Vec<Applied>>,
        errors: Option<Vec<Refused>>,
    }
    let Reply { results, errors } = serde_json::from_str(body).ok()?;
    if status.is_success() {
        return results.map(|results| TxnResult::Applied(results.into_iter().map(|entry| entry.kv).collect()));
    }
    let errors = errors.filter(|errors| status == StatusCode::CONFLICT && !errors.is_empty())?;
    Some(TxnResult::Refused(Refusal(errors.into_iter().map(|error| error.what).collect())))
}

/// Serializes a struct of strings and numbers, which cannot fail.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errors: &[&str]) -> Refusal {
        Refusal(errors.iter().map(|reason| (*reason).to_owned()).collect())
    }

    #[test]
    fn refusals_are_classified() {
        let held = refusal(&["failed to lock key \"a/.lock\", lock is already held"]);
        assert!(!held.lock_delay() && held.trouble("x").is_none());
        let delay = refusal(&["failed to lock key \"a/.lock\" due to lock delay", "key \"a\" exists"]);
        assert!(delay.lock_delay() && delay.trouble("x").is_none());
        let ended = refusal(&["invalid session \"0000\""]);
        assert!(ended.session_ended("0000") && !ended.session_ended("1111") && ended.trouble("x").is_none());
        let unknown = refusal(&["the disk is full"]);
        assert!(matches!(unknown.trouble("x"), Some(Trouble::Uncertain { answered: true, .. })));
        let denied = refusal(&["Permission denied"]);
        assert!(matches!(denied.trouble("x"), Some(Trouble::Fatal(failure)) if failure.kind == Kind::Denied));
    }

    #[test]
    fn only_replies_of_consul_are_results() {
        let refused = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key \"a\" exists"}]}"#;
        assert!(matches!(parse(StatusCode::CONFLICT, refused), Some(TxnResult::Refused(_))));
        let applied = r#"{"Results":[],"Errors":null}"#;
        assert!(matches!(parse(StatusCode::OK, applied), Some(TxnResult::Applied(pairs)) if pairs.is_empty()));
        for (status, body) in [
            (StatusCode::NOT_FOUND, refused),
            (StatusCode::NOT_FOUND, r#"{"message":"no Route matched with those values"}"#),
            (StatusCode::CONFLICT, r#"{"message":"busy"}"#),
            (StatusCode::CONFLICT, r#"{"Errors":[]}"#),
            (StatusCode::OK, r#"{"status":"up"}"#),
            (StatusCode::OK, "[]"),
            (StatusCode::OK, "<html>"),
        ] {
            assert!(parse(status, body).is_none(), "{status} {body}");
        }
    }
}
