//! The handle: one word that names one acquisition of one lock. It contains no secret and no address.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::backend::BackendName;

/// Returns the handle of a running command's lock, `dl1.r.<backend>.<lease or session>.<token>.<base64url of the name>`.
/// It consists of `[A-Za-z0-9._-]`; a lock without a lease has `-` in place of the id.
#[must_use]
pub(crate) fn of_running(backend: BackendName, lease: Option<&str>, token: u64, name: &str) -> String {
    format!("dl1.r.{backend}.{}.{token}.{}", lease.unwrap_or("-"), URL_SAFE_NO_PAD.encode(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_one_word_of_plain_characters() {
        let handle = of_running(BackendName::Etcd, Some("3f2a"), 17, "/jobs/ä b\u{1F512}");
        assert!(handle.starts_with("dl1.r.etcd.3f2a.17."), "{handle}");
        assert!(handle.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{handle}");
    }
}
