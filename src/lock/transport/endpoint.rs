//! Addresses, TLS settings and credentials of the servers.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;

/// Secret that is never printed and never part of an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// Returns the secret, for the request that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port`.
    Http {
        /// Host name or address (IPv6 in brackets) with the port.
        authority: String,
    },
    /// `https://host:port`.
    Https {
        /// Host name or address (IPv6 in brackets) with the port.
        authority: String,
    },
    /// `unix:///path` (Consul only).
    Unix {
        /// Path of the socket.
        path: PathBuf,
    },
    /// All servers that a domain publishes in SRV records (etcd only).
    Discovered {
        /// Domain of the cluster.
        domain: String,
        /// Refuses servers without TLS.
        secure: bool,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { authority } => write!(f, "http://{authority}"),
            Self::Https { authority } => write!(f, "https://{authority}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
            Self::Discovered { domain, .. } => write!(f, "_etcd-client._tcp.{domain}"),
        }
    }
}

/// TLS settings of the connections to all servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the CA certificates to trust instead of the system's.
    pub cacert: Option<PathBuf>,
    /// Directory of PEM files of CA certificates (`CONSUL_CAPATH`).
    pub capath: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the client certificate's private key.
    pub key: Option<PathBuf>,
    /// Name to expect in the server's certificate instead of the endpoint's host.
    pub server_name: Option<String>,
    /// Accepts any certificate of the server.
    pub insecure_skip_verify: bool,
}

/// Credentials, and the scope that they are used in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// etcd user, or Consul's HTTP basic user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Consul ACL token.
    pub token: Option<Secret>,
    /// Consul Enterprise namespace.
    pub namespace: Option<String>,
    /// Consul Enterprise admin partition.
    pub partition: Option<String>,
    /// Consul datacenter.
    pub datacenter: Option<String>,
}

/// Addresses and settings of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// At least one; each failure selects the next.
    pub endpoints: Vec<Endpoint>,
    /// Applies to the https endpoints.
    pub tls: Tls,
    /// Sent with each request to Consul, and once per connection to etcd.
    pub identity: Identity,
}

/// Selection of the current endpoint: each failure moves to the next one.
#[derive(Debug, Default)]
pub(crate) struct Rotation(Cell<usize>);

impl Rotation {
    /// Returns the index of the current endpoint out of `count`.
    #[must_use]
    pub(crate) fn current(&self, count: usize) -> usize {
        self.0.get() % count.max(1)
    }

    /// Returns the number of changes of the endpoint so far.
    #[must_use]
    pub(crate) fn changes(&self) -> usize {
        self.0.get()
    }

    /// Selects the next endpoint.
    pub(crate) fn advance(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }
}
