//! Scope of a lock on Consul (namespace, partition, datacenter), and unix sockets.

use super::{IMMEDIATELY, assert_error_names, patient};
use crate::world::{Consul, Recorded, Recorder, Server, World, poll_for, secs, shared};

/// Removes what only Consul Enterprise accepts.
fn without_enterprise(mut request: Recorded) -> Recorded {
    for part in ["ns=team+a", "partition=part"] {
        request.line = request.line.replace(part, "");
    }
    for part in [r#","Namespace":"team a""#, r#","Partition":"part""#] {
        request.body = request.body.replace(part, "");
    }
    request
}

/// Returns the requests of one job with these options and variables.
fn requests(options: &[&str], variables: &[(&str, &str)]) -> Vec<Recorded> {
    let recorder = Recorder::to(shared::consul().address(), without_enterprise);
    let world = World::at("consul", &recorder.url());
    let job = world.distlock().args(options).args([&*world.name("scope"), "true"]);
    let job = variables.iter().fold(job, |job, (name, value)| job.env(name, value));
    job.spawn().wait_within(secs(30)).assert_code(0);
    let requests = recorder.requests();
    for path in ["session/create", "txn", "session/destroy"] {
        assert!(requests.iter().any(|request| request.line.contains(path)), "no {path}: {requests:?}");
    }
    requests
}

#[test]
fn every_request_names_namespace_partition_and_datacenter() {
    let flags = requests(&["--namespace", "team a", "--partition", "part", "--datacenter", "dc1"], &[]);
    let variables = [("CONSUL_NAMESPACE", "team a"), ("CONSUL_PARTITION", "part"), ("DISTLOCK_DATACENTER", "dc1")];
    for request in flags.into_iter().chain(requests(&[], &variables)) {
        for part in ["ns=team+a", "partition=part", "dc=dc1"] {
            assert!(request.line.contains(part), "no {part}: {request:?}");
        }
        if request.line.contains("/v1/txn") {
            let operations: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            for operation in operations.as_array().unwrap() {
                assert_eq!(operation["KV"]["Namespace"], "team a");
                assert_eq!(operation["KV"]["Partition"], "part");
            }
        }
    }
}

#[test]
fn requests_omit_scope_that_is_not_given() {
    for request in requests(&[], &[]) {
        for part in ["ns=", "partition=", "dc="] {
            assert!(!request.line.contains(part), "{part}: {request:?}");
        }
        assert!(!request.body.contains("Namespace") && !request.body.contains("Partition"), "{request:?}");
    }
}

#[test]
fn every_request_carries_token_and_login() {
    let variables = [("CONSUL_HTTP_TOKEN", "anonymous"), ("CONSUL_HTTP_AUTH", "joe:pw")];
    for request in requests(&[], &variables) {
        let has = |line: &str| request.headers.iter().any(|header| header.eq_ignore_ascii_case(line));
        // The login is "joe:pw" in base64.
        assert!(has("X-Consul-Token: anonymous") && has("Authorization: Basic am9lOnB3"), "{request:?}");
    }
}

#[test]
fn unknown_datacenter_is_refused() {
    let consul = shared::consul();
    let world = World::on(consul);
    world.distlock().args(["--datacenter", "dc1", &world.name("dc"), "true"]).run().assert_code(0);
    let job = patient(&world).args(["--datacenter", "mars", &world.name("dc"), "true"]).spawn();
    assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(64), &["No path to datacenter", "--datacenter"]);
}

#[test]
fn lock_is_held_over_a_unix_socket() {
    let world = World::new();
    let socket = world.path().join("consul.sock");
    let consul = Consul::start_on_socket(&socket);
    let url = format!("unix://{}", socket.display());
    let name = world.name("socket");
    let by_flag = world.distlock().args(["-b", "consul", "-e", &url, &name, "sleep", "1"]).spawn();
    let held = poll_for("the lock", secs(30), || consul.entries(&name).into_iter().find(|entry| entry.lease.is_some()));
    assert!(held.key.starts_with(name.trim_start_matches('/')), "{held:?}");
    by_flag.wait().assert_code(0);
    world.distlock().env("CONSUL_HTTP_ADDR", &url).args([&*name, "true"]).run().assert_code(0);
    assert_eq!(consul.leases().len(), 0);
}
