//! The configuration file: TOML, the options' names with `_` for `-`, a table for each backend.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use distlock_core::error::Failure;

use super::value::{Source, Value};
use crate::cli::options::{self, OPTIONS, Opt, RESERVED};
use crate::cli::similar;
use crate::lock::BackendName;

/// Keys in the table of Consul only.
const CONSUL_KEYS: [&str; 2] = ["lock_delay", "health_checks"];
const BACKENDS: [BackendName; 3] = [BackendName::Etcd, BackendName::Consul, BackendName::Local];

/// Configuration file whose keys are known and whose values have the right type.
#[derive(Debug, Default)]
pub(super) struct File {
    path: PathBuf,
    top: Table,
}

impl File {
    /// Reads the file at `path`. It may be missing if no setting named it.
    ///
    /// # Errors
    ///
    /// A usage failure that names the file and the key.
    pub(super) fn read(path: &Path, named_by: Option<&Value>) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && named_by.is_none() => return Ok(Self::default()),
            Err(error) => {
                let origin = named_by.map_or_else(String::new, |value| format!("{}: ", value.origin));
                return Err(Failure::usage(format!("{origin}cannot read {}", path.display()))
                    .because(error)
                    .hint("create it or make it readable for this user, or choose another file with --config"));
            }
        };
        let top = text.parse::<Table>().map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Failure::usage(format!("{}: line {line} is not valid TOML", path.display())).because(error.message())
        })?;
        let file = Self { path: path.to_owned(), top };
        file.check()?;
        Ok(file)
    }

    /// Returns the value of an option in a backend's table or at the top level.
    #[must_use]
    pub(super) fn get(&self, table: Option<BackendName>, option: &Opt) -> Option<Value> {
        let key = option.key()?;
        let mut value = self.value(table, &key)?;
        if option.path {
            value.text = self.path.parent().unwrap_or(Path::new("")).join(&value.text).into();
        }
        Some(value)
    }

    /// Returns the value of a key in a backend's table or at the top level, unless it is empty.
    #[must_use]
    pub(super) fn value(&self, table: Option<BackendName>, key: &str) -> Option<Value> {
        let (entries, source) = match table {
            None => (&self.top, Source::File),
            Some(backend) => (self.top.get(&backend.to_string())?.as_table()?, Source::BackendTable),
        };
        let text = OsString::from(text(entries.get(key)?)?);
        Some(Value { text, source, origin: self.origin(table, key) }).filter(|value| !value.text.is_empty())
    }

    /// Returns the strings of an array in a backend's table.
    #[must_use]
    pub(super) fn list(&self, table: BackendName, key: &str) -> Vec<String> {
        let array = self.top.get(&table.to_string()).and_then(|table| table.get(key)?.as_array());
        array.into_iter().flatten().filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
    }

    /// Returns the file and the key, for messages.
    fn origin(&self, table: Option<BackendName>, key: &str) -> String {
        let table = table.map(|backend| format!("[{backend}] ")).unwrap_or_default();
        format!("{}: {table}{key}", self.path.display())
    }

    fn check(&self) -> Result<(), Failure> {
        for (key, value) in &self.top {
            match (BACKENDS.into_iter().find(|backend| backend.to_string() == *key), value.as_table()) {
                (Some(backend), Some(table)) => {
                    table.iter().try_for_each(|(key, value)| self.check_key(Some(backend), key, value))?;
                }
                (Some(_), None) => return Err(self.refuse(None, key, " must be a table: [etcd], [consul] or [local]")),
                (None, _) => self.check_key(None, key, value)?,
            }
        }
        Ok(())
    }

    fn check_key(&self, table: Option<BackendName>, key: &str, value: &Toml) -> Result<(), Failure> {
        let is_consul_key = table == Some(BackendName::Consul) && CONSUL_KEYS.contains(&key);
        let option = options::find_by_key(key).filter(|option| table.is_none() || option.id != "backend");
        if option.is_none() && !is_consul_key {
            return Err(self.unknown(table, key));
        }
        if option.is_some_and(|option| option.key().is_none()) {
            return Err(self.refuse(table, key, " cannot be set in a file, only on the command line"));
        }
        let (is_valid, complaint) = match option {
            Some(option) if option.value.is_none() => (value.is_bool(), " must be true or false"),
            Some(option) if option.id == "endpoints" => {
                (value.is_str() || is_list(value), " must be a string or a list of strings")
            }
            None if key == "health_checks" => (is_list(value), " must be a list of strings"),
            _ => (!value.is_bool() && !value.is_array() && text(value).is_some(), " must be a string or a number"),
        };
        if is_valid { Ok(()) } else { Err(self.refuse(table, key, complaint)) }
    }

    fn unknown(&self, table: Option<BackendName>, key: &str) -> Failure {
        if let Some((id, _)) = RESERVED.iter().find(|(id, _)| id.replace('-', "_") == key) {
            let why = format!(": {}", options::not_available(id));
            return self.refuse(table, key, &why).hint("remove it; distlock --help lists the known keys ([key: ...])");
        }
        let failure = self.refuse(table, key, " is not a known key");
        let keys: Vec<String> = OPTIONS.iter().filter_map(Opt::key).collect();
        match (key, similar(key, keys.iter().map(String::as_str).chain(CONSUL_KEYS))) {
            ("password" | "token", _) => {
                failure.hint(format!("keep the secret in a separate file: {key}_file = \"PATH\""))
            }
            (_, Some(found)) if CONSUL_KEYS.contains(&found) => {
                failure.hint(format!("did you mean `{found}` in [consul]?"))
            }
            (_, Some(found)) => failure.hint(format!("did you mean `{found}`?")),
            (_, None) => failure.hint("distlock --help lists the known keys ([key: ...])"),
        }
    }

    fn refuse(&self, table: Option<BackendName>, key: &str, why: &str) -> Failure {
        Failure::usage(format!("{}{why}", self.origin(table, key)))
    }
}

/// Returns the value as a flag would take it; None if no flag takes such a value.
fn text(value: &Toml) -> Option<String> {
    match value {
        Toml::String(text) => Some(text.clone()),
        Toml::Integer(number) => Some(number.to_string()),
        Toml::Float(number) => Some(number.to_string()),
        Toml::Boolean(is_on) => Some(is_on.to_string()),
        Toml::Array(items) => items.iter().map(Toml::as_str).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Toml::Table(_) | Toml::Datetime(_) => None,
    }
}

fn is_list(value: &Toml) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Toml::is_str))
}
