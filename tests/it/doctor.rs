//! `distlock doctor`: its checks, its messages, and that it leaves nothing on the server.

use std::fs;

use serde_json::Value;

use crate::world::{Authority, Consul, Etcd, Mode, Proxy, Run, Server, ServerTls, Version, World};
use crate::world::{Holder, consul, enqueue, etcd, once_in, poll_for, poll_until, secs, shared, within};

/// Runs doctor with `--json` and these arguments; returns its report, which must agree with the exit code.
#[track_caller]
fn examine(run: Run, args: &[&str], code: i32) -> Value {
    let done = run.args(["doctor", "--json"]).args(args).run().assert_code(code);
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.describe()));
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.describe());
    assert_eq!((&report["schema"], &report["exit"], &report["ok"]), (&1.into(), &code.into(), &(code == 0).into()));
    assert_eq!(done.stderr.matches("distlock: error: ").count(), usize::from(code != 0), "{}", done.describe());
    report
}

/// Returns the state of the check with this name, or of the endpoint with this URL.
fn state<'a>(report: &'a Value, check: &str) -> &'a str {
    let lines = ["endpoints", "checks"].into_iter().flat_map(|part| report[part].as_array().expect("an array"));
    let line = lines.into_iter().find(|line| line["name"] == check || line["url"] == check);
    line.and_then(|line| line["state"].as_str()).unwrap_or("missing")
}

fn urls<S: Server>(servers: &[S]) -> String {
    servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
}

#[test]
fn healthy_server_is_reported_and_left_unchanged() {
    for server in shared::all() {
        let world = World::on(server);
        let name = world.name("jobs/doctor");
        let lease = if server.backend() == "etcd" { "lease" } else { "session" };
        let report = examine(world.distlock(), &[&name], 0);
        let endpoint = &report["endpoints"][0];
        assert_eq!((&report["backend"], &report["name"]), (&server.backend().into(), &name.as_str().into()));
        assert_eq!((&endpoint["url"], &endpoint["tls"]), (&server.url().into(), &"off".into()));
        assert_eq!((&endpoint["state"], &endpoint["role"]), (&"ok".into(), &"leader".into()), "{report}");
        assert!(endpoint["version"].as_str().is_some_and(|version| version.contains('.')), "{report}");
        assert!(endpoint["latency_ms"].as_f64().is_some_and(|latency| latency > 0.0), "{report}");
        assert_eq!(state(&report, lease), "ok", "{report}");
        assert_eq!((state(&report, "cluster"), state(&report, "rights")), ("ok", "ok"), "{report}");
        assert_eq!(server.entries(&name).len(), 0);

        let table = world.distlock().args(["doctor"]).run().assert_code(0);
        assert!(table.stdout.starts_with(&format!("ok       {}  ", server.url())), "{}", table.describe());
        assert!(
            table.stdout.ends_with(" can be acquired\n") && !table.stdout.contains("rights"),
            "{}",
            table.describe()
        );
        assert_eq!(table.stderr, "");
    }
}

#[test]
fn no_key_or_lease_is_left_on_the_server() {
    let servers: [Box<dyn Server>; 3] =
        [Box::new(Etcd::start(Version::V34)), Box::new(Etcd::start(Version::V35)), Box::new(Consul::start())];
    for server in &servers {
        let world = World::on(&**server);
        world.distlock().args(["doctor", "/jobs/a"]).run().assert_code(0);
        assert_eq!(server.leases(), Vec::<String>::new(), "{}", server.backend());
        assert_eq!(server.entries("/jobs").len(), 0, "{}", server.backend());
    }
}

#[test]
fn holder_and_waiter_are_not_disturbed() {
    for server in shared::all() {
        let world = World::on(server);
        let name = world.name("busy");
        let mut holder = Holder::of(&world, &name);
        let mut waiter = enqueue(world.distlock(), &name, &["true"]);
        poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
        let before = server.entries(&name);
        assert_eq!(state(&examine(world.distlock(), &[&name], 0), "rights"), "ok");
        assert_eq!(server.entries(&name), before);
        assert!(holder.job.is_running() && waiter.is_running());
        holder.release();
        let waiter = waiter.wait().assert_code(0);
        assert!(!waiter.stderr.contains("joining the queue again"), "{}", waiter.describe());
    }
}

