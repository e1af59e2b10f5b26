//! The holder record: what a contender says of itself on the server, as JSON. Reading one tolerates what other tools and
//! other versions wrote.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::time::iso;

/// The most characters that are taken of one text of somebody else's record.
const MAX_TEXT: usize = 500;

/// Who holds a lock, or waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Names this contender among all: random, not a secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The tool that wrote the record, with its version: `distlock/0.1.0`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// Host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// User name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Process id of the supervisor on its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The command's `argv[0]` only: arguments may be secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// `--message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where to look: the CI job's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When the contender entered the queue: ISO 8601, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When the holder acquired the lock, likewise, where it can be written by then: on etcd the record of one that
    /// queued says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquired: Option<String>,
    /// Who asked the holder to stop, once somebody did (`distlock break`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

impl Record {
    /// Reads what a server holds. Whatever is not such a record gives an empty one: the lock is held all the same. No text
    /// in it is longer than `MAX_TEXT`, whoever wrote it.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut record: Self = serde_json::from_slice(bytes).unwrap_or_default();
        let Self { id, tool, host, user, pid: _, command, message, url, since, acquired, stop } = &mut record;
        let optional = [message, url, since, acquired, stop].into_iter().flatten();
        for text in [id, tool, host, user, command].into_iter().chain(optional) {
            if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
                text.truncate(end);
            }
        }
        record
    }

    /// The record as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers only: nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Who it is, on one line for people, as far as the record tells.
    #[must_use]
    pub fn who(&self) -> String {
        let mut line = match (self.user.as_str(), self.host.as_str()) {
            ("", "") => "an unknown holder".to_owned(),
            ("", host) => host.to_owned(),
            (user, "") => user.to_owned(),
            (user, host) => format!("{user}@{host}"),
        };
        if let Some(pid) = self.pid {
            line += &format!(" pid {pid}");
        }
        if !self.command.is_empty() {
            line += &format!(" ({})", self.command);
        }
        plain(&line)
    }

    /// Returns the record of a contender that acquires the lock at `now`.
    #[must_use]
    pub fn acquired_at(&self, now: Timestamp) -> Self {
        Self { acquired: Some(iso(now)), ..self.clone() }
    }

    /// Who it is, since when and why, on one line for people who live in this time zone.
    #[must_use]
    pub fn describe(&self, zone: &TimeZone) -> String {
        let mut line = self.who();
        match (&self.acquired, &self.since) {
            (Some(acquired), _) => line += &format!(" since {}", local(acquired, zone)),
            (None, Some(since)) => line += &format!(", in the queue since {}", local(since, zone)),
            (None, None) => {}
        }
        if let Some(message) = &self.message {
            line += &format!(": {message}");
        }
        plain(&line)
    }
}

/// A moment as people here read it; anything else as it stands.
fn local(text: &str, zone: &TimeZone) -> String {
    let moment = text.parse::<Timestamp>();
    moment.map_or_else(|_| text.to_owned(), |moment| moment.to_zoned(zone.clone()).strftime("%F %T").to_string())
}

/// A record comes from the server, and anybody may have written it: no control characters reach a terminal.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_since_when_by_their_own_clock_and_of_what() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let queued = Record { user: "ann".into(), since: Some("2024-05-01T10:00:00.250Z".into()), ..Record::default() };
        assert_eq!(queued.describe(&zone), "ann, in the queue since 2024-05-01 12:00:00");
        let acquired = Record { acquired: Some("2024-05-01T22:30:00Z".into()), ..queued.clone() };
        assert_eq!(acquired.describe(&zone), "ann since 2024-05-02 00:30:00");
        let odd = Record { since: Some("noon".into()), ..queued };
        assert_eq!(odd.describe(&zone), "ann, in the queue since noon");
    }

    #[test]
    fn a_record_of_any_length_is_read_as_a_short_one() {
        let long = Record { message: Some("ä".repeat(100_000)), pid: Some(7), ..Record::default() };
        let read = Record::parse(long.to_json().as_bytes());
        assert_eq!(read.message.map(|text| text.chars().count()), Some(MAX_TEXT));
        assert_eq!(read.pid, Some(7));
    }
}
