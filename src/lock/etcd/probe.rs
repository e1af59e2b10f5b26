//! What `distlock doctor` asks etcd.

use std::rc::Rc;

use etcd_client::{Compare, CompareOp, GetOptions, StatusResponse, Txn, TxnOp};

use super::client::Client;
use super::discover;
use super::{random_lease, renew};
use crate::lock::probe::{self, Answer, Check, Findings, Inquiry, Role, Verdict};
use crate::lock::{Note, Server};
use distlock_core::error::{Failure, Kind};
use distlock_core::etcd::queue::{Prefix, check_name};
use distlock_core::outcome::{Outcome, Trouble};

/// The oldest version that is known to work, major and minor.
const OLDEST: (u32, u32) = (3, 4);
/// Less than any server grants by default, so that the shortest TTL shows, in seconds.
const SHORTEST_TTL: i64 = 1;
/// Longer than any proxy waits with a renewal of its own, in seconds.
const LONG_TTL: i64 = 60;
/// Where a look shows whether the server asks for a login, when no lock is named.
const NOBODYS: &str = "distlock-doctor";

/// Examines every endpoint, then asks those that are of use for what a lock needs.
pub(crate) async fn probe(server: &Server, inquiry: &Inquiry, note: Note) -> Result<Findings, Failure> {
    inquiry.name.as_deref().map(check_name).transpose()?;
    let server = &probe::within(inquiry.patience, Box::pin(discover::named(server))).await?;
    // What is wrong with the settings is wrong with all endpoints.
    let prefix = Prefix::new(inquiry.name.as_deref().unwrap_or(NOBODYS));
    Client::new(server, prefix.as_str(), Rc::clone(&note))?;
    let examine = |alone: Server| {
        let (scope, note) = (prefix.as_str().to_owned(), Rc::clone(&note));
        async move { examine(&Client::new(&alone, &scope, note).map_err(Trouble::Fatal)?).await }
    };
    let endpoints = probe::examine_each(server, inquiry.patience, examine).await;
    let mut checks = Vec::new();
    if let Some(usable) = probe::usable(server, &endpoints) {
        let client = Client::new(&usable, prefix.as_str(), note)?;
        checks.push(probe::one_cluster(&endpoints));
        checks.push(Check::new("lease", Box::pin(lease(&client, inquiry)).await));
        checks.push(match inquiry.name {
            Some(_) => Check::new("rights", rights(&client, &prefix, inquiry).await),
            None => Check::new("login", login(&client, &usable, &prefix, inquiry).await),
        });
        checks.push(Check::new(
            "clock",
            Ok(Verdict::Unknown("etcd does not tell its time; locks do not need it".into())),
        ));
    }
    Ok(Findings { endpoints, checks })
}

async fn examine(client: &Client) -> Outcome<Answer> {
    // The first connection and the login are not what a request takes later.
    client.link().await?;
    let (latency, status) = probe::median_latency(async || client.status().await).await?;
    check_status(&status).map_err(Trouble::Fatal)?;
    let header = status.header();
    let member = header.map(etcd_client::ResponseHeader::member_id);
    Ok(Answer {
        version: Some(status.version().to_owned()),
        role: Some(if member == Some(status.leader()) { Role::Leader } else { Role::Follower }),
        member: member.map(|id| format!("{id:x}")),
        cluster: header.map(|header| format!("{:x}", header.cluster_id())).into_iter().collect(),
        latency: Some(latency),
        clock_ahead: None,
    })
}

fn check_status(status: &StatusResponse) -> Result<(), Failure> {
    if status.leader() == 0 {
        return Err(Failure::new(Kind::Unreachable, "the member knows no leader")
            .hint("it is cut off from its cluster, or most of the cluster is down"));
    }
    if status.is_learner() {
        return Err(Failure::new(Kind::Unreachable, "the member is a learner, which serves no locks")
            .hint("promote it, or leave it out of --endpoints"));
    }
    check_version(status.version())
}

fn check_version(version: &str) -> Result<(), Failure> {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => {
            Err(Failure::usage(format!("etcd {version} is too old"))
                .hint(format!("distlock needs {}.{} or later", OLDEST.0, OLDEST.1)))
        }
        _ => Ok(()),
    }
}

