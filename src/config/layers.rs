//! Where a setting's value comes from: flag, `DISTLOCK_` variable, the backend's own variable, configuration file, in
//! this order.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::File;
use crate::cli::Flags;
use crate::cli::options::{self, Opt};
use crate::lock::Name;
use distlock_core::error::Failure;

/// Reads a variable of the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The layers, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// A flag after the subcommand: it stands later in the line than those before it.
    LateFlag,
    /// A flag before the subcommand, or where there is none.
    Flag,
    /// A `DISTLOCK_` variable.
    Variable,
    /// A variable of the backend's own tools.
    Own,
    /// The backend's table in the configuration file.
    Table,
    /// The top of the configuration file.
    File,
}

impl Layer {
    /// All of them, in this order.
    pub(super) const ALL: [Self; 6] = [Self::LateFlag, Self::Flag, Self::Variable, Self::Own, Self::Table, Self::File];
}

/// A value and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// As it was written.
    pub text: OsString,
    /// The layer that it comes from.
    pub layer: Layer,
    /// The flag, variable or key, as a message names it.
    pub source: String,
}

/// All layers of one invocation.
pub(super) struct Layers<'a> {
    /// The command line's.
    pub flags: &'a Flags,
    /// The environment's.
    pub environment: Environment<'a>,
    /// The configuration file's.
    pub file: File,
    /// The backend whose own variables and table count, once it is chosen.
    pub backend: Option<Name>,
}

/// Variables of the backends' own tools that mean the same as one of our options.
const OWN: &[(Name, &str, &str)] = &[
    (Name::Etcd, "endpoints", "ETCDCTL_ENDPOINTS"),
    (Name::Etcd, "connect-timeout", "ETCDCTL_DIAL_TIMEOUT"),
    (Name::Etcd, "cacert", "ETCDCTL_CACERT"),
    (Name::Etcd, "cert", "ETCDCTL_CERT"),
    (Name::Etcd, "key", "ETCDCTL_KEY"),
    (Name::Etcd, "insecure-skip-tls-verify", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY"),
    (Name::Consul, "endpoints", "CONSUL_HTTP_ADDR"),
    (Name::Consul, "cacert", "CONSUL_CACERT"),
    (Name::Consul, "cert", "CONSUL_CLIENT_CERT"),
    (Name::Consul, "key", "CONSUL_CLIENT_KEY"),
    (Name::Consul, "tls-server-name", "CONSUL_TLS_SERVER_NAME"),
    (Name::Consul, "token-file", "CONSUL_HTTP_TOKEN_FILE"),
    (Name::Consul, "namespace", "CONSUL_NAMESPACE"),
    (Name::Consul, "partition", "CONSUL_PARTITION"),
];

impl Layers<'_> {
    /// The value of this option, from the strongest layer that has one.
    #[must_use]
    pub(super) fn get(&self, id: &str) -> Option<Value> {
        Layer::ALL.into_iter().find_map(|layer| self.at(layer, id))
    }

    /// Whether this switch is on.
    pub(super) fn is_on(&self, id: &str) -> Result<bool, Failure> {
        self.get(id).map_or(Ok(false), |value| value.boolean())
    }

    /// The value of this option as text.
    pub(super) fn text(&self, id: &str) -> Result<Option<String>, Failure> {
        self.get(id).map(|value| value.text().map(ToOwned::to_owned)).transpose()
    }

    /// Which of two options that contradict each other counts: that of the stronger layer, whatever a weaker one says.
    /// A switch that is off contradicts nothing, and hides the same switch in weaker layers.
    pub(super) fn stronger(&self, switch: &str, other: &str) -> Result<Option<(&'static Opt, Value)>, Failure> {
        let mut off = false;
        for layer in Layer::ALL {
            let set = |id, off: bool| match self.at(layer, id).filter(|_| !off) {
                Some(value) if is_switch(id) => Ok(Some((value.boolean()?, value))),
                value => Ok(value.map(|value| (true, value))),
            };
            let (first, second) = (set(switch, off)?, set(other, false)?);
            off |= matches!(first, Some((false, _)));
            match (first.filter(|(on, _)| *on), second.filter(|(on, _)| *on)) {
                (Some((_, a)), Some((_, b))) => {
                    return Err(Failure::usage(format!("{} and {} contradict each other", a.source, b.source))
                        .hint("leave one of them out"));
                }
                (Some((_, value)), None) => return Ok(options::find(switch).map(|option| (option, value))),
                (None, Some((_, value))) => return Ok(options::find(other).map(|option| (option, value))),
                (None, None) => (),
            }
        }
        Ok(None)
    }

    /// A variable of the environment that is set and not empty.
    #[must_use]
    pub(super) fn variable(&self, name: &str) -> Option<Value> {
        let text = (self.environment)(name).filter(|text| !text.is_empty())?;
        Some(Value { text, layer: Layer::Own, source: name.to_owned() })
    }

    /// What this layer says of the option.
    #[must_use]
    pub(super) fn at(&self, layer: Layer, id: &str) -> Option<Value> {
        let option = options::find(id)?;
        match layer {
            Layer::LateFlag => self.flag(0, layer, id),
            Layer::Flag => self.flag(1, layer, id),
            Layer::Variable => self.variable(&option.variable()?).map(|value| Value { layer, ..value }),
            Layer::Own => {
                let own = |(backend, own, _): &&(Name, &str, &str)| Some(*backend) == self.backend && *own == id;
                self.variable(OWN.iter().find(own)?.2)
            }
            Layer::Table => self.file.get(Some(self.backend?), option),
            Layer::File => self.file.get(None, option),
        }
    }

    fn flag(&self, level: usize, layer: Layer, id: &str) -> Option<Value> {
        let text = self.flags.at(level, id)?.clone();
        Some(Value { text, layer, source: format!("--{id}") })
    }
}

fn is_switch(id: &str) -> bool {
    options::find(id).is_some_and(|option| option.value.is_none())
}

impl Value {
    /// Whether it stands in the configuration file.
    #[must_use]
    pub(super) fn is_from_file(&self) -> bool {
        self.layer >= Layer::Table
    }

    /// The value as text.
    pub(super) fn text(&self) -> Result<&str, Failure> {
        self.text.to_str().ok_or_else(|| self.refuse("is not valid UTF-8"))
    }

    /// The value as a path.
    #[must_use]
    pub(super) fn path(&self) -> PathBuf {
        Path::new(&self.text).to_owned()
    }

    /// The value as `parse` reads it; a complaint names the source.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Failure> {
        parse(self.text()?).map_err(|why| self.refuse(why))
    }

    /// The value as a yes or no. The backends' own variables take what their own tools take.
    pub(super) fn boolean(&self) -> Result<bool, Failure> {
        let own = self.layer == Layer::Own;
        self.parse(|text| match text {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            "t" | "T" | "TRUE" | "True" if own => Ok(true),
            "f" | "F" | "FALSE" | "False" if own => Ok(false),
            _ => Err(format!("`{text}` is not one of 1, 0, true, false")),
        })
    }

    /// A usage failure about this value.
    pub(super) fn refuse(&self, why: impl fmt::Display) -> Failure {
        Failure::usage(format!("{}: {why}", self.source))
    }
}
