//! What `distlock doctor` asks Consul.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::api::{Api, NewSession, go_duration};
use super::turn::not_a_lock;
use super::txn::{Op, Txn};
use super::{MAX_TTL, MIN_TTL, Options};
use crate::lock::probe::{self, Answer, Check, Endpoint, Findings, Inquiry, Role, Verdict};
use crate::lock::{Note, Server};
use distlock_core::consul::keys::Keys;
use distlock_core::consul::queue::{Step, View};
use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

/// Servers tell their time in whole seconds; less than this is no difference.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// Examines every endpoint, then asks those that are of use for what a lock needs.
pub(crate) async fn probe(
    server: &Server,
    options: &Options,
    inquiry: &Inquiry,
    note: Note,
) -> Result<Findings, Failure> {
    let keys = inquiry.name.as_deref().map(Keys::new).transpose()?;
    let name = keys.as_ref().map_or("", |keys| &keys.name);
    // What is wrong with the settings is wrong with all endpoints.
    Api::new(server, name)?;
    let examine = |alone: Server| async move { examine(&Api::new(&alone, "").map_err(Trouble::Fatal)?).await };
    let endpoints = probe::examine_each(server, inquiry.patience, examine).await;
    let mut checks = Vec::new();
    if let Some(usable) = probe::usable(server, &endpoints) {
        let api = Api::new(&usable, name)?;
        checks.push(probe::one_cluster(&endpoints));
        checks.extend(session(&api, keys.as_ref(), options, inquiry, &note).await);
        checks.push(Check { name: "clock", verdict: clocks(&endpoints) });
    }
    Ok(Findings { endpoints, checks })
}

async fn examine(api: &Api) -> Outcome<Answer> {
    // The first connection is not what a request takes later.
    let leader = async || api.get::<String>(vec!["status", "leader"]).await;
    if leader().await?.0.is_empty() {
        return Err(Trouble::Fatal(
            Failure::new(Kind::Unreachable, "the cluster has no leader")
                .hint("most of its servers are down or cut off, or it is electing one: try again in a moment"),
        ));
    }
    let (latency, (_, date)) = probe::median_latency(leader).await?;
    let clock_ahead = clock_ahead(date.as_deref(), Timestamp::now(), latency);
    let (mut cluster, _) = api.get::<Vec<String>>(vec!["status", "peers"]).await?;
    cluster.sort_unstable();
    let about = about(api).await?;
    Ok(Answer { cluster, latency: Some(latency), clock_ahead, ..about })
}

/// What the agent tells of itself, to those whom it trusts with it: a lock needs no such right.
async fn about(api: &Api) -> Outcome<Answer> {
    match api.get(vec!["agent", "self"]).await {
        Ok((about, _)) => Ok(read_about(&about)),
        Err(Trouble::Fatal(failure)) if failure.kind == Kind::Denied => Ok(Answer::default()),
        Err(trouble) => Err(trouble),
    }
}

fn read_about(about: &Value) -> Answer {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let role = match (about["Config"]["Server"].as_bool(), about["Stats"]["consul"]["leader"].as_str()) {
        (Some(true), Some("true")) => Some(Role::Leader),
        (Some(true), _) => Some(Role::Follower),
        (Some(false), _) => Some(Role::Client),
        (None, _) => None,
    };
    let config = &about["Config"];
    Answer { version: text(&config["Version"]), member: text(&config["NodeName"]), role, ..Answer::default() }
}

/// Creates the session that a lock would have, tries the rights to the lock's keys with it, and destroys it. Killed in
/// between, it leaves a session that holds nothing and ends by itself.
async fn session(api: &Api, keys: Option<&Keys>, options: &Options, inquiry: &Inquiry, note: &Note) -> Vec<Check> {
    let new = NewSession {
        name: "distlock doctor".to_owned(),
        ttl: go_duration(inquiry.ttl),
        lock_delay: go_duration(options.lock_delay),
        behavior: "delete",
        node_checks: options.health_checks.clone(),
    };
    let id = match probe::within(inquiry.patience, api.create_session(&new)).await {
        Ok(id) => id,
        Err(failure) => return vec![Check::new("session", Err(failure))],
    };
    note(format!("consul: {}: session {id}", api.http.endpoint()));
    let rights = match keys {
        Some(keys) => Some(Check::new("rights", rights(api, keys, &id, inquiry).await)),
        None => None,
    };
    let destroyed = probe::within(inquiry.patience, api.destroy_session(&id)).await;
    let seen = format!(
        "created and destroyed; a TTL of {:?} is granted (by default {:?} to {}h)",
        inquiry.ttl,
        MIN_TTL,
        MAX_TTL.as_secs() / 3600
    );
    let session = Check::new("session", destroyed.map(|()| Verdict::Good(seen)));
    std::iter::once(session).chain(rights).collect()
}

