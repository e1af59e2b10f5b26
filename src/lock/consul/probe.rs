//! Checks of `distlock doctor` on Consul. A check acquires no lock, joins no queue and changes no key.

use serde_json::Value;

use distlock_core::consul::keys::Keys;
use distlock_core::consul::limits::{MAX_TTL, MIN_TTL};
use distlock_core::consul::queue::{NextStep, Snapshot};
use distlock_core::duration::show;
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

use super::api::{Api, NewSession, go_duration};
use super::contender::{Options, not_a_lock};
use super::txn::{Op, TxnResult};
use crate::lock::backend::LogFn;
use crate::lock::probe::{self, Check, CheckResult, Findings, ProbeRequest, Role, ServerInfo};
use crate::lock::transport::endpoint::Server;

/// Examines each endpoint, and then checks on the usable ones what a lock needs.
pub(crate) async fn probe(
    server: &Server,
    options: &Options,
    request: &ProbeRequest,
    log: LogFn,
) -> Result<Findings, Failure> {
    let keys = request.name.as_deref().map(Keys::new).transpose()?;
    let name = keys.as_ref().map_or("", |keys| &keys.name);
    // Wrong settings fail here, not at each endpoint.
    Api::new(server, name)?;
    let examine = |single: Server| async move { examine(&Api::new(&single, "").map_err(Trouble::Fatal)?).await };
    let endpoints = probe::examine_each(server, request.timeout, examine).await;
    let mut checks = Vec::new();
    if let Some(usable) = probe::usable(server, &endpoints) {
        let api = Api::new(&usable, name)?;
        checks.push(probe::one_cluster(&endpoints));
        checks.extend(check_session(&api, keys.as_ref(), options, request, &log).await);
    }
    Ok(Findings { endpoints, checks })
}

async fn examine(api: &Api) -> Outcome<ServerInfo> {
    let leader: String = api.get(vec!["status", "leader"]).await?;
    if leader.is_empty() {
        return Err(Trouble::Fatal(
            Failure::new(Kind::Unreachable, "the cluster has no leader")
                .hint("retry in a moment if an election is under way; otherwise check that most of the servers are up"),
        ));
    }
    // The first request has opened the connection, so this one measures no handshake.
    let (latency, mut cluster) = probe::timed(api.get::<Vec<String>>(vec!["status", "peers"])).await?;
    cluster.sort_unstable();
    Ok(ServerInfo { cluster, latency: Some(latency), ..agent_info(api).await? })
}

/// Returns what the agent reports about itself; nothing if the token lacks agent:read, which no lock needs.
async fn agent_info(api: &Api) -> Outcome<ServerInfo> {
    match api.get(vec!["agent", "self"]).await {
        Ok(reply) => Ok(parse_agent_info(&reply)),
        Err(Trouble::Fatal(failure)) if failure.kind == Kind::Denied => Ok(ServerInfo::default()),
        Err(trouble) => Err(trouble),
    }
}

fn parse_agent_info(reply: &Value) -> ServerInfo {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let config = &reply["Config"];
    let role = match (config["Server"].as_bool(), reply["Stats"]["consul"]["leader"].as_str()) {
        (Some(true), Some("true")) => Some(Role::Leader),
        (Some(true), _) => Some(Role::Follower),
        (Some(false), _) => Some(Role::Client),
        (None, _) => None,
    };
    ServerInfo { version: text(&config["Version"]), member: text(&config["NodeName"]), role, ..ServerInfo::default() }
}

/// Creates the session that a contender would create, checks the permissions with it, and destroys it.
async fn check_session(
    api: &Api,
    keys: Option<&Keys>,
    options: &Options,
    request: &ProbeRequest,
    log: &LogFn,
) -> Vec<Check> {
    let new = NewSession {
        name: "distlock doctor".to_owned(),
        ttl: go_duration(request.ttl),
        lock_delay: go_duration(options.lock_delay),
        behavior: "delete",
        node_checks: options.health_checks.clone(),
    };
    let id = match probe::within(request.timeout, api.create_session(&new)).await {
        Ok(id) => id,
        Err(failure) => return vec![Check::new("session", Err(failure))],
    };
    log(format!("consul: {}: session {id}", api.http.endpoint()));
    let permissions = match keys {
        Some(keys) => Some(Check::new("rights", check_permissions(api, keys, &id, request).await)),
        None => None,
    };
    let destroyed = probe::within(request.timeout, api.destroy_session(&id)).await;
    let passed = format!(
        "created and destroyed; a TTL of {} is granted (default limits {} to {})",
        show(request.ttl),
        show(MIN_TTL),
        show(MAX_TTL)
    );
    let session = Check::new("session", destroyed.map(|()| CheckResult::Passed(passed)));
    std::iter::once(session).chain(permissions).collect()
}

/// Sends a transaction that locks all keys that a contender needs and always fails, because it finally demands that one of
/// them does not exist. Permissions are checked first, and whether the lock is held does not matter.
async fn check_permissions(
    api: &Api,
    keys: &Keys,
    session: &str,
    request: &ProbeRequest,
) -> Result<CheckResult, Failure> {
    let own = keys.waiter_key(session);
    let locks = [&own, &keys.lock, &keys.info].map(|key| Op::lock(key, session, 0, ""));
    let ops = locks.into_iter().chain([Op::check_absent(&own)]).collect();
    probe::within(request.timeout, api.txn(ops)).await?;
    let read = api.txn(vec![Op::get_tree(&keys.lock)]);
    let pairs = match probe::within(request.timeout, read).await? {
        TxnResult::Applied(pairs) => pairs,
        TxnResult::Refused(refusal) => return Err(Failure::usage("the lock cannot be read").because(refusal)),
    };
    if Snapshot::new(keys, pairs).next_step(keys, session) == NextStep::NotALock {
        return Err(not_a_lock(keys));
    }
    Ok(CheckResult::Passed(format!("may write under {}/", keys.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_role_is_read_from_the_agent() {
        let info = |server: bool, leader| {
            parse_agent_info(&json!({
                "Config": { "Version": "1.8.7", "NodeName": "n", "Server": server },
                "Stats": { "consul": { "leader": leader } }
            }))
        };
        assert_eq!(info(true, "true").role, Some(Role::Leader));
        assert_eq!(info(true, "false").role, Some(Role::Follower));
        assert_eq!(info(false, "false").role, Some(Role::Client));
        assert_eq!(parse_agent_info(&json!(7)), ServerInfo::default());
    }
}