#[test]
fn dead_etcd_member_is_reported_and_lock_is_available() {
    for version in [Version::V34, Version::V35] {
        let etcd = etcd::cluster(version, 3);
        let world = World::at("etcd", &urls(&etcd));
        let dead = once_in(3, || {
            let report = examine(world.distlock(), &["/jobs/a"], 0);
            let leads = |n: &usize| report["endpoints"][n]["role"] == "leader";
            let leaders: Vec<_> = (0..3).filter(leads).collect();
            // Another member may have been elected meanwhile.
            let leader = etcd::leader(&etcd);
            if leaders == [leader] { Ok(leader) } else { Err(format!("{leader} leads: {report}")) }
        });
        etcd[dead].kill();
        check_dead_member(&world, &etcd, dead);
    }
}

#[test]
fn dead_consul_server_is_reported_and_lock_is_available() {
    let servers = consul::cluster(3, 1);
    let dead = consul::leader(&servers);
    let world = World::at("consul", &urls(&servers));
    examine(world.distlock(), &["jobs/a"], 0);

    servers[dead].kill();
    check_dead_member(&world, &servers, dead);
}

/// Waits until doctor reports only this member as dead. The others may have to elect a leader first.
#[track_caller]
fn check_dead_member<S: Server>(world: &World, servers: &[S], dead: usize) {
    let is_as_expected = |report: &Value| {
        let expected = |n| if n == dead { "warning" } else { "ok" };
        servers.iter().enumerate().all(|(n, server)| state(report, &server.url()) == expected(n))
    };
    let report: Value = poll_for("an available lock and one dead member", secs(60), || {
        let done = world.distlock().args(["doctor", "--json", "/jobs/a"]).run();
        let report = serde_json::from_str(&done.stdout).expect("JSON");
        (done.code() == Some(0) && is_as_expected(&report)).then_some(report)
    });
    let message = report["endpoints"][dead]["message"].as_str().unwrap_or_default();
    assert!(message.contains("refused"), "{report}");
    assert!(report["endpoints"][dead]["hint"].is_string(), "{report}");
}

#[test]
fn silent_endpoint_costs_at_most_the_connect_timeout() {
    for server in shared::all() {
        let proxies: Vec<_> = (0..3).map(|_| Proxy::to(server.address())).collect();
        for proxy in &proxies {
            proxy.set(Mode::Swallow);
        }
        let silent: Vec<_> = proxies.iter().map(Proxy::url).collect();
        let world = World::at(server.backend(), &format!("{},{}", silent.join(","), server.url()));
        let run = once_in(3, || {
            let run = world.distlock().args(["--connect-timeout", "2s", "doctor", "--json"]).run().assert_code(0);
            assert!(run.elapsed >= secs(2), "{}", run.describe());
            // The endpoints are checked at the same time: one after another, they would take six seconds.
            within("doctor", run.elapsed, secs(5)).map(|()| run)
        });
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        for url in silent {
            assert_eq!(state(&report, &url), "warning", "{report}");
        }
        assert_eq!(state(&report, &server.url()), "ok", "{report}");
    }
}

#[test]
fn lost_quorum_exits_69() {
    let etcd = etcd::cluster(Version::V34, 3);
    etcd[0].kill();
    etcd[1].kill();
    let world = World::at("etcd", &urls(&etcd));
    let run = || world.distlock().args(["--connect-timeout", "3s", "doctor"]).run();
    // The last member takes a moment to notice.
    let minority = poll_for("the loss of the quorum", secs(30), || Some(run()).filter(|done| done.code() == Some(69)));
    assert!(minority.stdout.ends_with(" cannot be acquired\n"), "{}", minority.describe());
    assert!(minority.stderr.contains("no lock can be acquired"), "{}", minority.describe());
}

#[test]
fn endpoints_of_two_clusters_exit_64() {
    let etcd = [Etcd::start(Version::V35), Etcd::start(Version::V35)];
    let world = World::at("etcd", &urls(&etcd));
    let report = examine(world.distlock(), &[], 64);
    assert_eq!(state(&report, "cluster"), "error", "{report}");
}

#[test]
fn no_reachable_server_exits_69() {
    for backend in ["etcd", "consul"] {
        let world = World::at(backend, "http://127.0.0.1:1,http://127.0.0.1:2");
        let report = examine(world.distlock(), &["/jobs/a"], 69);
        assert_eq!(state(&report, "http://127.0.0.1:1"), "error", "{report}");
        let job = world.distlock().args(["doctor"]).run().assert_code(69);
        assert!(job.stderr.contains("http://127.0.0.1:2: connection refused"), "{}", job.describe());
        assert!(job.stderr.contains("hint: "), "{}", job.describe());
    }
}

#[test]
fn invalid_configuration_exits_64() {
    let world = World::on(shared::consul());
    let refused = world.distlock().args(["doctor", "a//b"]).run().assert_code(64);
    assert!(refused.stderr.contains("a//b"), "{}", refused.describe());
    world.distlock().env("DISTLOCK_TTL", "5s").args(["doctor"]).run().assert_code(64);
    World::new().distlock().args(["doctor", "/x"]).run().assert_code(64);
}

