//! The way to the lock: which backend, at which addresses, with which TLS files and which identity.

use std::path::PathBuf;
use std::time::Duration;

use super::endpoints::{self, Address, CONSUL_AGENT, Plain};
use super::identity;
use super::layers::{Layer, Layers, Value};
use crate::cli::options::{Group, OPTIONS};
use crate::lock::transport::endpoint::{Endpoint, Server, Tls};
use crate::lock::{Name, Settings, consul, local};
use distlock_core::duration;
use distlock_core::error::Failure;

/// Consul keeps a lock closed for no longer than this after its session was lost.
const LONGEST_LOCK_DELAY: Duration = Duration::from_secs(60);

/// The backend that was named, or else the one that has an address.
pub(super) fn choose(layers: &Layers) -> Result<Name, Failure> {
    if let Some(value) = layers.get("backend") {
        return value.parse(|text| Name::of(text).ok_or_else(|| format!("`{text}` is not one of etcd, consul, local")));
    }
    let addressed: Vec<_> = [Name::Etcd, Name::Consul, Name::Local]
        .into_iter()
        .filter_map(|name| Some((name, has_address(layers, name)?)))
        .collect();
    let way_out =
        "choose one: -b etcd, -b consul or -b local (also DISTLOCK_BACKEND, or `backend` in the configuration file)";
    match addressed.as_slice() {
        [(name, _)] => Ok(*name),
        [] => Err(Failure::usage(match layers.get("endpoints") {
            Some(value) => format!("no backend is chosen, and {} does not tell which it is for", value.source),
            None => "no backend is chosen, and none has an address".to_owned(),
        })
        .hint(way_out)),
        several => {
            let failure = Failure::usage("no backend is chosen, and more than one has an address").hint(way_out);
            Err(several.iter().fold(failure, |failure, (name, source)| failure.because(format!("{name}: {source}"))))
        }
    }
}

/// What gives this backend an address, if anything does.
fn has_address(layers: &Layers, name: Name) -> Option<String> {
    let variables: &[&str] = match name {
        Name::Etcd => &["ETCDCTL_ENDPOINTS", "ETCDCTL_DISCOVERY_SRV"],
        Name::Consul => &["CONSUL_HTTP_ADDR"],
        Name::Local => &[],
    };
    let by_scheme =
        || layers.get("endpoints").filter(|value| endpoints::speak_for(&value.text.to_string_lossy(), name));
    let value = variables.iter().find_map(|variable| layers.variable(variable));
    value.or_else(|| layers.file.value(Some(name), "endpoints")).or_else(by_scheme).map(|value| value.source)
}

/// How the chosen backend is reached. `ttl` is the lease time that will be asked for.
pub(super) fn settings(layers: &Layers, name: Name, ttl: Duration) -> Result<Settings, Failure> {
    Ok(match name {
        Name::Etcd => Settings::Etcd(server(layers, name)?),
        Name::Consul => Settings::Consul(server(layers, name)?, consul_options(layers, ttl)?),
        Name::Local => Settings::Local(directory(layers)?),
    })
}

/// What gave the chosen backend its addresses.
#[must_use]
pub(super) fn source(layers: &Layers, name: Name) -> String {
    let named = discovery(layers, name).or_else(|| layers.get("endpoints"));
    named.map_or_else(|| "the default".to_owned(), |value| value.source)
}

/// The domain whose servers DNS tells of. As etcdctl has it: of its two variables, this is the stronger.
fn discovery(layers: &Layers, name: Name) -> Option<Value> {
    let stronger = || layers.get("endpoints").is_none_or(|named| named.layer >= Layer::Own);
    layers.variable("ETCDCTL_DISCOVERY_SRV").filter(|_| name == Name::Etcd && stronger())
}

/// A flag that secures the way to a server means that somebody expects one. A variable or a file may be there for
/// other locks.
fn refuse_what_is_servers(layers: &Layers) -> Result<(), Failure> {
    let of_servers = OPTIONS.iter().filter(|option| matches!(option.group, Group::Tls | Group::Identity));
    let mut flags = of_servers
        .flat_map(|option| [Layer::LateFlag, Layer::Flag].into_iter().filter_map(|layer| layers.at(layer, option.id)));
    match flags.next() {
        None => Ok(()),
        Some(value) => Err(value
            .refuse("means nothing on the local backend")
            .hint("it is for a server: choose -b etcd or -b consul, or leave it out")),
    }
}

fn directory(layers: &Layers) -> Result<local::Directory, Failure> {
    refuse_what_is_servers(layers)?;
    let Some(value) = layers.get("endpoints") else { return Ok(local::Directory::standard()) };
    let addresses = value.parse(|list| endpoints::parse(list, Name::Local, Plain::Http))?;
    match addresses.as_slice() {
        [Address::Directory(path)] => Ok(local::Directory(path.clone())),
        _ => Err(value.refuse("the local backend has one directory: two would be two locks")),
    }
}

fn server(layers: &Layers, name: Name) -> Result<Server, Failure> {
    if name == Name::Etcd {
        refuse_what_is_consuls(layers)?;
    }
    let tls = tls(layers, name)?;
    let endpoints = addresses(layers, name, &tls)?;
    let identity = identity::resolve(layers, name)?;
    Ok(Server { endpoints, tls, identity })
}

