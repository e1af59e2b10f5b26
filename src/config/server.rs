//! Choice of the backend, and its settings: addresses, TLS, identity, Consul's session.

use std::path::PathBuf;
use std::time::Duration;

use distlock_core::consul::limits;
use distlock_core::duration;
use distlock_core::error::Failure;

use super::endpoints::{self, Address, CONSUL_AGENT, SchemeDefault};
use super::sources::Sources;
use super::value::{Source, Value};
use super::{identity, lease_terms};
use crate::cli::options::{Group, OPTIONS};
use crate::lock::transport::endpoint::{Endpoint, Server, Tls};
use crate::lock::{BackendName, BackendSettings, consul, local};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Chooses the backend, and returns its settings after checking the terms of the lease.
pub(super) fn resolve(sources: &mut Sources) -> Result<BackendSettings, Failure> {
    let name = choose(sources)?;
    sources.backend = Some(name);
    let ttl = lease_terms::ttl(sources)?;
    let settings = match name {
        BackendName::Etcd => BackendSettings::Etcd(server(sources, name)?),
        BackendName::Consul => BackendSettings::Consul(server(sources, name)?, consul_options(sources, ttl)?),
        BackendName::Local => BackendSettings::Local(directory(sources)?),
    };
    lease_terms::check(sources, &settings)?;
    Ok(settings)
}

pub(super) fn connect_timeout(sources: &Sources) -> Result<Duration, Failure> {
    let timeout = sources.parse("connect-timeout", |text| match duration::parse(text)? {
        Duration::ZERO => Err("must be greater than zero".to_owned()),
        duration => Ok(duration),
    })?;
    Ok(timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT))
}

/// Returns the named backend, or the only one that has an address.
fn choose(sources: &Sources) -> Result<BackendName, Failure> {
    if let Some(value) = sources.get("backend") {
        return value.parse(|text| {
            BackendName::parse(text).ok_or_else(|| format!("`{text}` is not one of etcd, consul, local"))
        });
    }
    let addressed: Vec<_> = [BackendName::Etcd, BackendName::Consul, BackendName::Local]
        .into_iter()
        .filter_map(|name| Some((name, address_origin(sources, name)?)))
        .collect();
    let hint =
        "choose one: -b etcd, -b consul or -b local (or set DISTLOCK_BACKEND, or `backend` in the configuration file)";
    match addressed.as_slice() {
        [(name, _)] => Ok(*name),
        [] => Err(Failure::usage(match sources.get("endpoints") {
            Some(value) => format!("no backend is chosen, and none follows from {}", value.origin),
            None => "no backend is chosen, and none has an address".to_owned(),
        })
        .hint(hint)),
        several => {
            let failure = Failure::usage("no backend is chosen, and more than one has an address").hint(hint);
            Err(several.iter().fold(failure, |failure, (name, origin)| failure.because(format!("{name}: {origin}"))))
        }
    }
}

/// Returns the setting that gives this backend an address.
fn address_origin(sources: &Sources, name: BackendName) -> Option<String> {
    let variables: &[&str] = match name {
        BackendName::Etcd => &["ETCDCTL_ENDPOINTS", "ETCDCTL_DISCOVERY_SRV"],
        BackendName::Consul => &["CONSUL_HTTP_ADDR"],
        BackendName::Local => &[],
    };
    let by_scheme =
        || sources.get("endpoints").filter(|value| endpoints::scheme_implies(&value.text.to_string_lossy(), name));
    let value = variables.iter().find_map(|variable| sources.variable(variable));
    value.or_else(|| sources.file.value(Some(name), "endpoints")).or_else(by_scheme).map(|value| value.origin)
}

/// Returns the origin of the chosen backend's addresses.
#[must_use]
pub(super) fn endpoints_origin(sources: &Sources, name: BackendName) -> String {
    let value = discovery(sources, name).or_else(|| sources.get("endpoints"));
    value.map_or_else(|| "the default".to_owned(), |value| value.origin)
}

