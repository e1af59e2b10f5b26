//! Who may talk to whom, what is said of it when they may not, and that secrets stay secret.

mod permissions;
mod discovery;
mod scope;
mod secrets;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use crate::world::{Authority, Consul, Etcd, Finished, Run, Server, ServerTls, Version, World};

/// One server of each kind that shows a certificate which `show` makes, and which asks for a client's if `mutual`.
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

/// What is known from the first answer is told long before [`patient`] would give up.
const AT_ONCE: Duration = Duration::from_secs(30);

/// distlock that waits longer for an answer than it does unasked.
fn patient(world: &World) -> Run {
    world.distlock().args(["--connect-timeout", "100s"])
}

/// The same, trusting the authority of this file.
fn trusting(world: &World, cacert: &PathBuf) -> Run {
    patient(world).args(["--cacert"]).args([cacert])
}

/// Asserts that the one error names each of these.
#[track_caller]
fn assert_told(job: &Finished, words: &[&str]) {
    assert_eq!(job.stderr.matches("distlock: error: ").count(), 1, "{}", job.describe());
    for word in words {
        assert!(job.stderr.contains(word), "no {word:?}: {}", job.describe());
    }
}
