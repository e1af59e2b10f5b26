//! One key of the key-value store, as Consul returns it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// Key with its value and what the server knows about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pair {
    /// Full name of the key.
    pub key: String,
    /// The value in base64; None if it is empty.
    pub value: Option<String>,
    /// Kind of the key, by convention of the clients.
    pub flags: u64,
    /// Session that holds the key; None or empty if none does.
    pub session: Option<String>,
    /// How often a session has acquired the key since its creation.
    pub lock_index: u64,
    /// Raft index of the creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

impl Pair {
    /// Returns the decoded value; empty if it is not valid base64.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.value.as_deref().and_then(|value| BASE64_STANDARD.decode(value).ok()).unwrap_or_default()
    }

    /// Returns the session that holds the key.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.session.as_deref().filter(|session| !session.is_empty())
    }
}