/// Returns the domain whose SRV records list the servers. As in etcdctl, it beats `ETCDCTL_ENDPOINTS`.
fn discovery(sources: &Sources, name: BackendName) -> Option<Value> {
    let applies = || sources.get("endpoints").is_none_or(|value| value.source >= Source::BackendVariable);
    sources.variable("ETCDCTL_DISCOVERY_SRV").filter(|_| name == BackendName::Etcd && applies())
}

/// Refuses flags for a server with the local backend. Variables and keys are ignored: they may be meant for other locks.
fn refuse_server_flags(sources: &Sources) -> Result<(), Failure> {
    let server_options = OPTIONS.iter().filter(|option| matches!(option.group, Group::Tls | Group::Identity));
    let mut flags = server_options.flat_map(|option| {
        [Source::LateFlag, Source::Flag].into_iter().filter_map(|source| sources.at(source, option.id))
    });
    match flags.next() {
        None => Ok(()),
        Some(value) => {
            Err(value.refuse("does not apply to the local backend").hint("remove it, or choose -b etcd or -b consul"))
        }
    }
}

fn directory(sources: &Sources) -> Result<local::Directory, Failure> {
    refuse_server_flags(sources)?;
    let Some(value) = sources.get("endpoints") else { return Ok(local::Directory::standard()) };
    let addresses = value.parse(|list| endpoints::parse(list, BackendName::Local, SchemeDefault::Http))?;
    match addresses.as_slice() {
        [Address::Directory(path)] => Ok(local::Directory(path.clone())),
        _ => Err(value.refuse("the local backend takes one directory: two would be two locks")),
    }
}

fn server(sources: &Sources, name: BackendName) -> Result<Server, Failure> {
    if name == BackendName::Etcd {
        refuse_consul_options(sources)?;
    }
    let tls = tls(sources, name)?;
    let endpoints = addresses(sources, name, &tls)?;
    let identity = identity::resolve(sources, name)?;
    Ok(Server { endpoints, tls, identity })
}

/// Refuses options that etcd does not have. If a namespace was ignored, the lock would be outside of it.
fn refuse_consul_options(sources: &Sources) -> Result<(), Failure> {
    match ["token-file", "namespace", "partition", "datacenter"].into_iter().find_map(|id| sources.get(id)) {
        None => Ok(()),
        Some(value) => Err(value.refuse("does not apply to etcd").hint("remove it, or choose -b consul")),
    }
}

fn addresses(sources: &Sources, name: BackendName, tls: &Tls) -> Result<Vec<Endpoint>, Failure> {
    let tls_switched_on = is_switched(sources, name, BackendName::Consul, "CONSUL_HTTP_SSL", true)?
        || is_switched(sources, name, BackendName::Etcd, "ETCDCTL_INSECURE_TRANSPORT", false)?;
    let scheme_default = |is_backends_own: bool| -> Result<SchemeDefault, Failure> {
        let has_tls = tls_switched_on
            || if is_backends_own { own_addresses_have_tls(sources, name)? } else { *tls != Tls::default() };
        Ok(if has_tls { SchemeDefault::Https } else { SchemeDefault::Http })
    };
    let parse = |list: &str, default| endpoints::parse(list, name, default);
    if let Some(value) = discovery(sources, name) {
        let secure = scheme_default(true)? == SchemeDefault::Https;
        return Ok(vec![Endpoint::Discovered { domain: value.parse(endpoints::domain)?, secure }]);
    }
    let addresses = match (sources.get("endpoints"), name) {
        (Some(value), BackendName::Consul) if tls_switched_on && value.source == Source::BackendVariable => {
            value.parse(|list| parse(list, SchemeDefault::AlwaysHttps))?
        }
        (Some(value), _) => {
            let default = scheme_default(value.source == Source::BackendVariable)?;
            value.parse(|list| parse(list, default))?
        }
        (None, BackendName::Consul) => parse(CONSUL_AGENT, scheme_default(true)?).map_err(Failure::fault)?,
        (None, _) => {
            return Err(Failure::usage("etcd has no address, and there is no default").hint(
                "name the servers with -e https://HOST:2379,... (or set DISTLOCK_ENDPOINTS, ETCDCTL_ENDPOINTS or \
                 ETCDCTL_DISCOVERY_SRV)",
            ));
        }
    };
    let endpoint = |address| match address {
        Address::Server(endpoint) => Some(endpoint),
        Address::Directory(_) => None,
    };
    Ok(addresses.into_iter().filter_map(endpoint).collect())
}