/// Options that etcd has no counterpart for are refused rather than passed over: who sets a namespace does not want
/// a lock outside of it.
fn refuse_what_is_consuls(layers: &Layers) -> Result<(), Failure> {
    match ["token-file", "namespace", "partition", "datacenter"].into_iter().find_map(|id| layers.get(id)) {
        None => Ok(()),
        Some(value) => Err(value.refuse("means nothing on etcd").hint("it is for the backend consul")),
    }
}

fn addresses(layers: &Layers, name: Name, tls: &Tls) -> Result<Vec<Endpoint>, Failure> {
    let forced = on(layers, name, Name::Consul, "CONSUL_HTTP_SSL", true)?
        || on(layers, name, Name::Etcd, "ETCDCTL_INSECURE_TRANSPORT", false)?;
    let plain = |own: bool| -> Result<Plain, Failure> {
        let secured = forced || if own { own_address_is_secured(layers, name)? } else { *tls != Tls::default() };
        Ok(if secured { Plain::Https } else { Plain::Http })
    };
    let parse = |list: &str, plain| endpoints::parse(list, name, plain);
    let named = layers.get("endpoints");
    if let Some(value) = discovery(layers, name) {
        let secure = plain(true)? == Plain::Https;
        return Ok(vec![Endpoint::Discovered { domain: value.parse(endpoints::domain)?, secure }]);
    }
    let addresses = match (named, name) {
        (Some(value), Name::Consul) if forced && value.layer == Layer::Own => {
            value.parse(|list| parse(list, Plain::AlwaysHttps))?
        }
        (Some(value), _) => {
            let plain = plain(value.layer == Layer::Own)?;
            value.parse(|list| parse(list, plain))?
        }
        (None, Name::Consul) => parse(CONSUL_AGENT, plain(true)?).map_err(Failure::fault)?,
        (None, _) => {
            return Err(Failure::usage("etcd has no address: there is no default").hint(
                "name the servers with -e https://HOST:2379,... (also DISTLOCK_ENDPOINTS, ETCDCTL_ENDPOINTS, \
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

/// Whether an address from the backend's own variables, or where its tools look without one, is one of TLS: the settings
/// of those tools mean what they mean there (to etcdctl its files do so, to Consul's tools nothing but `CONSUL_HTTP_SSL`),
/// and ours say so for every address.
fn own_address_is_secured(layers: &Layers, name: Name) -> Result<bool, Failure> {
    const FILES: [&str; 3] = ["cacert", "cert", "key"];
    let ours = |id| Layer::ALL.into_iter().filter(|layer| *layer != Layer::Own).find_map(|layer| layers.at(layer, id));
    let etcd_s = FILES.iter().any(|id| name == Name::Etcd && layers.at(Layer::Own, id).is_some());
    let given = etcd_s || FILES.iter().chain(&["tls-server-name"]).any(|id| ours(id).is_some());
    Ok(given || ours("insecure-skip-tls-verify").map_or(Ok(false), |value| value.boolean())?)
}

/// Whether a backend's own switch is set to `state`, where that backend is the chosen one.
fn on(layers: &Layers, chosen: Name, of: Name, variable: &str, state: bool) -> Result<bool, Failure> {
    match layers.variable(variable).filter(|_| chosen == of) {
        None => Ok(false),
        Some(value) => Ok(value.boolean()? == state),
    }
}

fn tls(layers: &Layers, name: Name) -> Result<Tls, Failure> {
    let file = |id| layers.get(id).as_ref().map(readable).transpose();
    let capath = layers.variable("CONSUL_CAPATH").filter(|_| name == Name::Consul);
    let skip = layers.get("insecure-skip-tls-verify");
    let tls = Tls {
        cacert: file("cacert")?,
        capath: capath.as_ref().map(readable).transpose()?,
        cert: file("cert")?,
        key: file("key")?,
        server_name: layers.text("tls-server-name")?,
        insecure_skip_verify: match skip {
            // CONSUL_HTTP_SSL_VERIFY stands between our variables and the file.
            Some(value) if !value.is_from_file() => value.boolean()?,
            _ if name == Name::Consul && layers.variable("CONSUL_HTTP_SSL_VERIFY").is_some() => {
                on(layers, name, Name::Consul, "CONSUL_HTTP_SSL_VERIFY", false)?
            }
            other => other.map_or(Ok(false), |value| value.boolean())?,
        },
    };
    match (&tls.cert, &tls.key) {
        (Some(_), None) => {
            Err(Failure::usage("a client certificate is given without its key").hint("name it with --key"))
        }
        (None, Some(_)) => {
            Err(Failure::usage("a client's key is given without its certificate").hint("name it with --cert"))
        }
        _ => Ok(tls),
    }
}

/// A file or directory that can be opened: better to learn of it here than from a failed handshake.
fn readable(value: &Value) -> Result<PathBuf, Failure> {
    let path = value.path();
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(value.refuse(format!("cannot read {}", path.display())).because(error)),
    }
}

fn consul_options(layers: &Layers, ttl: Duration) -> Result<consul::Options, Failure> {
    let lock_delay = match layers.file.value(Some(Name::Consul), "lock_delay") {
        None => ttl.min(LONGEST_LOCK_DELAY),
        Some(value) => {
            let delay = value.parse(duration::parse)?;
            if delay > LONGEST_LOCK_DELAY {
                return Err(value.refuse("Consul's longest lock-delay is 60s"));
            }
            delay
        }
    };
    Ok(consul::Options { lock_delay, health_checks: layers.file.list(Name::Consul, "health_checks") })
}
