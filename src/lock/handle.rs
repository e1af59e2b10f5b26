//! The handle: one word that names one acquisition of one lock, without secrets and without addresses.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::lock::Name;

/// The handle of a running command's lock: `dl1.r.<backend>.<lease or session>.<token>.<base64url of the name>`, made of
/// `[A-Za-z0-9._-]`. A lock without a lease has `-` in its place.
#[must_use]
pub(crate) fn of_running(backend: Name, lease: Option<&str>, token: u64, name: &str) -> String {
    format!("dl1.r.{backend}.{}.{token}.{}", lease.unwrap_or("-"), URL_SAFE_NO_PAD.encode(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_one_plain_word_whatever_the_name() {
        let handle = of_running(Name::Etcd, Some("3f2a"), 17, "/jobs/ä b\u{1F512}");
        assert!(handle.starts_with("dl1.r.etcd.3f2a.17."), "{handle}");
        assert!(handle.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{handle}");
    }
}
