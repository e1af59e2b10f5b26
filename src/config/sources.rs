//! Sources of settings, and their precedence: flag, `DISTLOCK_` variable, the backend's own variable, configuration file.

use distlock_core::error::Failure;

use super::environment::{Environment, Variables};
use super::file::File;
use super::value::{Source, Value};
use crate::cli::Flags;
use crate::cli::options::{self, Opt};
use crate::lock::BackendName;

/// All sources of one invocation.
pub(super) struct Sources<'a> {
    pub flags: &'a Flags,
    pub variables: Variables<'a>,
    pub file: File,
    /// The backend whose own variables and table count, once it is chosen.
    pub backend: Option<BackendName>,
}

/// Variables of the backends' own tools, and the options that they set.
const BACKEND_VARIABLES: &[(BackendName, &str, &str)] = &[
    (BackendName::Etcd, "endpoints", "ETCDCTL_ENDPOINTS"),
    (BackendName::Etcd, "connect-timeout", "ETCDCTL_DIAL_TIMEOUT"),
    (BackendName::Etcd, "cacert", "ETCDCTL_CACERT"),
    (BackendName::Etcd, "cert", "ETCDCTL_CERT"),
    (BackendName::Etcd, "key", "ETCDCTL_KEY"),
    (BackendName::Etcd, "insecure-skip-tls-verify", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY"),
    (BackendName::Consul, "endpoints", "CONSUL_HTTP_ADDR"),
    (BackendName::Consul, "cacert", "CONSUL_CACERT"),
    (BackendName::Consul, "cert", "CONSUL_CLIENT_CERT"),
    (BackendName::Consul, "key", "CONSUL_CLIENT_KEY"),
    (BackendName::Consul, "tls-server-name", "CONSUL_TLS_SERVER_NAME"),
    (BackendName::Consul, "token-file", "CONSUL_HTTP_TOKEN_FILE"),
    (BackendName::Consul, "namespace", "CONSUL_NAMESPACE"),
    (BackendName::Consul, "partition", "CONSUL_PARTITION"),
];

impl<'a> Sources<'a> {
    /// Returns flags and variables as sources, without a configuration file and with no backend chosen.
    #[must_use]
    pub(super) fn without_file(flags: &'a Flags, environment: &Environment<'a>) -> Self {
        Self { flags, variables: environment.variables, file: File::default(), backend: None }
    }

    /// Reads the configuration file, and returns all sources with no backend chosen.
    pub(super) fn read(flags: &'a Flags, environment: &Environment<'a>) -> Result<Self, Failure> {
        refuse_reserved(environment.variables)?;
        let sources = Self::without_file(flags, environment);
        let config = sources.get("config");
        let path = config.as_ref().map_or_else(|| environment.default_file.clone(), Value::path);
        Ok(Self { file: File::read(&path, config.as_ref())?, ..sources })
    }

    /// Returns the option's value with the highest precedence.
    #[must_use]
    pub(super) fn get(&self, id: &str) -> Option<Value> {
        Source::ALL.into_iter().find_map(|source| self.at(source, id))
    }

    /// Returns whether this switch is on.
    pub(super) fn is_on(&self, id: &str) -> Result<bool, Failure> {
        self.get(id).map_or(Ok(false), |value| value.boolean())
    }

    pub(super) fn text(&self, id: &str) -> Result<Option<String>, Failure> {
        self.get(id).map(|value| value.text().map(ToOwned::to_owned)).transpose()
    }

    /// Parses the option's value, if it is set.
    pub(super) fn parse<T>(&self, id: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
        self.get(id).map(|value| value.parse(parse)).transpose()
    }

    /// Returns which of two contradicting options applies: the one with the higher precedence. A switch that is off
    /// contradicts nothing, and hides the same switch in sources of lower precedence.
    pub(super) fn applicable(&self, switch: &str, other: &str) -> Result<Option<(&'static Opt, Value)>, Failure> {
        let mut switched_off = false;
        for source in Source::ALL {
            let set = |id, hidden: bool| match self.at(source, id).filter(|_| !hidden) {
                Some(value) if is_switch(id) => Ok(Some((value.boolean()?, value))),
                value => Ok(value.map(|value| (true, value))),
            };
            let (first, second) = (set(switch, switched_off)?, set(other, false)?);
            switched_off |= matches!(first, Some((false, _)));
            match (first.filter(|(on, _)| *on), second.filter(|(on, _)| *on)) {
                (Some((_, a)), Some((_, b))) => {
                    return Err(Failure::usage(format!("{} and {} contradict each other", a.origin, b.origin))
                        .hint("remove one of them"));
                }
                (Some((_, value)), None) => return Ok(options::find(switch).map(|option| (option, value))),
                (None, Some((_, value))) => return Ok(options::find(other).map(|option| (option, value))),
                (None, None) => (),
            }
        }
        Ok(None)
    }

    /// Returns an environment variable of a backend's own tools, unless it is empty.
    #[must_use]
    pub(super) fn variable(&self, name: &str) -> Option<Value> {
        let text = (self.variables)(name).filter(|text| !text.is_empty())?;
        Some(Value { text, source: Source::BackendVariable, origin: name.to_owned() })
    }

    /// Returns the option's value from one source.
    #[must_use]
    pub(super) fn at(&self, source: Source, id: &str) -> Option<Value> {
        let option = options::find(id)?;
        match source {
            Source::LateFlag => self.flag(0, source, id),
            Source::Flag => self.flag(1, source, id),
            Source::Variable => self.variable(&option.variable()?).map(|value| Value { source, ..value }),
            Source::BackendVariable => {
                let backend = self.backend?;
                let (_, _, name) = BACKEND_VARIABLES.iter().find(|row| (row.0, row.1) == (backend, id))?;
                self.variable(name)
            }
            Source::BackendTable => self.file.get(Some(self.backend?), option),
            Source::File => self.file.get(None, option),
        }
    }

    fn flag(&self, level: usize, source: Source, id: &str) -> Option<Value> {
        let text = self.flags.at(level, id)?.clone();
        Some(Value { text, source, origin: format!("--{id}") })
    }
}

fn is_switch(id: &str) -> bool {
    options::find(id).is_some_and(|option| option.value.is_none())
}

/// Refuses variables of options of later versions: ignoring one could change the meaning of a lock.
fn refuse_reserved(variables: Variables) -> Result<(), Failure> {
    for (id, _) in options::RESERVED {
        let variable = options::variable(id);
        if variables(&variable).is_some_and(|value| !value.is_empty()) {
            return Err(
                Failure::usage(format!("{variable}: {}", options::not_available(id))).hint(format!("unset {variable}"))
            );
        }
    }
    Ok(())
}
