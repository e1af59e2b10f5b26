//! What `distlock doctor` looks for, and the form in which every backend tells what it found.
//!
//! A probe takes no lock and enters no queue. What it creates on a server it removes at once; should it be killed in
//! between, that ends by itself.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::SignedDuration;
use tokio::time::timeout;

use super::transport::endpoint::{self, Server};
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

/// Requests whose median is an endpoint's latency.
const SAMPLES: usize = 5;

/// What to look for.
#[derive(Clone, Debug)]
pub(crate) struct Inquiry {
    /// The lock to which the rights are wanted, if to any.
    pub name: Option<String>,
    /// The lease time that would be asked for.
    pub ttl: Duration,
    /// How long an endpoint may take to answer all that it is asked.
    pub patience: Duration,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Every endpoint, in the order of the settings.
    pub endpoints: Vec<Endpoint>,
    /// What was tried beyond that; nothing where no endpoint is of use.
    pub checks: Vec<Check>,
}

/// What came of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Its address as users write it.
    pub url: String,
    /// How the connection is protected; None where it is not known.
    pub tls: Option<Tls>,
    /// What it told of itself, or why no lock could be had from it.
    pub answer: Result<Answer, Failure>,
}

/// What an endpoint told of itself; None is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The server's version.
    pub version: Option<String>,
    /// Its part in the cluster.
    pub role: Option<Role>,
    /// Its name, or its id, in the cluster.
    pub member: Option<String>,
    /// What tells its cluster from another: etcd's cluster id, the addresses of Consul's servers.
    pub cluster: Vec<String>,
    /// From a small request to its answer; the median of a few.
    pub latency: Option<Duration>,
    /// How far its clock is ahead of this host's.
    pub clock_ahead: Option<SignedDuration>,
}

/// An endpoint's part in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It orders all changes.
    Leader,
    /// It passes changes on to the leader.
    Follower,
    /// It has no data: a Consul agent that passes everything on to the servers.
    Client,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Not at all.
    Off,
    /// Encrypted; the server has proved who it is.
    Verified,
    /// Encrypted; the settings say to trust any server.
    Unverified,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// A word for it, which scripts may look for.
    pub name: &'static str,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be; what was seen.
    Good(String),
    /// It cannot be known, or was not tried; why.
    Unknown(String),
    /// Locks can be had, and yet it deserves attention.
    Doubtful {
        /// What was seen.
        what: String,
        /// What can be done.
        hint: String,
    },
    /// No lock could be had.
    Bad(Failure),
}

impl Check {
    /// A check and what came of it; a failure says that no lock could be had.
    #[must_use]
    pub(crate) fn new(name: &'static str, outcome: Result<Verdict, Failure>) -> Self {
        Self { name, verdict: outcome.unwrap_or_else(Verdict::Bad) }
    }
}

impl Tls {
    /// What an endpoint's address and the settings say about its connection, once it was made.
    fn of(server: &Server, endpoint: &endpoint::Endpoint) -> Self {
        match endpoint {
            endpoint::Endpoint::Https { .. } if server.tls.insecure_skip_verify => Self::Unverified,
            endpoint::Endpoint::Https { .. } => Self::Verified,
            // Those of a domain have been looked up by now.
            endpoint::Endpoint::Http { .. }
            | endpoint::Endpoint::Unix { .. }
            | endpoint::Endpoint::Discovered { .. } => Self::Off,
        }
    }
}

/// Examines every endpoint by itself, all at once, each for as long as `patience` lasts.
pub(super) async fn examine_each<F>(server: &Server, patience: Duration, examine: impl Fn(Server) -> F) -> Vec<Endpoint>
where
    F: Future<Output = Outcome<Answer>>,
{
    let all = server.endpoints.iter().map(|endpoint| {
        let alone = Server { endpoints: vec![endpoint.clone()], ..server.clone() };
        let examination = within(patience, examine(alone));
        async move {
            let url = endpoint.to_string();
            // The address stands beside what is said of it.
            let answer = examination.await.map_err(|failure| without_address(failure, &url));
            // Who denies access has been talked to.
            let connected = answer.as_ref().err().is_none_or(|failure| failure.kind == Kind::Denied);
            let tls = Tls::of(server, endpoint);
            Endpoint { url, tls: (connected || tls == Tls::Off).then_some(tls), answer }
        }
    });
    join_all(all).await
}

/// The same servers without the endpoints that are of no use; None where all are.
pub(super) fn usable(server: &Server, endpoints: &[Endpoint]) -> Option<Server> {
    let of_use = server.endpoints.iter().zip(endpoints).filter(|(_, endpoint)| endpoint.answer.is_ok());
    let usable: Vec<_> = of_use.map(|(address, _)| address.clone()).collect();
    (!usable.is_empty()).then(|| Server { endpoints: usable, ..server.clone() })
}

