//! The record: the JSON on the server that describes a contender. Records of other tools and versions are tolerated.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::time::iso;

/// Longest text of a parsed record, in characters.
const MAX_TEXT: usize = 500;

/// Description of a contender. Every field may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Random id of this contender, not a secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Tool that wrote the record, with its version, such as `distlock/0.1.0`.
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
    /// Value of `--message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// URL of the CI job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Time at which the contender entered the queue: ISO 8601, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Time at which the holder acquired the lock: ISO 8601, UTC. Missing on etcd after a wait, because the record is
    /// written before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquired: Option<String>,
    /// User that asked the holder to stop (`distlock break`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

impl Record {
    /// Parses the value of a key. A value that is not a record gives an empty record, because the lock is held anyway.
    /// Texts are cut after 500 characters.
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

    /// Returns the record as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers cannot fail to be serialized.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns user, host, process id and command as far as they are known, on one line for messages.
    #[must_use]
    pub fn summary(&self) -> String {
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
        without_control_characters(&line)
    }

    /// Returns the record of a contender that acquires the lock at `now`.
    #[must_use]
    pub fn acquired_at(&self, now: Timestamp) -> Self {
        Self { acquired: Some(iso(now)), ..self.clone() }
    }

    /// Returns the summary, the time since when the contender holds or waits, and its message, on one line for messages.
    /// The time is shown in `zone`.
    #[must_use]
    pub fn details(&self, zone: &TimeZone) -> String {
        let mut line = self.summary();
        match (&self.acquired, &self.since) {
            (Some(acquired), _) => line += &format!(" since {}", in_zone(acquired, zone)),
            (None, Some(since)) => line += &format!(", in the queue since {}", in_zone(since, zone)),
            (None, None) => {}
        }
        if let Some(message) = &self.message {
            line += &format!(": {message}");
        }
        without_control_characters(&line)
    }
}

/// Returns a time in `zone`; a text that is not a time unchanged.
fn in_zone(text: &str, zone: &TimeZone) -> String {
    let time = text.parse::<Timestamp>();
    time.map_or_else(|_| text.to_owned(), |time| time.to_zoned(zone.clone()).strftime("%F %T").to_string())
}

/// Replaces control characters: any client can write a record, and its text reaches a terminal.
fn without_control_characters(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_show_times_in_the_time_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let queued = Record { user: "ann".into(), since: Some("2024-05-01T10:00:00.250Z".into()), ..Record::default() };
        assert_eq!(queued.details(&zone), "ann, in the queue since 2024-05-01 12:00:00");
        let acquired = Record { acquired: Some("2024-05-01T22:30:00Z".into()), ..queued.clone() };
        assert_eq!(acquired.details(&zone), "ann since 2024-05-02 00:30:00");
        let invalid = Record { since: Some("noon".into()), ..queued };
        assert_eq!(invalid.details(&zone), "ann, in the queue since noon");
    }

    #[test]
    fn long_texts_are_cut() {
        let long = Record { message: Some("ä".repeat(100_000)), pid: Some(7), ..Record::default() };
        let parsed = Record::parse(long.to_json().as_bytes());
        assert_eq!(parsed.message.map(|text| text.chars().count()), Some(MAX_TEXT));
        assert_eq!(parsed.pid, Some(7));
    }
}
