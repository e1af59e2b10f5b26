//! Checks of `distlock doctor` on etcd. A check takes no lock, enters no queue and changes no key.

use std::rc::Rc;

use etcd_client::{Compare, CompareOp, GetOptions, StatusResponse, Txn, TxnOp};

use distlock_core::error::{Failure, Kind};
use distlock_core::etcd::queue::{Prefix, check_name};
use distlock_core::outcome::{Outcome, Trouble};

use super::client::Client;
use super::lease_id::random_lease_id;
use super::{discover, keep_alive};
use crate::lock::backend::LogFn;
use crate::lock::probe::{self, Check, CheckResult, Findings, ProbeRequest, Role, ServerInfo};
use crate::lock::transport::endpoint::Server;

/// Oldest supported version, major and minor.
const OLDEST_VERSION: (u32, u32) = (3, 4);
/// In seconds. Shorter than any server's default minimum, so that the grant shows the minimum.
const SHORTEST_TTL: i64 = 1;
/// In seconds. Long enough that a proxy's own renewals are further apart than the two renewals of the check.
const LONG_TTL: i64 = 60;
/// Name to read if no lock is named.
const UNUSED_NAME: &str = "distlock-doctor";

/// Examines each endpoint, and then checks on the usable ones what a lock needs.
pub(crate) async fn probe(server: &Server, request: &ProbeRequest, log: LogFn) -> Result<Findings, Failure> {
    request.name.as_deref().map(check_name).transpose()?;
    let server = &probe::within(request.timeout, Box::pin(discover::with_named_endpoints(server))).await?;
    let prefix = Prefix::new(request.name.as_deref().unwrap_or(UNUSED_NAME));
    // Wrong settings fail here, not at each endpoint.
    Client::new(server, prefix.as_str(), Rc::clone(&log))?;
    let examine = |single: Server| {
        let (scope, log) = (prefix.as_str().to_owned(), Rc::clone(&log));
        async move { examine(&Client::new(&single, &scope, log).map_err(Trouble::Fatal)?).await }
    };
    let endpoints = probe::examine_each(server, request.timeout, examine).await;
    let mut checks = Vec::new();
    if let Some(usable) = probe::usable(server, &endpoints) {
        let client = Client::new(&usable, prefix.as_str(), log)?;
        checks.push(probe::one_cluster(&endpoints));
        checks.push(Check::new("lease", Box::pin(lease(&client, request)).await));
        checks.push(match request.name {
            Some(_) => Check::new("rights", permissions(&client, &prefix, request).await),
            None => Check::new("login", login(&client, &usable, &prefix, request).await),
        });
    }
    Ok(Findings { endpoints, checks })
}

async fn examine(client: &Client) -> Outcome<ServerInfo> {
    // Connection and login do not count as latency.
    client.connection().await?;
    let (latency, status) = probe::timed(client.status()).await?;
    check_status(&status).map_err(Trouble::Fatal)?;
    let header = status.header();
    let member = header.map(etcd_client::ResponseHeader::member_id);
    Ok(ServerInfo {
        version: Some(status.version().to_owned()),
        role: Some(if member == Some(status.leader()) { Role::Leader } else { Role::Follower }),
        member: member.map(|id| format!("{id:x}")),
        cluster: header.map(|header| format!("{:x}", header.cluster_id())).into_iter().collect(),
        latency: Some(latency),
    })
}

fn check_status(status: &StatusResponse) -> Result<(), Failure> {
    if status.leader() == 0 {
        return Err(Failure::new(Kind::Unreachable, "the member has no leader")
            .hint("check that this member can reach the others, and that most of the cluster is up"));
    }
    if status.is_learner() {
        return Err(Failure::new(Kind::Unreachable, "the member is a learner, which cannot serve locks")
            .hint("promote it, or remove it from --endpoints"));
    }
    check_version(status.version())
}

fn check_version(version: &str) -> Result<(), Failure> {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST_VERSION => {
            Err(Failure::usage(format!("etcd {version} is too old"))
                .hint(format!("distlock needs {}.{} or later", OLDEST_VERSION.0, OLDEST_VERSION.1)))
        }
        _ => Ok(()),
    }
}