/// Takes the very keys that a lock needs, in a transaction that undoes itself, since it demands in the end that nothing
/// was taken: nobody ever sees it. Whether somebody holds the lock is no matter.
async fn rights(api: &Api, keys: &Keys, session: &str, inquiry: &Inquiry) -> Result<Verdict, Failure> {
    let place = keys.place(session);
    let locks = [&place, &keys.lock, &keys.info].map(|key| Op::lock(key, session, 0, ""));
    let ops = locks.into_iter().chain([Op::check_absent(&place)]).collect();
    probe::within(inquiry.patience, api.txn(ops)).await?;
    let read = api.txn(vec![Op::get_tree(&keys.lock)]);
    let pairs = match probe::within(inquiry.patience, read).await? {
        Txn::Applied(pairs) => pairs,
        Txn::Refused(refusal) => return Err(Failure::usage("the lock cannot be read").because(refusal)),
    };
    if View::new(keys, pairs).step(keys, session) == Step::NotALock {
        return Err(not_a_lock(keys));
    }
    Ok(Verdict::Good(format!("may write under {}/", keys.name)))
}

/// How far the server's clock is ahead of this host's, which shows `now`, by the `date` of its answer.
fn clock_ahead(date: Option<&str>, now: Timestamp, latency: Duration) -> Option<SignedDuration> {
    let told = jiff::fmt::rfc2822::parse(date?).ok()?.timestamp();
    // On average the seconds that it leaves out are half of one, and the answer took half the time on its way.
    let told = told + SignedDuration::from_millis(500);
    let asked = now - SignedDuration::try_from(latency / 2).ok()?;
    Some(told.duration_since(asked))
}

/// No lock depends on the time of day; the times that people are shown do.
fn clocks(endpoints: &[Endpoint]) -> Verdict {
    let told = endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.answer.as_ref().ok()?.clock_ahead?)));
    match told.max_by_key(|(_, ahead)| ahead.abs()) {
        None => Verdict::Unknown("no server told its time".to_owned()),
        Some((_, ahead)) if ahead.abs() < CLOCK_TOLERANCE => {
            Verdict::Good("as on this host, to about a second".to_owned())
        }
        Some((endpoint, ahead)) => Verdict::Doubtful {
            what: format!(
                "{} is {}s {} this host",
                endpoint.url,
                ahead.abs().as_secs(),
                if ahead.is_positive() { "ahead of" } else { "behind" }
            ),
            hint: "locks do not mind, but the times that are shown do: set both clocks by NTP".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_s_clock_is_read_from_its_answer() {
        let now: Timestamp = "2024-05-01T10:00:10.5Z".parse().expect("a time");
        let ahead = |date| clock_ahead(date, now, Duration::ZERO);
        assert_eq!(ahead(Some("Wed, 01 May 2024 10:00:10 GMT")), Some(SignedDuration::ZERO));
        assert_eq!(ahead(Some("Wed, 01 May 2024 10:01:10 GMT")), Some(SignedDuration::from_secs(60)));
        assert_eq!(ahead(Some("Wed, 01 May 2024 09:59:10 GMT")), Some(SignedDuration::from_secs(-60)));
        assert_eq!(ahead(Some("yesterday")), None);
        assert_eq!(ahead(None), None);
    }

    #[test]
    fn only_a_clock_that_is_far_off_is_pointed_out() {
        let endpoint = |ahead| Endpoint {
            url: "http://a".to_owned(),
            tls: None,
            answer: Ok(Answer { clock_ahead: ahead, ..Answer::default() }),
        };
        let seconds = |seconds| endpoint(Some(SignedDuration::from_secs(seconds)));
        assert!(matches!(clocks(&[endpoint(None)]), Verdict::Unknown(_)));
        assert!(matches!(clocks(&[seconds(1), endpoint(None)]), Verdict::Good(_)));
        let far = clocks(&[seconds(1), seconds(-90)]);
        assert!(matches!(far, Verdict::Doubtful { what, .. } if what.contains("90s behind")));
    }

    #[test]
    fn an_agent_tells_its_part() {
        let about = |server: bool, leader| {
            read_about(&json!({
                "Config": { "Version": "1.8.7", "NodeName": "n", "Server": server },
                "Stats": { "consul": { "leader": leader } }
            }))
        };
        assert_eq!(about(true, "true").role, Some(Role::Leader));
        assert_eq!(about(true, "false").role, Some(Role::Follower));
        assert_eq!(about(false, "false").role, Some(Role::Client));
        assert_eq!(read_about(&json!(7)), Answer::default());
    }
}
