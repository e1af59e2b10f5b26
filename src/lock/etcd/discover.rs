//! The servers of a cluster: named in the settings, or looked up in DNS as etcdctl does with `--discovery-srv`.

use tokio::sync::OnceCell;

use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

use super::connector::Connector;
use crate::lock::transport::dns;
use crate::lock::transport::endpoint::{Endpoint, Server, Tls};

/// Connectors of one cluster. Those of a domain are unknown until [`Self::discover`].
pub(super) struct Connectors {
    known: OnceCell<Vec<Connector>>,
    domain: String,
    secure: bool,
    tls: Tls,
}

impl Connectors {
    /// Reads the TLS files if the servers are named. Sends nothing.
    pub(super) fn new(server: &Server) -> Result<Self, Failure> {
        let tls = server.tls.clone();
        Ok(match server.endpoints.as_slice() {
            [Endpoint::Discovered { domain, secure }] => {
                Self { known: OnceCell::new(), domain: domain.clone(), secure: *secure, tls }
            }
            named => {
                let known = OnceCell::new_with(Some(connectors(named, &tls)?));
                Self { known, domain: String::new(), secure: false, tls }
            }
        })
    }

    /// Looks up the servers, unless they are known.
    pub(super) async fn discover(&self) -> Outcome<()> {
        let discover = async || {
            let servers = lookup(&self.domain, self.secure).await?;
            connectors(&servers, &self.tls).map_err(Trouble::Fatal)
        };
        self.known.get_or_try_init(discover).await.map(drop)
    }

    /// Returns the number of servers; 1 if they are unknown.
    pub(super) fn count(&self) -> usize {
        self.known.get().map_or(1, Vec::len)
    }

    /// Returns the connector of the current endpoint after a number of endpoint changes; None if the servers are
    /// unknown.
    pub(super) fn after(&self, changes: usize) -> Option<&Connector> {
        self.known.get().and_then(|connectors| connectors.get(changes % connectors.len().max(1)))
    }

    /// Returns the address of that endpoint, or the domain if the servers are unknown.
    pub(super) fn url(&self, changes: usize) -> &str {
        self.after(changes).map_or(&self.domain, |connector| &connector.url)
    }
}

fn connectors(servers: &[Endpoint], tls: &Tls) -> Result<Vec<Connector>, Failure> {
    servers.iter().map(|server| Connector::new(server, tls)).collect()
}

/// Replaces a domain by its servers.
pub(super) async fn with_named_endpoints(server: &Server) -> Outcome<Server> {
    let endpoints = match server.endpoints.as_slice() {
        [Endpoint::Discovered { domain, secure }] => lookup(domain, *secure).await?,
        named => named.to_vec(),
    };
    Ok(Server { endpoints, ..server.clone() })
}

/// Returns the servers with TLS if there are any. etcdctl uses those without TLS too, which could leak a password.
async fn lookup(domain: &str, only_secure: bool) -> Outcome<Vec<Endpoint>> {
    let name = |service| format!("_{service}._tcp.{domain}");
    let (secure, plain) = (name("etcd-client-ssl"), name("etcd-client"));
    let unanswered = |cause| Trouble::no_answer(format!("DNS lookup of {domain}: {cause}"));
    let (with_tls, without_tls) = tokio::join!(dns::srv(&secure), dns::srv(&plain));
    let with_tls = with_tls.map_err(unanswered)?;
    if !with_tls.is_empty() {
        return Ok(with_tls.iter().map(|target| Endpoint::Https { authority: authority(target) }).collect());
    }
    let without_tls = without_tls.map_err(unanswered)?;
    if without_tls.is_empty() {
        return Err(unpublished(format!("DNS has no etcd servers for {domain}"), &secure, &plain));
    }
    if only_secure {
        return Err(unpublished(format!("DNS has only etcd servers without TLS for {domain}"), &secure, &plain));
    }
    Ok(without_tls.iter().map(|target| Endpoint::Http { authority: authority(target) }).collect())
}

fn authority(target: &dns::Target) -> String {
    format!("{}:{}", target.host, target.port)
}

fn unpublished(message: String, secure: &str, plain: &str) -> Trouble {
    let failure = Failure::new(Kind::Unreachable, message);
    Trouble::Fatal(failure.hint(format!("publish SRV records of {secure} (or {plain}), or name the servers with -e")))
}
