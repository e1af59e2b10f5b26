//! The keys of one lock, and the order of the contenders that follows from them.

use super::leases::Leases;
use crate::error::Failure;
use crate::outcome::{Outcome, Trouble};
use crate::record::Record;

/// Longest name, in bytes. Far below etcd's limit of 1.5 MiB for a request, which contains the key several times.
const MAX_NAME: usize = 4096;

/// Number of hexadecimal digits in the longest lease id.
const MAX_ID: usize = 16;

/// Refuses a name that cannot be a lock on etcd.
///
/// # Errors
///
/// A usage failure with a hint.
pub fn check_name(name: &str) -> Result<(), Failure> {
    if name.len() > MAX_NAME {
        let why = format!("it has {} bytes; the maximum is {MAX_NAME}", name.len());
        return Err(Failure::usage(format!("the name cannot be a lock on etcd: {why}")).hint("use a shorter name"));
    }
    Ok(())
}

/// Prefix of the contenders' keys. Each key is `NAME/` and the lease id in hexadecimal, as in `etcdctl lock`.
#[derive(Clone, Debug)]
pub struct Prefix(String);

impl Prefix {
    /// Creates the prefix of the lock `name`, which is taken verbatim.
    pub fn new(name: &str) -> Self {
        Self(format!("{name}/"))
    }

    /// Returns the prefix, with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key of the contender with this lease.
    pub fn key(&self, lease: i64) -> String {
        format!("{}{lease:x}", self.0)
    }

    /// Returns start and end of the smallest range that contains the key of every contender. It can contain other keys
    /// too; see [`Prefix::is_contender`].
    pub fn range(&self) -> (Vec<u8>, Vec<u8>) {
        // 'g' follows the last hexadecimal digit.
        (format!("{}0", self.0).into_bytes(), format!("{}g", self.0).into_bytes())
    }

    /// Returns where reading continues after `key`: nested names are skipped as a whole.
    pub fn next_start(&self, key: &[u8]) -> Vec<u8> {
        let nested = key.get(self.0.len()..).and_then(|rest| rest.iter().position(|byte| *byte == b'/'));
        match nested {
            // '0' follows the slash.
            Some(slash) => [&key[..self.0.len() + slash], b"0"].concat(),
            None => [key, b"\0"].concat(),
        }
    }

    /// Returns whether `key` belongs to a contender for this lock, and not for one with a nested name.
    pub fn is_contender(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.0.as_bytes()).is_some_and(|id| {
            (1..=MAX_ID).contains(&id.len()) && id.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

/// Key and the revision that created it. The revisions give the order of the queue.
pub type Created<'a> = (&'a [u8], i64);

/// The contenders ahead of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContendersAhead {
    /// The holder's key.
    pub holder: Vec<u8>,
    /// The key directly before this contender's.
    pub predecessor: Vec<u8>,
    /// Number of contenders ahead, the holder included.
    pub count: u32,
}

impl ContendersAhead {
    /// Returns the contenders ahead of the key that was created at `create_revision`; None if that key is the first.
    pub fn of<'a>(create_revision: i64, contenders: impl IntoIterator<Item = Created<'a>>) -> Option<Self> {
        let mut ahead: Vec<Created> =
            contenders.into_iter().filter(|(_, created)| *created < create_revision).collect();
        ahead.sort_by_key(|(_, created)| *created);
        let (holder, predecessor) = (ahead.first()?.0.to_vec(), ahead.last()?.0.to_vec());
        Some(Self { holder, predecessor, count: u32::try_from(ahead.len()).unwrap_or(u32::MAX) })
    }
}

/// This contender's key as the server returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKey {
    /// Revision that created the key: its position in the queue and the fencing token.
    pub create_revision: i64,
    /// Revision of the last write.
    pub mod_revision: i64,
    /// Lease that the key is bound to.
    pub lease: i64,
    /// The holder's record, as JSON.
    pub value: Vec<u8>,
}

