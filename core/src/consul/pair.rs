//! One key of the key-value store, as Consul returns it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

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
