//! The servers of a cluster: named from the start, or looked up in DNS when first needed, as etcdctl does with
//! `--discovery-srv`.

use tokio::sync::OnceCell;

use super::dial::Dial;
use crate::lock::transport::dns;
use crate::lock::transport::endpoint::{Endpoint, Server, Tls};
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

/// The servers of one cluster.
pub(super) struct Dials {
    known: OnceCell<Vec<Dial>>,
    domain: String,
    secure: bool,
    tls: Tls,
}

impl Dials {
    /// Reads the TLS files where the servers are named; sends nothing.
    pub(super) fn new(server: &Server) -> Result<Self, Failure> {
        let tls = server.tls.clone();
        Ok(match server.endpoints.as_slice() {
            [Endpoint::Discovered { domain, secure }] => {
                Self { known: OnceCell::new(), domain: domain.clone(), secure: *secure, tls }
            }
            named => {
                let known = OnceCell::new_with(Some(dial(named, &tls)?));
                Self { known, domain: String::new(), secure: false, tls }
            }
        })
    }

    /// Looks the servers up, unless they are known.
    pub(super) async fn find(&self) -> Outcome<()> {
        let find = async || {
            let servers = lookup(&self.domain, self.secure).await?;
            dial(&servers, &self.tls).map_err(Trouble::Fatal)
        };
        self.known.get_or_try_init(find).await.map(drop)
    }

    /// How many there are; one that is not known yet counts as one.
    pub(super) fn count(&self) -> usize {
        self.known.get().map_or(1, Vec::len)
    }

    /// The one whose turn it is, once it is known.
    pub(super) fn at(&self, turn: usize) -> Option<&Dial> {
        self.known.get().and_then(|dials| dials.get(turn % dials.len().max(1)))
    }

    /// The address of the one whose turn it is, for a message.
    pub(super) fn url(&self, turn: usize) -> &str {
        self.at(turn).map_or(&self.domain, |dial| &dial.url)
    }
}

fn dial(servers: &[Endpoint], tls: &Tls) -> Result<Vec<Dial>, Failure> {
    servers.iter().map(|server| Dial::new(server, tls)).collect()
}

/// The same settings with the servers named that are to be looked up.
pub(super) async fn named(server: &Server) -> Outcome<Server> {
    let endpoints = match server.endpoints.as_slice() {
        [Endpoint::Discovered { domain, secure }] => lookup(domain, *secure).await?,
        named => named.to_vec(),
    };
    Ok(Server { endpoints, ..server.clone() })
}

/// Servers with TLS where there are any: etcdctl takes those without along, which is no way to keep a password.
async fn lookup(domain: &str, only_secure: bool) -> Outcome<Vec<Endpoint>> {
    let name = |service| format!("_{service}._tcp.{domain}");
    let (secure, plain) = (name("etcd-client-ssl"), name("etcd-client"));
    let unanswered = |cause| Trouble::no_answer(format!("looking up {domain}: {cause}"));
    let (with_tls, without) = tokio::join!(dns::srv(&secure), dns::srv(&plain));
    let with_tls = with_tls.map_err(unanswered)?;
    if !with_tls.is_empty() {
        return Ok(with_tls.iter().map(|target| Endpoint::Https { authority: authority(target) }).collect());
    }
    let without = without.map_err(unanswered)?;
    if without.is_empty() {
        return Err(nobody(format!("no etcd server of {domain} is published in DNS"), &secure, &plain));
    }
    if only_secure {
        return Err(nobody(format!("only servers without TLS are published for {domain} in DNS"), &secure, &plain));
    }
    Ok(without.iter().map(|target| Endpoint::Http { authority: authority(target) }).collect())
}

fn authority(target: &dns::Target) -> String {
    format!("{}:{}", target.host, target.port)
}

fn nobody(message: String, secure: &str, plain: &str) -> Trouble {
    let failure = Failure::new(Kind::Unreachable, message);
    Trouble::Fatal(failure.hint(format!("publish SRV records of {secure} (or {plain}), or name the servers with -e")))
}
