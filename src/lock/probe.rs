//! What `distlock doctor` asks each backend, and the form of the findings.
//!
//! Invariants: a probe acquires no lock and joins no queue. It removes what it created on a server; what it cannot
//! remove, because an answer is late or distlock is killed, expires by itself.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time;

use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

use crate::lock::transport::endpoint::{self, Server};

/// What a probe checks.
#[derive(Clone, Debug)]
pub(crate) struct ProbeRequest {
    /// The lock whose permissions are checked, if any.
    pub name: Option<String>,
    /// The TTL that a job would request.
    pub ttl: Duration,
    /// Limit for all requests to one endpoint together, and for each check.
    pub timeout: Duration,
}

/// Results of a probe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Every endpoint, in configuration order.
    pub endpoints: Vec<EndpointFinding>,
    /// Checks on the usable endpoints; empty if there are none.
    pub checks: Vec<Check>,
}

/// Result for one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointFinding {
    /// The endpoint's address as users write it.
    pub url: String,
    /// Protection of the connection; None if unknown.
    pub tls: Option<Tls>,
    /// What the server reported, or why it cannot serve locks.
    pub info: Result<ServerInfo, Failure>,
}

/// What a server reports about itself; None if unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerInfo {
    pub version: Option<String>,
    pub role: Option<Role>,
    /// Name or id of the server in its cluster.
    pub member: Option<String>,
    /// Identity of the cluster: etcd's cluster id, the addresses of Consul's servers.
    pub cluster: Vec<String>,
    /// Time from a small request to its reply on an open connection.
    pub latency: Option<Duration>,
}

/// Role of a server in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    /// Consul agent without data, which forwards requests to the servers.
    Client,
}

/// Protection of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Off,
    Verified,
    /// Encrypted, but the server's certificate is not checked.
    Unverified,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Identifier that scripts may match.
    pub name: &'static str,
    pub result: CheckResult,
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    /// Good; says what was found.
    Passed(String),
    /// Not checked; says why.
    Unknown(String),
    /// Locks can be acquired, but differently from what was asked for.
    Warning { message: String, hint: String },
    /// No lock can be acquired.
    Failed(Failure),
}

impl Check {
    #[must_use]
    pub(crate) fn new(name: &'static str, result: Result<CheckResult, Failure>) -> Self {
        Self { name, result: result.unwrap_or_else(CheckResult::Failed) }
    }
}

impl Tls {
    /// Returns the protection that `endpoint` gets from the settings.
    fn configured(server: &Server, endpoint: &endpoint::Endpoint) -> Self {
        match endpoint {
            endpoint::Endpoint::Https { .. } if server.tls.insecure_skip_verify => Self::Unverified,
            endpoint::Endpoint::Https { .. } => Self::Verified,
            // Discovered endpoints were replaced by their servers before.
            endpoint::Endpoint::Http { .. }
            | endpoint::Endpoint::Unix { .. }
            | endpoint::Endpoint::Discovered { .. } => Self::Off,
        }
    }
}

/// Runs `examine` for each endpoint alone, all concurrently, each with the limit `timeout`.
pub(super) async fn examine_each<F>(
    server: &Server,
    timeout: Duration,
    examine: impl Fn(Server) -> F,
) -> Vec<EndpointFinding>
where
    F: Future<Output = Outcome<ServerInfo>>,
{
    let all = server.endpoints.iter().map(|endpoint| {
        let alone = Server { endpoints: vec![endpoint.clone()], ..server.clone() };
        let examination = within(timeout, examine(alone));
        async move {
            let url = endpoint.to_string();
            let info = examination.await.map_err(|failure| without_address(failure, &url));
            // A server that denies access was connected to.
            let connected = info.as_ref().err().is_none_or(|failure| failure.kind == Kind::Denied);
            let tls = Tls::configured(server, endpoint);
            EndpointFinding { url, tls: (connected || tls == Tls::Off).then_some(tls), info }
        }
    });
    join_all(all).await
}

/// Returns the settings with the usable endpoints only; None if there are none.
pub(super) fn usable(server: &Server, findings: &[EndpointFinding]) -> Option<Server> {
    let usable = server.endpoints.iter().zip(findings).filter(|(_, finding)| finding.info.is_ok());
    let endpoints: Vec<_> = usable.map(|(endpoint, _)| endpoint.clone()).collect();
    (!endpoints.is_empty()).then(|| Server { endpoints, ..server.clone() })
}

