//! Users, tokens and permissions.

use nix::sys::signal::{self, Signal};
use serde_json::Value;

use super::{IMMEDIATELY, assert_error_names, trusting};
use crate::world::{Authority, Consul, Etcd, Run, Server, ServerTls, Version, World, descendants, poll_for, secs};

/// An etcd that requires a client certificate and a password, and whose auth tokens expire after 3 s.
struct Guarded {
    authority: Authority,
    etcd: Etcd,
}

const PASSWORD: &str = "the-users-password";

impl Guarded {
    fn start(version: Version, prefixes: &[&str]) -> Self {
        let authority = Authority::new();
        let tls = ServerTls { pem: authority.server(&["127.0.0.1"]), clients: Some(authority.cacert()) };
        let etcd = Etcd::start_secure(version, &tls, 3);
        etcd.add_user("joe", PASSWORD, prefixes);
        etcd.enable_auth();
        Self { authority, etcd }
    }

    /// Returns distlock with the client certificate, as user joe with this password.
    fn distlock(&self, world: &World, password: &str) -> Run {
        self.without_user(world).args(["--user", "joe"]).env("ETCDCTL_PASSWORD", password)
    }

    /// Returns distlock with the client certificate only.
    fn without_user(&self, world: &World) -> Run {
        trusting(world, &self.authority.cacert()).args(self.authority.client().options())
    }
}

#[test]
fn job_outlives_its_auth_tokens() {
    for version in [Version::V34, Version::V35] {
        let guarded = Guarded::start(version, &["/locks/"]);
        let world = World::on(&guarded.etcd);
        let name = "/locks/tokens";
        // Tokens expire after 3 s and the lease is renewed every 5 s, so each renewal has an expired token.
        let run = |report: &str, command: &[&str]| {
            let options = ["-v", "--log-format", "json", "--ttl", "15", "--report", report, name];
            guarded.distlock(&world, PASSWORD).args(options).args(command).spawn()
        };
        let job = run("job.json", &["sleep", "15"]);
        let held = poll_for("the lock", secs(30), || guarded.etcd.entries(name).pop());
        let waiter = run("waiter.json", &["true"]);
        for job in [job, waiter] {
            let job = job.wait().assert_code(0);
            for line in job.stderr.lines() {
                let event: Value = serde_json::from_str(line).expect("an event");
                // An expired token fails one attempt; the next attempt has a fresh token.
                let expired_token = event["cause"].as_str().is_some_and(|cause| cause.contains("invalid auth token"));
                let problem = event["event"] == "rejoining" || (event["event"] == "uncertain" && !expired_token);
                assert!(!problem, "{}", job.describe());
            }
        }
        let report: Value = serde_json::from_str(&world.wait_for_file("job.json")).expect("a report");
        assert!(report["renewals"].as_u64() >= Some(1), "{report}");
        assert_eq!(guarded.etcd.entries(name).len(), 0, "{held:?} must be released");
    }
}

#[test]
fn etcd_error_names_wrong_password_or_permission() {
    for version in [Version::V34, Version::V35] {
        let guarded = Guarded::start(version, &["/locks/a/", "/locks/b"]);
        let world = World::on(&guarded.etcd);
        let locked = |run: Run, name: &str| run.args([name, "true"]).spawn().wait_within(IMMEDIATELY);
        locked(guarded.distlock(&world, PASSWORD), "/locks/a").assert_code(0);
        locked(guarded.distlock(&world, PASSWORD), "/locks/b").assert_code(0);
        let denied = locked(guarded.distlock(&world, "wrong"), "/locks/a").assert_code(77);
        assert_error_names(&denied, &["joe", "password"]);
        let denied = locked(guarded.distlock(&world, PASSWORD), "/locks/c").assert_code(77);
        assert_error_names(&denied, &["joe", "/locks/c/", "readwrite"]);
        assert_error_names(&locked(guarded.without_user(&world), "/locks/a").assert_code(77), &["--user"]);
        assert_eq!(guarded.etcd.leases().len(), 0, "no lease may be left");
    }
}

#[test]
fn supervisor_releases_dead_keepers_lock_with_credentials() {
    let guarded = Guarded::start(Version::V35, &["/locks/"]);
    let world = World::on(&guarded.etcd);
    let job = guarded.distlock(&world, PASSWORD).args(["--ttl", "60", "/locks/a", "sleep", "60"]).spawn();
    poll_for("the command", secs(30), || descendants(job.keeper()).pop());
    signal::kill(job.keeper(), Signal::SIGKILL).unwrap();
    job.wait_within(secs(30)).assert_code(76);
    assert_eq!(guarded.etcd.leases().len(), 0);
}

/// Rule for the harness's node name, `consul`.
const SESSIONS: &str = r#"session "consul" { policy = "write" }"#;

fn keys(name: &str) -> String {
    format!(r#"key_prefix "{name}/" {{ policy = "write" }}"#)
}

#[test]
fn consul_error_names_the_missing_permission() {
    let authority = Authority::new();
    let tls = ServerTls { pem: authority.server(&["127.0.0.1"]), clients: None };
    let consul = Consul::start_secure(&tls);
    let world = World::on(&consul);
    let token = |rules: &str| {
        let file = world.path().join("token");
        std::fs::write(&file, consul.token(rules) + "\n").unwrap();
        trusting(&world, &authority.cacert()).args(["--token-file", "token"])
    };
    let sufficient = format!("{SESSIONS}\n{}", keys("locks/a"));
    // Two contenders, because waiting must not need more permissions than holding.
    let first = token(&sufficient).args(["locks/a", "sleep", "1"]).spawn();
    let second = token(&sufficient).args(["locks/a", "sleep", "1"]).spawn();
    first.wait_within(secs(30)).assert_code(0);
    second.wait_within(secs(30)).assert_code(0);

    let denied = |run: Run| run.args(["locks/a", "true"]).spawn().wait_within(IMMEDIATELY).assert_code(77);
    assert_error_names(&denied(token(&keys("locks/a"))), &["session:write"]);
    assert_error_names(&denied(token(SESSIONS)), &["key:write", "locks/a/"]);
    assert_error_names(&denied(token(&format!("{SESSIONS}\n{}", keys("locks/b")))), &["key:write", "locks/a/"]);
    assert_error_names(&denied(trusting(&world, &authority.cacert())), &["--token-file", "session:write"]);
    let unknown =
        trusting(&world, &authority.cacert()).env("CONSUL_HTTP_TOKEN", "5ec4e7b0-0000-0000-0000-000000000000");
    assert_error_names(&denied(unknown), &["no such token"]);
    assert_eq!(consul.leases().len(), 0, "no session may be left");
    assert_eq!(consul.entries("locks/").len(), 0);
}
