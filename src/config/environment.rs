//! What a configuration depends on besides the command line and the configuration file.

use std::ffi::OsString;
use std::path::PathBuf;

/// There is no configuration file per user: cron and sudo would read a different one.
const DEFAULT_FILE: &str = "/etc/distlock/config.toml";

/// Returns the value of an environment variable.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

pub(crate) struct Environment<'a> {
    pub variables: Variables<'a>,
    /// Configuration file that is read if no other is named.
    pub default_file: PathBuf,
}

impl Environment<'static> {
    /// Returns the environment of this process.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        Self { variables: &|name| std::env::var_os(name), default_file: DEFAULT_FILE.into() }
    }
}
