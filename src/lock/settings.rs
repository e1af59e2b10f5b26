//! The chosen backend: from checked settings to a contender.

use distlock_core::error::Failure;
use distlock_core::name;

use super::backend::{Backend, BackendName, LockSpec, LogFn};
use super::probe::{Findings, ProbeRequest};
use super::transport::endpoint::{Identity, Server};
use super::{consul, etcd, local, unlocked};

/// Settings of the chosen backend.
#[derive(Clone, Debug)]
pub(crate) enum BackendSettings {
    Etcd(Server),
    Consul(Server, consul::Options),
    Local(local::Directory),
}

impl BackendSettings {
    /// Checks `name`, and opens what must be open before the fork.
    pub(crate) fn prepare(&self, name: &str) -> Result<PreparedBackend, Failure> {
        name::check(name)?;
        match self {
            Self::Etcd(server) => etcd::check_name(name).map(|()| PreparedBackend::Etcd(server.clone())),
            Self::Consul(server, options) => {
                consul::check_name(name).map(|()| PreparedBackend::Consul(server.clone(), options.clone()))
            }
            Self::Local(directory) => directory.open(name).map(PreparedBackend::Local),
        }
    }

    /// Checks whether a lock can be acquired, without acquiring one. Needs a tokio runtime. Fails if the name or the TLS
    /// files are refused before any request.
    pub(crate) async fn probe(&self, request: &ProbeRequest, log: LogFn) -> Result<Findings, Failure> {
        install_tls();
        match self {
            Self::Etcd(server) => Box::pin(etcd::probe::probe(server, request, log)).await,
            Self::Consul(server, options) => consul::probe::probe(server, options, request, log).await,
            Self::Local(directory) => local::probe::probe(directory, request),
        }
    }

    /// Returns the endpoints as users write them.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<String> {
        match self {
            Self::Etcd(server) | Self::Consul(server, _) => server.endpoints.iter().map(ToString::to_string).collect(),
            Self::Local(directory) => vec![format!("file://{}", directory.0.display())],
        }
    }

    /// Returns the credentials; None if the backend needs none.
    pub(crate) fn identity(&mut self) -> Option<&mut Identity> {
        match self {
            Self::Etcd(server) | Self::Consul(server, _) => Some(&mut server.identity),
            Self::Local(_) => None,
        }
    }

    #[must_use]
    pub(crate) fn name(&self) -> BackendName {
        match self {
            Self::Etcd(_) => BackendName::Etcd,
            Self::Consul(..) => BackendName::Consul,
            Self::Local(_) => BackendName::Local,
        }
    }
}

/// The chosen backend before the fork: files are open, nothing is connected.
#[derive(Debug)]
pub enum PreparedBackend {
    Etcd(Server),
    Consul(Server, consul::Options),
    /// The open lock file, which all processes of the job keep open.
    Local(local::LockFile),
    /// No lock (`--no-lock`).
    Unlocked,
}

impl PreparedBackend {
    /// Creates a contender that has sent nothing yet. Needs a tokio runtime.
    pub fn contender(&self, spec: LockSpec, log: LogFn) -> Result<Box<dyn Backend>, Failure> {
        install_tls();
        Ok(match self {
            Self::Etcd(server) => Box::new(etcd::Contender::new(server, spec, log)?),
            Self::Consul(server, options) => Box::new(consul::Contender::new(server, options, spec, log)?),
            Self::Local(file) => Box::new(local::Contender::new(file, spec)?),
            Self::Unlocked => Box::new(unlocked::Contender),
        })
    }

    /// Creates a contender for a lease or session of another process. It can only be released.
    pub fn adopt_lease(&self, spec: LockSpec, lease_id: &str, log: LogFn) -> Result<Box<dyn Backend>, Failure> {
        install_tls();
        Ok(match self {
            Self::Etcd(server) => Box::new(etcd::Contender::adopt_lease(server, spec, lease_id, log)?),
            Self::Consul(server, options) => {
                Box::new(consul::Contender::adopt_lease(server, options, spec, lease_id, log)?)
            }
            Self::Local(file) => Box::new(local::Contender::new(file, spec)?),
            Self::Unlocked => Box::new(unlocked::Contender),
        })
    }
}

/// Makes ring the TLS implementation of the process, which both clients use.
fn install_tls() {
    // It fails if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