/// Returns whether addresses without a scheme from the backend's own variables, and its default address, use TLS. The
/// backend's own variables have the meaning that they have in its tools: for etcdctl, the TLS files imply https; for
/// consul, only `CONSUL_HTTP_SSL` does. distlock's own TLS settings imply https for all addresses.
fn own_addresses_have_tls(sources: &Sources, name: BackendName) -> Result<bool, Failure> {
    const FILES: [&str; 3] = ["cacert", "cert", "key"];
    let distlocks = |id| {
        let mut others = Source::ALL.into_iter().filter(|source| *source != Source::BackendVariable);
        others.find_map(|source| sources.at(source, id))
    };
    let etcdctls =
        FILES.iter().any(|id| name == BackendName::Etcd && sources.at(Source::BackendVariable, id).is_some());
    let is_given = etcdctls || FILES.iter().chain(&["tls-server-name"]).any(|id| distlocks(id).is_some());
    Ok(is_given || distlocks("insecure-skip-tls-verify").map_or(Ok(false), |value| value.boolean())?)
}

/// Returns whether a switch of the backend `of`'s own tools is set to `state`. False if another backend is chosen.
fn is_switched(
    sources: &Sources,
    chosen: BackendName,
    of: BackendName,
    variable: &str,
    state: bool,
) -> Result<bool, Failure> {
    match sources.variable(variable).filter(|_| chosen == of) {
        None => Ok(false),
        Some(value) => Ok(value.boolean()? == state),
    }
}

fn tls(sources: &Sources, name: BackendName) -> Result<Tls, Failure> {
    let file = |id| sources.get(id).as_ref().map(readable).transpose();
    let capath = sources.variable("CONSUL_CAPATH").filter(|_| name == BackendName::Consul);
    let skip = sources.get("insecure-skip-tls-verify");
    let tls = Tls {
        cacert: file("cacert")?,
        capath: capath.as_ref().map(readable).transpose()?,
        cert: file("cert")?,
        key: file("key")?,
        server_name: sources.text("tls-server-name")?,
        insecure_skip_verify: match skip {
            // The precedence of CONSUL_HTTP_SSL_VERIFY is below DISTLOCK_ variables and above the file.
            Some(value) if !value.is_from_file() => value.boolean()?,
            _ if name == BackendName::Consul && sources.variable("CONSUL_HTTP_SSL_VERIFY").is_some() => {
                is_switched(sources, name, BackendName::Consul, "CONSUL_HTTP_SSL_VERIFY", false)?
            }
            other => other.map_or(Ok(false), |value| value.boolean())?,
        },
    };
    match (&tls.cert, &tls.key) {
        (Some(_), None) => Err(Failure::usage("client certificate without a private key").hint("add --key")),
        (None, Some(_)) => Err(Failure::usage("private key without a client certificate").hint("add --cert")),
        _ => Ok(tls),
    }
}

/// Returns the path of a file or directory after a check that it can be opened.
fn readable(value: &Value) -> Result<PathBuf, Failure> {
    let path = value.path();
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(value.refuse(format!("cannot read {}", path.display())).because(error)),
    }
}

fn consul_options(sources: &Sources, ttl: Duration) -> Result<consul::Options, Failure> {
    let lock_delay = match sources.file.value(Some(BackendName::Consul), "lock_delay") {
        None => ttl.min(limits::MAX_LOCK_DELAY),
        Some(value) => {
            let delay = value.parse(duration::parse)?;
            limits::check_lock_delay(delay)
                .map_err(|failure| Failure { hint: failure.hint, ..value.refuse(failure.message) })?;
            delay
        }
    };
    Ok(consul::Options { lock_delay, health_checks: sources.file.list(BackendName::Consul, "health_checks") })
}
