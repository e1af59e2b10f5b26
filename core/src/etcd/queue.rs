//! The keys of one lock and the order that they give: pure reading of what etcd returned.

use super::leases::Leases;
use crate::error::Failure;
use crate::outcome::{Outcome, Trouble};
use crate::record::Record;

/// The longest name, in bytes; far below etcd's limit of 1.5 MiB for a request, which holds the key several times.
const MAX_NAME: usize = 4096;

/// The hexadecimal digits of the longest lease id.
const MAX_ID: usize = 16;

/// Refuses a name that cannot be a lock on etcd.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let refuse = |why: &str| Failure::usage(format!("{name:?} cannot be a lock on etcd: {why}"));
    if name.is_empty() {
        return Err(refuse("it is empty").hint("give the lock a name, like /jobs/backup"));
    }
    if name.chars().any(char::is_control) {
        return Err(refuse("it has control characters").hint("use printable characters"));
    }
    if name.ends_with('/') {
        // `etcdctl lock /x/` makes the key /x//ID: trimming the slash would make two locks of one name.
        return Err(refuse("it ends with a slash").hint(format!("try {:?}", name.trim_end_matches('/'))));
    }
    if name.len() > MAX_NAME {
        let why = format!("it has {} bytes, and {MAX_NAME} is the most", name.len());
        return Err(Failure::usage(format!("the name cannot be a lock on etcd: {why}")).hint("use a shorter name"));
    }
    Ok(())
}

/// Where the contenders of one lock put their keys: `NAME/` and the lease id in hexadecimal, as `etcdctl lock` does.
#[derive(Clone, Debug)]
pub struct Prefix(String);

impl Prefix {
    /// The place of the lock `name`, taken verbatim.
    pub fn new(name: &str) -> Self {
        Self(format!("{name}/"))
    }

    /// What every key begins with.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the contender with this lease.
    pub fn key(&self, lease: i64) -> String {
        format!("{}{lease:x}", self.0)
    }

    /// The least range that holds every contender's key. It may hold foreign keys too; see [`Prefix::owns`].
    pub fn range(&self) -> (Vec<u8>, Vec<u8>) {
        // 'g' follows the last hexadecimal digit.
        (format!("{}0", self.0).into_bytes(), format!("{}g", self.0).into_bytes())
    }

    /// The least key after this one that may be a contender's: nested names are left out together.
    pub fn after(&self, key: &[u8]) -> Vec<u8> {
        let nested = key.get(self.0.len()..).and_then(|rest| rest.iter().position(|byte| *byte == b'/'));
        match nested {
            // '0' follows the slash.
            Some(slash) => [&key[..self.0.len() + slash], b"0"].concat(),
            None => [key, b"\0"].concat(),
        }
    }

    /// Whether `key` is a contender's for this very lock, and not for one whose name goes on after the slash.
    pub fn owns(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.0.as_bytes()).is_some_and(|id| {
            (1..=MAX_ID).contains(&id.len()) && id.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

/// A key and the revision that created it, which is its place in the queue.
pub type Created<'a> = (&'a [u8], i64);

/// Those who stand before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The holder's key.
    pub first: Vec<u8>,
    /// The key of the one just before us.
    pub before: Vec<u8>,
    /// How many they are.
    pub ahead: u32,
}

impl Line {
    /// Who stands before the contender whose key was created at `created`; None when it is first.
    pub fn before<'a>(created: i64, contenders: impl IntoIterator<Item = Created<'a>>) -> Option<Self> {
        let mut ahead: Vec<Created> = contenders.into_iter().filter(|(_, revision)| *revision < created).collect();
        ahead.sort_by_key(|(_, revision)| *revision);
        let (first, before) = (ahead.first()?.0.to_vec(), ahead.last()?.0.to_vec());
        Some(Self { first, before, ahead: u32::try_from(ahead.len()).unwrap_or(u32::MAX) })
    }
}

/// Our key as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The revision that created it: the place in the queue, and the fencing token.
    pub created: i64,
    /// The revision of its last change.
    pub modified: i64,
    /// The lease that it is bound to.
    pub lease: i64,
    /// The holder record.
    pub value: Vec<u8>,
}