/// Grants the shortest lease and revokes it. One whose answer comes too late ends by itself, and as soon.
async fn lease(client: &Client, inquiry: &Inquiry) -> Result<Verdict, Failure> {
    let id = random_lease()?;
    let shortest = probe::within(inquiry.patience, async {
        let shortest = client.grant(id, SHORTEST_TTL).await?;
        client.revoke(id).await?;
        Ok(shortest)
    });
    let shortest = shortest.await?.unsigned_abs();
    renewable(client, inquiry).await?;
    Ok(granted(shortest, inquiry.ttl.as_secs_f64()))
}

/// Renews a lease twice in a row.
async fn renewable(client: &Client, inquiry: &Inquiry) -> Result<(), Failure> {
    let id = random_lease()?;
    let renewals = Box::pin(probe::within(inquiry.patience, async {
        client.grant(id, LONG_TTL).await?;
        let answered = renew::each_is_answered(client, id).await?;
        client.revoke(id).await?;
        Ok(answered)
    }));
    if renewals.await? {
        return Ok(());
    }
    Err(Failure::new(Kind::Unreachable, "renewals are answered by somebody else than the server")
        .because("a second renewal of a lease was not answered at once")
        .hint("etcd's grpc-proxy does that: give the members' own addresses to --endpoints"))
}

fn granted(shortest: u64, asked: f64) -> Verdict {
    let seen = format!("granted and revoked; the shortest TTL is {shortest}s, {asked}s is asked for");
    // Seconds of TTLs are small numbers.
    #[expect(clippy::cast_precision_loss, reason = "a TTL has few digits")]
    if asked < shortest as f64 {
        return Verdict::Doubtful { what: seen, hint: format!("{shortest}s will be granted: say --ttl {shortest}s") };
    }
    Verdict::Good(seen)
}

/// Asks for all that a lock needs in one transaction that changes nothing: etcd checks the rights to both of its
/// branches before it looks at the condition, which never holds.
async fn rights(client: &Client, prefix: &Prefix, inquiry: &Inquiry) -> Result<Verdict, Failure> {
    let key = prefix.key(random_lease()?);
    let (start, end) = prefix.range();
    let never = Compare::create_revision(key.as_str(), CompareOp::Less, 0);
    let contenders = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
    let txn = Txn::new()
        .when([never])
        .and_then([TxnOp::put(key.as_str(), "", None)])
        .or_else([TxnOp::get(start, Some(contenders))]);
    probe::within(inquiry.patience, client.txn(txn)).await?;
    Ok(Verdict::Good(format!("may read and write under {}", prefix.as_str())))
}

/// Finds out whether the server knows us, with a look at a key that is nobody's. Having no right to that key is as good
/// as seeing it.
async fn login(client: &Client, server: &Server, prefix: &Prefix, inquiry: &Inquiry) -> Result<Verdict, Failure> {
    let user = server.identity.user.as_deref();
    match probe::within(inquiry.patience, client.value(prefix.as_str().as_bytes())).await {
        Err(failure) if failure.kind == Kind::Denied && anonymous(&failure) => {
            Err(Failure::new(Kind::Denied, "etcd asks for a user, and none is given")
                .hint("name a user with --user and its password with --password-file or ETCDCTL_PASSWORD"))
        }
        Err(failure) if failure.kind != Kind::Denied => Err(failure),
        _ => Ok(Verdict::Good(user.map_or_else(|| "no user is needed".to_owned(), |user| format!("as {user}")))),
    }
}

/// Whether the server's words are those for a request by nobody.
fn anonymous(failure: &Failure) -> bool {
    failure.causes.iter().any(|words| words == "user name is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for version in ["3.4.0", "3.5.16", "3.10.1", "4.0.0", "3.6.0-alpha.0", "unheard of", ""] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in ["3.3.27", "2.3.8"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn a_lease_that_is_longer_than_asked_for_is_pointed_out() {
        assert!(matches!(granted(2, 15.0), Verdict::Good(seen) if seen.contains("2s, 15s")));
        assert!(matches!(granted(20, 15.0), Verdict::Doubtful { hint, .. } if hint.contains("--ttl 20s")));
        assert!(matches!(granted(2, 2.0), Verdict::Good(_)));
    }
}