impl OwnKey {
    /// Checks what a read returned for `key`: it must be bound to one of the contender's `leases` and, if
    /// `create_revision` is known, have been created at that revision.
    ///
    /// # Errors
    ///
    /// [`Trouble::Lost`] if the key does not exist or is not the contender's, [`Trouble::Broken`] if its record asks
    /// the holder to stop.
    pub fn check(read: Option<Self>, key: &str, leases: &Leases, create_revision: Option<i64>) -> Outcome<Self> {
        let Some(own) = read else {
            let why = "its lease expired or was revoked, or another client deleted it";
            return Err(Trouble::Lost(format!("the key {key} does not exist any more: {why}")));
        };
        if !leases.contains(own.lease) || create_revision.is_some_and(|created| created != own.create_revision) {
            return Err(Trouble::Lost(format!("another client has written the key {key}")));
        }
        match Record::parse(&own.value).stop {
            Some(requester) => Err(Trouble::Broken(requester)),
            None => Ok(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead_of(create_revision: i64, keys: &[(&str, i64)]) -> Option<ContendersAhead> {
        ContendersAhead::of(create_revision, keys.iter().map(|(key, created)| (key.as_bytes(), *created)))
    }

    #[test]
    fn only_names_that_are_too_long_are_refused() {
        for name in ["demo", "/jobs/backup", "a b", "..", "Straße", "/x//y"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let failure = check_name(&"n".repeat(5000)).unwrap_err();
        assert_eq!(failure.kind, crate::error::Kind::Usage);
        assert!(failure.hint.is_some());
        assert!(check_name(&"ä".repeat(400)).is_ok());
    }

    #[test]
    fn only_exact_keys_belong_to_contenders() {
        let prefix = Prefix::new("/jobs");
        assert_eq!(prefix.key(0x0694_d7a1), "/jobs/694d7a1");
        assert!(prefix.is_contender(b"/jobs/694d7a1"));
        assert!(prefix.is_contender(b"/jobs/7fffffffffffffff"));
        for foreign in [
            "/jobs",
            "/jobs/",
            "/jobs/a/694d7a1",
            "/jobs//694d7a1",
            "/jobs/694D7A1",
            "/jobs/config",
            "/jobs/07fffffffffffffff",
            "/jobsa/1",
        ] {
            assert!(!prefix.is_contender(foreign.as_bytes()), "{foreign}");
        }
    }

    #[test]
    fn range_contains_every_contender() {
        let (start, end) = Prefix::new("/jobs").range();
        for lease in [1, 0x9, 0xa, i64::MAX] {
            let key = Prefix::new("/jobs").key(lease).into_bytes();
            assert!(start <= key && key < end);
        }
    }

    #[test]
    fn lowest_create_revision_is_first() {
        assert_eq!(ahead_of(7, &[("/jobs/a", 7), ("/jobs/b", 9)]), None);
        let expected = ContendersAhead { holder: b"/jobs/c".to_vec(), predecessor: b"/jobs/b".to_vec(), count: 2 };
        let keys = [("/jobs/a", 7), ("/jobs/b", 5), ("/jobs/c", 3), ("/jobs/d", 9)];
        assert_eq!(ahead_of(7, &keys), Some(expected));
    }

    #[test]
    fn nested_names_are_skipped_as_a_whole() {
        let prefix = Prefix::new("/jobs");
        assert_eq!(prefix.next_start(b"/jobs/5"), b"/jobs/5\0");
        let after_nested = prefix.next_start(b"/jobs/a/5/x");
        assert_eq!(after_nested, b"/jobs/a0");
        assert!(after_nested > b"/jobs/a/zzz".to_vec() && after_nested < b"/jobs/a00".to_vec());
    }

    #[test]
    fn foreign_or_missing_key_is_lost() {
        let leases = Leases::new(5);
        let own = |lease, create_revision, value: &str| {
            Some(OwnKey { create_revision, mod_revision: 7, lease, value: value.into() })
        };
        let check = |read| OwnKey::check(read, "/jobs/5", &leases, Some(3));
        assert!(check(own(5, 3, "{}")).is_ok());
        assert!(OwnKey::check(own(5, 3, "{}"), "/jobs/5", &leases, None).is_ok());
        assert!(matches!(check(None), Err(Trouble::Lost(_))));
        assert!(matches!(check(own(0, 3, "{}")), Err(Trouble::Lost(_))));
        assert!(matches!(check(own(5, 4, "{}")), Err(Trouble::Lost(_))));
        assert_eq!(check(own(5, 3, r#"{"stop":"ann@host"}"#)), Err(Trouble::Broken("ann@host".into())));
    }
}