#[test]
fn certificates_are_checked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let tls = ServerTls { pem: authority.server(&["127.0.0.1"]), clients: None };
    let servers: [Box<dyn Server>; 2] =
        [Box::new(Etcd::start_secure(Version::V35, &tls, 300)), Box::new(Consul::start_open(&tls))];
    for server in &servers {
        let world = World::on(&**server);
        let trusting = |authority: &Authority| world.distlock().args(["--cacert".into(), authority.cacert()]);
        let report = examine(trusting(&authority), &["/jobs/a"], 0);
        assert_eq!(report["endpoints"][0]["tls"], "verified", "{report}");
        let report = examine(trusting(&other), &["/jobs/a"], 69);
        assert!(report["endpoints"][0]["tls"].is_null(), "{report}");
        assert!(report["endpoints"][0]["hint"].as_str().is_some_and(|hint| hint.contains("--cacert")), "{report}");
        let report = examine(world.distlock().args(["--insecure-skip-tls-verify"]), &[], 0);
        assert_eq!(report["endpoints"][0]["tls"], "unverified", "{report}");
    }
}

#[test]
fn etcd_login_and_permissions_are_checked() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::start(version);
        etcd.add_user("joe", "right", &["/locks/"]);
        etcd.enable_auth();
        let world = World::on(&etcd);
        let joe = |password: &str| world.distlock().args(["--user", "joe"]).env("ETCDCTL_PASSWORD", password);
        assert_eq!(state(&examine(joe("right"), &["/locks/a"], 0), "rights"), "ok");
        assert_eq!(state(&examine(joe("right"), &[], 0), "login"), "ok");
        let denied = examine(joe("right"), &["/other/a"], 77);
        assert_eq!(state(&denied, "rights"), "error", "{denied}");
        assert!(denied.to_string().contains("readwrite permission on the prefix /other/a/"), "{denied}");
        assert_eq!(state(&examine(joe("wrong"), &["/locks/a"], 77), &etcd.url()), "error");
        assert_eq!(state(&examine(world.distlock(), &[], 77), "login"), "error");
        assert_eq!(state(&examine(world.distlock(), &["/locks/a"], 77), "rights"), "error");
        assert_eq!(etcd.leases(), Vec::<String>::new());
        assert_eq!(etcd.entries("/").len(), 0);
    }
}

#[test]
fn consul_permissions_are_checked() {
    let authority = Authority::new();
    let consul = Consul::start_secure(&ServerTls { pem: authority.server(&["127.0.0.1"]), clients: None });
    let world = World::on(&consul);
    let with = |rules: &str| {
        fs::write(world.path().join("token"), consul.token(rules)).expect("a file");
        world.distlock().args(["--cacert".into(), authority.cacert()]).args(["--token-file", "token"])
    };
    let (sessions, keys) = (r#"session_prefix "" { policy = "write" }"#, r#"key_prefix "locks/" { policy = "write" }"#);
    let least = format!("{sessions}\n{keys}");
    let report = examine(with(&least), &["locks/a"], 0);
    assert!(report["endpoints"][0]["version"].is_null(), "a lock needs no agent:read: {report}");
    assert_eq!(state(&examine(with(&least), &["other/a"], 77), "rights"), "error");
    assert_eq!(state(&examine(with(sessions), &[], 0), "session"), "ok");
    let denied = examine(with(keys), &["locks/a"], 77);
    assert_eq!(state(&denied, "session"), "error", "{denied}");
    assert!(denied.to_string().contains("session:write"), "{denied}");
    assert_eq!(consul.leases(), Vec::<String>::new());
    assert_eq!(consul.entries("").len(), 0);
}

#[test]
fn local_directory_is_checked_and_left_unchanged() {
    let world = World::local();
    let locks = world.path().join("locks");
    assert_eq!(state(&examine(world.distlock(), &["a"], 0), "flock"), "unknown");
    assert!(!locks.exists());
    fs::create_dir(&locks).expect("a directory");
    let report = examine(world.distlock(), &["a"], 0);
    for check in ["directory", "space", "flock", "rights"] {
        assert_eq!(state(&report, check), "ok", "{report}");
    }
    assert_eq!(fs::read_dir(&locks).expect("a directory").count(), 0);
    fs::write(world.path().join("file"), "").expect("a file");
    let file = format!("file://{}/file", world.path().display());
    examine(world.distlock(), &["-e", &file], 64);
}
