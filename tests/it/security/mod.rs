//! TLS, credentials and permissions, the errors that report their absence, and the secrecy of secrets.

mod discovery;
mod permissions;
mod scope;
mod secrets;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use crate::world::{Authority, Consul, Etcd, Finished, Run, Server, ServerTls, Version, World};

/// Starts one server of each kind with a certificate for these names; it requires client certificates if `mutual`.
fn servers(authority: &Authority, mutual: bool, names: &[&str]) -> Vec<Box<dyn Server>> {
    servers_with(&ServerTls { pem: authority.server(names), clients: mutual.then(|| authority.cacert()) })
}

fn servers_with(tls: &ServerTls) -> Vec<Box<dyn Server>> {
    vec![
        Box::new(Etcd::start_secure(Version::V34, tls, 300)),
        Box::new(Etcd::start_secure(Version::V35, tls, 300)),
        Box::new(Consul::start_open(tls)),
    ]
}

/// Bound for failures that must not wait for the connect timeout of [`patient`].
const IMMEDIATELY: Duration = Duration::from_secs(30);

/// Returns distlock with a connect timeout far beyond the default.
fn patient(world: &World) -> Run {
    world.distlock().args(["--connect-timeout", "100s"])
}

/// Returns [`patient`] distlock that trusts this CA certificate.
fn trusting(world: &World, cacert: &PathBuf) -> Run {
    patient(world).args(["--cacert"]).args([cacert])
}

/// Asserts that stderr has exactly one error, and contains each of these words.
#[track_caller]
fn assert_error_names(job: &Finished, words: &[&str]) {
    assert_eq!(job.stderr.matches("distlock: error: ").count(), 1, "{}", job.describe());
    for word in words {
        assert!(job.stderr.contains(word), "no {word:?}: {}", job.describe());
    }
}
