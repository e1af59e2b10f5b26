//! Addresses, TLS files and identities: what it takes to talk to a server, for both network backends.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;

/// A secret: never printed, and never in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the request that needs it.
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

/// The address of one server.
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
        /// The socket.
        path: PathBuf,
    },
    /// The servers of which DNS tells in SRV records (etcd only).
    Discovered {
        /// The domain that they serve.
        domain: String,
        /// Servers without TLS are passed over.
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

/// How a server proves itself, and how we do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's.
    pub cacert: Option<PathBuf>,
    /// Directory of PEM files of authorities (`CONSUL_CAPATH`).
    pub capath: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key.
    pub key: Option<PathBuf>,
    /// The name to expect in the server's certificate instead of the endpoint's host.
    pub server_name: Option<String>,
    /// Trust whatever certificate the server shows.
    pub insecure_skip_verify: bool,
}

/// Who we are to the server.
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

/// Everything it takes to talk to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// At least one; tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// TLS settings, for the https endpoints.
    pub tls: Tls,
    /// Credentials and scope.
    pub identity: Identity,
}

/// A turn around the endpoints.
#[derive(Debug, Default)]
pub(crate) struct Rotation(Cell<usize>);

impl Rotation {
    /// The index of the present endpoint out of `count`.
    #[must_use]
    pub(crate) fn current(&self, count: usize) -> usize {
        self.0.get() % count.max(1)
    }

    /// How often it moved on.
    #[must_use]
    pub(crate) fn turn(&self) -> usize {
        self.0.get()
    }

    /// Moves on to the next endpoint.
    pub(crate) fn advance(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }
}