/// Awaits `request` for at most `timeout`.
pub(super) async fn within<T>(timeout: Duration, request: impl Future<Output = Outcome<T>>) -> Result<T, Failure> {
    let outcome = time::timeout(timeout, request).await;
    outcome.map_or_else(|_| Err(timed_out(timeout)), |outcome| outcome.map_err(failure))
}

fn timed_out(timeout: Duration) -> Failure {
    Failure::new(Kind::Unreachable, format!("no answer within {timeout:?}"))
        .hint("check that the server runs and that no firewall drops the connection")
}

/// Converts the trouble of a request that is not retried.
fn failure(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Fatal(failure) => failure,
        Trouble::Uncertain { answered: false, cause, .. } => Failure::new(Kind::Unreachable, cause)
            .hint("check the address and its scheme, that the server runs, and that this host may connect to it"),
        other => Failure::new(Kind::Unreachable, other.into_cause())
            .hint("check that it is the right server and that most of its cluster is up; see the server's log"),
    }
}

/// Removes the address from the front of the message: the finding shows it already.
fn without_address(failure: Failure, url: &str) -> Failure {
    match failure.message.strip_prefix(url).and_then(|rest| rest.strip_prefix(": ")) {
        Some(message) => Failure { message: message.to_owned(), ..failure },
        None => failure,
    }
}

/// Checks that the usable endpoints belong to one cluster: two clusters would be two locks.
pub(super) fn one_cluster(findings: &[EndpointFinding]) -> Check {
    let known: Vec<_> =
        findings.iter().filter_map(|finding| Some((&finding.url, &finding.info.as_ref().ok()?.cluster))).collect();
    let result = match known.split_first() {
        None => Ok(CheckResult::Unknown("no endpoint is usable".to_owned())),
        Some(((first, cluster), rest)) => {
            match rest.iter().find(|(_, other)| !other.iter().any(|id| cluster.contains(id))) {
                Some((other, _)) => Err(Failure::usage(format!("{first} and {other} belong to different clusters"))
                    .because("a lock on one of them is not a lock on the other")
                    .hint("list the servers of one cluster only with --endpoints")),
                None => Ok(CheckResult::Passed(match findings.len() {
                    1 => cluster.join(", "),
                    all => format!("{}; {} of {all} endpoints are usable", cluster.join(", "), known.len()),
                })),
            }
        }
    };
    Check::new("cluster", result)
}

/// Sends a request and returns how long its reply took, with the reply.
pub(super) async fn timed<T>(request: impl Future<Output = Outcome<T>>) -> Outcome<(Duration, T)> {
    let sent_at = Instant::now();
    let reply = request.await?;
    Ok((sent_at.elapsed(), reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(url: &str, cluster: &[&str]) -> EndpointFinding {
        let cluster = cluster.iter().map(|id| (*id).to_owned()).collect();
        EndpointFinding { url: url.to_owned(), tls: None, info: Ok(ServerInfo { cluster, ..ServerInfo::default() }) }
    }

    fn refused(url: &str) -> EndpointFinding {
        let info = Err(Failure::new(Kind::Unreachable, "connection refused"));
        EndpointFinding { url: url.to_owned(), tls: None, info }
    }

    #[test]
    fn endpoints_of_two_clusters_fail_the_check() {
        let mixed = [usable("http://a", &["7"]), refused("http://b"), usable("http://c", &["8"])];
        match one_cluster(&mixed).result {
            CheckResult::Failed(failure) => {
                assert_eq!(failure.kind, Kind::Usage);
                assert_eq!(failure.message, "http://a and http://c belong to different clusters");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cluster_whose_members_change_is_one_cluster() {
        let changing = [usable("http://a", &["x", "y"]), usable("http://b", &["y", "z"]), refused("http://c")];
        assert_eq!(one_cluster(&changing).result, CheckResult::Passed("x, y; 2 of 3 endpoints are usable".into()));
        assert!(matches!(one_cluster(&[refused("http://a")]).result, CheckResult::Unknown(_)));
    }

    #[test]
    fn the_address_is_removed_from_the_front_only() {
        let failure = |message: &str| Failure::usage(message);
        assert_eq!(without_address(failure("http://a:1: closed"), "http://a:1"), failure("closed"));
        assert_eq!(without_address(failure("no route to http://a:1"), "http://a:1"), failure("no route to http://a:1"));
        assert_eq!(without_address(failure("http://a:10: closed"), "http://a:1"), failure("http://a:10: closed"));
    }
}
