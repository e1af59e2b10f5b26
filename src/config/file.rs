//! The configuration file: TOML, the options' names with `_` for `-`, and a table for each backend.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use super::layers::{Layer, Value};
use crate::cli::options::{self, OPTIONS, Opt, RESERVED};
use crate::cli::similar;
use crate::lock::Name;
use distlock_core::error::Failure;

/// Keys that only the table of Consul has.
const CONSUL_KEYS: [&str; 2] = ["lock_delay", "health_checks"];
const BACKENDS: [Name; 3] = [Name::Etcd, Name::Consul, Name::Local];

/// A configuration file that was read and whose keys are all known.
#[derive(Debug, Default)]
pub(super) struct File {
    path: PathBuf,
    top: Table,
}

impl File {
    /// Reads the file at `path`. One that nobody named may be missing.
    ///
    /// # Errors
    ///
    /// A usage failure that names the file and the key.
    pub(super) fn read(path: &Path, named_by: Option<&Value>) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && named_by.is_none() => return Ok(Self::default()),
            Err(error) => {
                let source = named_by.map_or_else(String::new, |value| format!("{}: ", value.source));
                return Err(Failure::usage(format!("{source}cannot read {}", path.display()))
                    .because(error)
                    .hint("make it readable for this user, or name another file with --config"));
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

    /// What the file says of an option, in a backend's table or at its top.
    #[must_use]
    pub(super) fn get(&self, table: Option<Name>, option: &Opt) -> Option<Value> {
        let key = option.key()?;
        let mut value = self.value(table, &key)?;
        if option.path {
            value.text = self.path.parent().unwrap_or(Path::new("")).join(&value.text).into();
        }
        Some(value)
    }

    /// The value of a key in a backend's table or at the top.
    #[must_use]
    pub(super) fn value(&self, table: Option<Name>, key: &str) -> Option<Value> {
        let (entries, layer) = match table {
            None => (&self.top, Layer::File),
            Some(backend) => (self.top.get(&backend.to_string())?.as_table()?, Layer::Table),
        };
        let text = OsString::from(text(entries.get(key)?)?);
        Some(Value { text, layer, source: self.name(table, key) }).filter(|value| !value.text.is_empty())
    }

    /// The strings of an array in a backend's table.
    #[must_use]
    pub(super) fn list(&self, table: Name, key: &str) -> Vec<String> {
        let array = self.top.get(&table.to_string()).and_then(|table| table.get(key)?.as_array());
        array.into_iter().flatten().filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
    }

    /// The file and the key, as a message names them.
    fn name(&self, table: Option<Name>, key: &str) -> String {
        let table = table.map(|backend| format!("[{backend}] ")).unwrap_or_default();
        format!("{}: {table}{key}", self.path.display())
    }

    fn check(&self) -> Result<(), Failure> {
        for (key, value) in &self.top {
            match (BACKENDS.into_iter().find(|backend| backend.to_string() == *key), value.as_table()) {
                (Some(backend), Some(table)) => {
                    table.iter().try_for_each(|(key, value)| self.check_key(Some(backend), key, value))?;
                }
                (Some(_), None) => return Err(self.refuse(None, key, " is a table: [etcd], [consul] or [local]")),
                (None, _) => self.check_key(None, key, value)?,
            }
        }
        Ok(())
    }

    fn check_key(&self, table: Option<Name>, key: &str, value: &Toml) -> Result<(), Failure> {
        let of_consul = table == Some(Name::Consul) && CONSUL_KEYS.contains(&key);
        let option = options::find_by_key(key).filter(|option| table.is_none() || option.id != "backend");
        if option.is_none() && !of_consul {
            return Err(self.unknown(table, key));
        }
        if option.is_some_and(|option| option.key().is_none()) {
            return Err(self.refuse(table, key, " is not taken from a file, only from the command line"));
        }
        let wanted = match option {
            Some(option) if option.value.is_none() => (value.is_bool(), " is true or false"),
            Some(option) if option.id == "endpoints" => {
                (value.is_str() || is_list(value), " is a string or a list of strings")
            }
            None if key == "health_checks" => (is_list(value), " is a list of strings"),
            _ => (!value.is_bool() && !value.is_array() && text(value).is_some(), " is a string or a number"),
        };
        if wanted.0 { Ok(()) } else { Err(self.refuse(table, key, wanted.1)) }
    }

    fn unknown(&self, table: Option<Name>, key: &str) -> Failure {
        if let Some((id, _)) = RESERVED.iter().find(|(id, _)| id.replace('-', "_") == key) {
            let why = format!(": {}", options::not_available(id));
            return self.refuse(table, key, &why).hint("take it out; see [key: ...] in distlock --help for what is");
        }
        let failure = self.refuse(table, key, " is not a known key");
        let keys: Vec<String> = OPTIONS.iter().filter_map(Opt::key).collect();
        match (key, similar(key, keys.iter().map(String::as_str).chain(CONSUL_KEYS))) {
            ("password" | "token", _) => {
                failure.hint(format!("a secret stands in a file of its own: {key}_file = \"PATH\""))
            }
            (_, Some(found)) if CONSUL_KEYS.contains(&found) => {
                failure.hint(format!("did you mean `{found}` in [consul]?"))
            }
            (_, Some(found)) => failure.hint(format!("did you mean `{found}`?")),
            (_, None) => failure.hint("the known keys: see [key: ...] in distlock --help"),
        }
    }

    fn refuse(&self, table: Option<Name>, key: &str, why: &str) -> Failure {
        Failure::usage(format!("{}{why}", self.name(table, key)))
    }
}

/// A value as a flag would have it; None where no flag takes such a value.
fn text(value: &Toml) -> Option<String> {
    match value {
        Toml::String(text) => Some(text.clone()),
        Toml::Integer(number) => Some(number.to_string()),
        Toml::Float(number) => Some(number.to_string()),
        Toml::Boolean(truth) => Some(truth.to_string()),
        Toml::Array(items) => items.iter().map(Toml::as_str).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Toml::Table(_) | Toml::Datetime(_) => None,
    }
}

fn is_list(value: &Toml) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Toml::is_str))
}
