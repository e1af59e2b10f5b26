//! The holder's record in `.lockinfo`: Terraform's keys and distlock's own in one JSON object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Content of `.lockinfo`. Terraform shows the capitalised keys to its users.
#[derive(Serialize)]
struct Lockinfo<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Operation")]
    operation: &'a str,
    #[serde(rename = "Info")]
    info: &'a str,
    #[serde(rename = "Who")]
    who: String,
    #[serde(rename = "Version")]
    version: &'a str,
    /// Must be a valid time: Terraform refuses the record otherwise.
    #[serde(rename = "Created")]
    created: String,
    #[serde(rename = "Path")]
    path: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

/// Record that Terraform wrote.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Foreign {
    #[serde(rename = "ID")]
    id: String,
    operation: String,
    info: String,
    who: String,
    version: String,
    created: Option<String>,
}

/// Returns the content of `.lockinfo` for a contender that acquires the lock `name` at `now`.
#[must_use]
pub fn write(name: &str, record: &Record, now: Timestamp) -> String {
    let record = &record.acquired_at(now);
    let lockinfo = Lockinfo {
        id: &record.id,
        operation: "distlock",
        info: record.message.as_deref().unwrap_or_default(),
        who: format!("{}@{}", record.user, record.host),
        version: &record.tool,
        created: record.acquired.clone().unwrap_or_default(),
        path: name,
        record,
    };
    // Strings and numbers cannot fail to be serialized.
    serde_json::to_string(&lockinfo).unwrap_or_default()
}

/// Parses `.lockinfo`, written by distlock or Terraform. Returns an empty record for anything else.
#[must_use]
pub fn read(bytes: &[u8]) -> Record {
    let record = Record::parse(bytes);
    if !record.tool.is_empty() {
        return record;
    }
    let foreign: Foreign = serde_json::from_slice(bytes).unwrap_or_default();
    if foreign.who.is_empty() {
        return record;
    }
    let (user, host) = foreign.who.split_once('@').unwrap_or((&foreign.who, ""));
    Record {
        id: foreign.id,
        tool: format!("terraform/{}", foreign.version),
        user: user.to_owned(),
        host: host.to_owned(),
        command: foreign.operation,
        message: Some(foreign.info).filter(|info| !info.is_empty()),
        acquired: foreign.created,
        stop: record.stop,
        ..Record::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: "7f".into(),
            tool: "distlock/0.1.0".into(),
            host: "web1".into(),
            user: "joe".into(),
            since: Some("2024-05-01T10:00:00Z".into()),
            ..Record::default()
        }
    }

    #[test]
    fn written_record_has_the_keys_that_terraform_reads() {
        let text = write("jobs/a", &record(), Timestamp::UNIX_EPOCH);
        let read = read(text.as_bytes());
        assert!(read.acquired.is_some());
        assert_eq!(Record { acquired: None, ..read }, record());
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for key in ["ID", "Operation", "Info", "Who", "Version", "Created", "Path"] {
            assert!(json[key].is_string(), "{key}");
        }
        assert_eq!(json["Who"], "joe@web1");
    }

    #[test]
    fn record_of_terraform_names_its_holder() {
        let text = br#"{"ID":"1","Operation":"OperationTypeApply","Info":"","Who":"ann@ci","Version":"1.5.0",
            "Created":"2024-05-01T10:00:00.1Z","Path":"tf/state"}"#;
        let record = read(text);
        assert_eq!((record.user.as_str(), record.host.as_str()), ("ann", "ci"));
        assert_eq!(record.tool, "terraform/1.5.0");
        assert_eq!((record.message, record.acquired.as_deref()), (None, Some("2024-05-01T10:00:00.1Z")));
    }

    #[test]
    fn other_values_give_an_empty_record() {
        for text in ["", "null", "7", "{", "[]", r#"{"Who":1}"#, "\u{fffd}"] {
            assert_eq!(read(text.as_bytes()), Record::default(), "{text}");
        }
    }
}