/// Grants the shortest lease, revokes it, and checks that leases can be renewed.
async fn lease(client: &Client, request: &ProbeRequest) -> Result<CheckResult, Failure> {
    let id = random_lease_id()?;
    let shortest = probe::within(request.timeout, async {
        let shortest = client.grant(id, SHORTEST_TTL).await?;
        client.revoke(id).await?;
        Ok(shortest)
    });
    let shortest = shortest.await?.unsigned_abs();
    check_renewals(client, request).await?;
    Ok(compare_ttl(shortest, request.ttl.as_secs_f64()))
}

/// Renews a lease twice in a row.
async fn check_renewals(client: &Client, request: &ProbeRequest) -> Result<(), Failure> {
    let id = random_lease_id()?;
    let renewals = Box::pin(probe::within(request.timeout, async {
        client.grant(id, LONG_TTL).await?;
        let answered = keep_alive::server_answers_each_renewal(client, id).await?;
        client.revoke(id).await?;
        Ok(answered)
    }));
    if renewals.await? {
        return Ok(());
    }
    Err(Failure::new(Kind::Unreachable, "renewals are answered by a proxy, not by the server")
        .because("the second of two renewals was not answered immediately")
        .hint("etcd's grpc-proxy does this: use the addresses of the members with --endpoints"))
}

fn compare_ttl(shortest: u64, requested: f64) -> CheckResult {
    let message = format!("granted and revoked; the shortest TTL is {shortest}s, the requested one {requested}s");
    #[expect(clippy::cast_precision_loss, reason = "a TTL has few digits")]
    if requested < shortest as f64 {
        return CheckResult::Warning {
            message,
            hint: format!("the server will grant {shortest}s: use --ttl {shortest}s"),
        };
    }
    CheckResult::Passed(message)
}

/// Checks the permissions that a lock needs with a transaction that changes nothing: etcd checks those of both branches
/// before it evaluates the condition, which is always false.
async fn permissions(client: &Client, prefix: &Prefix, request: &ProbeRequest) -> Result<CheckResult, Failure> {
    let key = prefix.key(random_lease_id()?);
    let (start, end) = prefix.range();
    let never = Compare::create_revision(key.as_str(), CompareOp::Less, 0);
    let contenders = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
    let txn = Txn::new()
        .when([never])
        .and_then([TxnOp::put(key.as_str(), "", None)])
        .or_else([TxnOp::get(start, Some(contenders))]);
    probe::within(request.timeout, client.txn(txn)).await?;
    Ok(CheckResult::Passed(format!("read and write permission under {}", prefix.as_str())))
}

/// Checks the login by reading an unused key. A denial for lack of permissions is fine.
async fn login(
    client: &Client,
    server: &Server,
    prefix: &Prefix,
    request: &ProbeRequest,
) -> Result<CheckResult, Failure> {
    let user = server.identity.user.as_deref();
    match probe::within(request.timeout, client.value(prefix.as_str().as_bytes())).await {
        Err(failure) if failure.kind == Kind::Denied && lacks_user(&failure) => {
            Err(Failure::new(Kind::Denied, "etcd requires a user, and none is given")
                .hint("give a user with --user and its password with --password-file or ETCDCTL_PASSWORD"))
        }
        Err(failure) if failure.kind != Kind::Denied => Err(failure),
        _ => {
            Ok(CheckResult::Passed(user.map_or_else(|| "no user is required".to_owned(), |user| format!("as {user}"))))
        }
    }
}

fn lacks_user(failure: &Failure) -> bool {
    failure.causes.iter().any(|cause| cause == "user name is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for version in ["3.4.0", "3.5.16", "3.10.1", "4.0.0", "3.6.0-alpha.0", "unknown", ""] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in ["3.3.27", "2.3.8"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn a_ttl_below_the_server_s_minimum_is_a_warning() {
        let shortest_and_requested = "is 2s, the requested one 15s";
        assert!(matches!(compare_ttl(2, 15.0), CheckResult::Passed(text) if text.contains(shortest_and_requested)));
        assert!(matches!(compare_ttl(20, 15.0), CheckResult::Warning { hint, .. } if hint.contains("--ttl 20s")));
        assert!(matches!(compare_ttl(2, 2.0), CheckResult::Passed(_)));
    }
}