/// What is asked, if it is answered in time.
pub(super) async fn within<T>(patience: Duration, request: impl Future<Output = Outcome<T>>) -> Result<T, Failure> {
    timeout(patience, request).await.map_or_else(|_| Err(silence(patience)), |outcome| outcome.map_err(failure))
}

fn silence(patience: Duration) -> Failure {
    Failure::new(Kind::Unreachable, format!("no answer within {patience:?}"))
        .hint("check that the server runs, and that nothing on the way drops the connection")
}

/// What a trouble means for somebody who asks only once.
fn failure(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Fatal(failure) => failure,
        Trouble::Uncertain { answered: false, cause, .. } => Failure::new(Kind::Unreachable, cause)
            .hint("check the address and its scheme, that the server runs, and that this host may connect to it"),
        other => Failure::new(Kind::Unreachable, other.into_cause())
            .hint("check that it is the right server, and that most of its cluster is up; its log says more"),
    }
}

fn without_address(failure: Failure, url: &str) -> Failure {
    match failure.message.strip_prefix(url).and_then(|rest| rest.strip_prefix(": ")) {
        Some(message) => Failure { message: message.to_owned(), ..failure },
        None => failure,
    }
}

/// Whether the endpoints that are of use lead to one and the same cluster: two clusters would be two locks.
pub(super) fn one_cluster(endpoints: &[Endpoint]) -> Check {
    let told: Vec<_> =
        endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.answer.as_ref().ok()?))).collect();
    let outcome = match told.split_first() {
        None => Ok(Verdict::Unknown("no endpoint is of use".to_owned())),
        Some(((first, one), rest)) => {
            let stranger = rest.iter().find(|(_, other)| !other.cluster.iter().any(|id| one.cluster.contains(id)));
            match stranger {
                Some((other, _)) => {
                    Err(Failure::usage(format!("{} and {} are of different clusters", first.url, other.url))
                        .because("a lock on one of them is not a lock on the other")
                        .hint("name the servers of one cluster only with --endpoints"))
                }
                None => Ok(Verdict::Good(match endpoints.len() {
                    1 => one.cluster.join(", "),
                    all => format!("{}; {} of {all} endpoints can be used", one.cluster.join(", "), told.len()),
                })),
            }
        }
    };
    Check::new("cluster", outcome)
}

/// The median time of a few requests, and the last one's answer.
pub(super) async fn median_latency<T>(mut ask: impl AsyncFnMut() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let mut times = Vec::with_capacity(SAMPLES);
    loop {
        let sent = Instant::now();
        let answer = ask().await?;
        times.push(sent.elapsed());
        if times.len() == SAMPLES {
            times.sort_unstable();
            return Ok((times[SAMPLES / 2], answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, cluster: &[&str]) -> Endpoint {
        let cluster = cluster.iter().map(|id| (*id).to_owned()).collect();
        Endpoint { url: url.to_owned(), tls: None, answer: Ok(Answer { cluster, ..Answer::default() }) }
    }

    fn dead(url: &str) -> Endpoint {
        let answer = Err(Failure::new(Kind::Unreachable, "connection refused"));
        Endpoint { url: url.to_owned(), tls: None, answer }
    }

    #[test]
    fn two_clusters_are_two_locks() {
        let mixed = [endpoint("http://a", &["7"]), dead("http://b"), endpoint("http://c", &["8"])];
        match one_cluster(&mixed).verdict {
            Verdict::Bad(failure) => {
                assert_eq!(failure.kind, Kind::Usage);
                assert_eq!(failure.message, "http://a and http://c are of different clusters");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cluster_that_is_changing_its_servers_is_still_one() {
        let changing = [endpoint("http://a", &["x", "y"]), endpoint("http://b", &["y", "z"]), dead("http://c")];
        assert_eq!(one_cluster(&changing).verdict, Verdict::Good("x, y; 2 of 3 endpoints can be used".into()));
        assert!(matches!(one_cluster(&[dead("http://a")]).verdict, Verdict::Unknown(_)));
    }

    #[test]
    fn an_address_is_not_said_twice() {
        let failure = |message: &str| Failure::usage(message);
        assert_eq!(without_address(failure("http://a:1: gone"), "http://a:1"), failure("gone"));
        assert_eq!(without_address(failure("no way to http://a:1"), "http://a:1"), failure("no way to http://a:1"));
        assert_eq!(without_address(failure("http://a:10: gone"), "http://a:1"), failure("http://a:10: gone"));
    }
}