impl Own {
    /// Judges what was read where our key should be: bound to one of our `leases` and created at `created`, where that is
    /// known.
    pub fn check(read: Option<Self>, key: &str, leases: &Leases, created: Option<i64>) -> Outcome<Self> {
        let Some(own) = read else {
            let why = "its lease expired or was revoked, or somebody deleted it";
            return Err(Trouble::Lost(format!("the key {key} is gone: {why}")));
        };
        if !leases.ours(own.lease) || created.is_some_and(|created| created != own.created) {
            return Err(Trouble::Lost(format!("somebody else has written the key {key}")));
        }
        match Record::parse(&own.value).stop {
            Some(who) => Err(Trouble::Broken(who)),
            None => Ok(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(created: i64, keys: &[(&str, i64)]) -> Option<Line> {
        Line::before(created, keys.iter().map(|(key, revision)| (key.as_bytes(), *revision)))
    }

    #[test]
    fn names_are_refused_with_the_way_out() {
        for name in ["demo", "/jobs/backup", "a b", "..", "Straße", "/x//y"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "/", "//", "/x/", "a\nb", "a\0", &"n".repeat(5000)] {
            let failure = check_name(name).unwrap_err();
            assert_eq!(failure.kind, crate::error::Kind::Usage);
            assert!(failure.hint.is_some(), "{name}");
        }
        assert!(check_name(&"ä".repeat(400)).is_ok());
    }

    #[test]
    fn only_exact_keys_are_contenders() {
        let prefix = Prefix::new("/jobs");
        assert_eq!(prefix.key(0x0694_d7a1), "/jobs/694d7a1");
        assert!(prefix.owns(b"/jobs/694d7a1"));
        assert!(prefix.owns(b"/jobs/7fffffffffffffff"));
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
            assert!(!prefix.owns(foreign.as_bytes()), "{foreign}");
        }
    }

    #[test]
    fn the_range_holds_every_contender() {
        let (start, end) = Prefix::new("/jobs").range();
        for lease in [1, 0x9, 0xa, i64::MAX] {
            let key = Prefix::new("/jobs").key(lease).into_bytes();
            assert!(start <= key && key < end);
        }
    }

    #[test]
    fn the_lowest_creation_is_first() {
        assert_eq!(line(7, &[("/jobs/a", 7), ("/jobs/b", 9)]), None);
        let expected = Line { first: b"/jobs/c".to_vec(), before: b"/jobs/b".to_vec(), ahead: 2 };
        assert_eq!(line(7, &[("/jobs/a", 7), ("/jobs/b", 5), ("/jobs/c", 3), ("/jobs/d", 9)]), Some(expected));
    }

    #[test]
    fn what_is_nested_is_passed_at_one_step() {
        let prefix = Prefix::new("/jobs");
        assert_eq!(prefix.after(b"/jobs/5"), b"/jobs/5\0");
        assert_eq!(prefix.after(b"/jobs/a/5/x"), b"/jobs/a0");
        assert!(
            prefix.after(b"/jobs/a/5") > b"/jobs/a/zzz".to_vec() && prefix.after(b"/jobs/a/5") < b"/jobs/a00".to_vec()
        );
    }

    #[test]
    fn our_key_must_be_ours() {
        let leases = Leases::new(5);
        let own = |lease, created, value: &str| Some(Own { created, modified: 7, lease, value: value.into() });
        let check = |read| Own::check(read, "/jobs/5", &leases, Some(3));
        assert!(check(own(5, 3, "{}")).is_ok());
        assert!(Own::check(own(5, 3, "{}"), "/jobs/5", &leases, None).is_ok());
        assert!(matches!(check(None), Err(Trouble::Lost(_))));
        assert!(matches!(check(own(0, 3, "{}")), Err(Trouble::Lost(_))));
        assert!(matches!(check(own(5, 4, "{}")), Err(Trouble::Lost(_))));
        assert_eq!(check(own(5, 3, r#"{"stop":"ann@host"}"#)), Err(Trouble::Broken("ann@host".into())));
    }
}
