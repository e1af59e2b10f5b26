//! Value of a setting, and where it was found.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use distlock_core::error::Failure;

/// Kind of source, the highest precedence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// Flag after the subcommand.
    LateFlag,
    /// Flag before the subcommand, or without one.
    Flag,
    /// `DISTLOCK_` variable.
    Variable,
    /// Variable of the backend's own tools.
    BackendVariable,
    /// The backend's table in the configuration file.
    BackendTable,
    /// Top level of the configuration file.
    File,
}

impl Source {
    /// All sources, the highest precedence first.
    pub(super) const ALL: [Self; 6] =
        [Self::LateFlag, Self::Flag, Self::Variable, Self::BackendVariable, Self::BackendTable, Self::File];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// Text as written by the user.
    pub text: OsString,
    pub source: Source,
    /// Flag, variable or key, for messages.
    pub origin: String,
}

impl Value {
    /// Returns whether the value comes from the configuration file.
    #[must_use]
    pub(super) fn is_from_file(&self) -> bool {
        self.source >= Source::BackendTable
    }

    pub(super) fn text(&self) -> Result<&str, Failure> {
        self.text.to_str().ok_or_else(|| self.refuse("is not valid UTF-8"))
    }

    #[must_use]
    pub(super) fn path(&self) -> PathBuf {
        Path::new(&self.text).to_owned()
    }

    /// Parses the value; an error names the origin.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Failure> {
        parse(self.text()?).map_err(|why| self.refuse(why))
    }

    /// Parses the value of a switch. Variables of a backend's own tools accept the same spellings as in those tools.
    pub(super) fn boolean(&self) -> Result<bool, Failure> {
        let lenient = self.source == Source::BackendVariable;
        self.parse(|text| match text {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            "t" | "T" | "TRUE" | "True" if lenient => Ok(true),
            "f" | "F" | "FALSE" | "False" if lenient => Ok(false),
            _ => Err(format!("`{text}` is not one of 1, 0, true, false")),
        })
    }

    /// Returns a usage failure about this value.
    pub(super) fn refuse(&self, why: impl fmt::Display) -> Failure {
        Failure::usage(format!("{}: {why}", self.origin))
    }
}
