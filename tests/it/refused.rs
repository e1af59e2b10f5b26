//! Invalid command lines, variables and files, and unreachable servers. Every error has a hint.

use std::fs;
use std::time::Duration;

use crate::world::{Holder, Server, World, everywhere, millis, once_in, secs, shared, within};

/// Asserts that this command line is refused with exit code 64 and a message with these parts.
#[track_caller]
fn assert_usage(world: &World, args: &[&str], parts: &[&str]) {
    let job = world.distlock().args(args).run().assert_code(64);
    assert!(job.stderr.starts_with("distlock: error: "), "{}", job.describe());
    for part in parts {
        assert!(job.stderr.contains(part), "{part:?} in {}", job.describe());
    }
    assert_eq!(job.stdout, "");
}

#[test]
fn invalid_options_exit_64_with_a_hint() {
    let etcd = World::at("etcd", "http://127.0.0.1:1");
    let touch = ["/x", "touch", "ran"];
    let with = |options: &[&'static str]| [options, &touch].concat();
    for (options, parts) in [
        (&["--tt", "5s"][..], &["--tt", "--ttl"][..]),
        (&["--no-such-option"], &["--no-such-option", "hint: "]),
        (&["--ttl", "soon"], &["--ttl", "soon", "15s"]),
        (&["--ttl=-5s"], &["--ttl", "-5s", "15s"]),
        (&["--wait", "1 fortnight"], &["--wait", "fortnight", "forever"]),
        (&["--grace", ""], &["--grace", "15s"]),
        (&["--connect-timeout", "0"], &["--connect-timeout", "greater than zero"]),
        (&["-E", "256"], &["--busy-exit", "256", "0 to 255"]),
        (&["--signal", "NOPE"], &["--signal", "NOPE", "TERM"]),
        (&["--on-lost", "shrug"], &["--on-lost", "shrug", "kill"]),
        (&["--log-format", "xml"], &["--log-format", "xml", "json"]),
        (&["-b", "zookeeper"], &["--backend", "zookeeper", "consul"]),
        (&["-e", "ftp://h:21"], &["--endpoints", "ftp://h:21", "http://HOST:PORT"]),
        (&["-e", "file:///run/lock"], &["--endpoints", "file:///run/lock", "http://HOST:PORT"]),
        (&["-e", "unix:///consul.sock"], &["--endpoints", "unix:///consul.sock", "http://HOST:PORT"]),
        (&["-e", "host"], &["--endpoints", "host", "2379"]),
        (&["-e", "http://u:secret@h:1"], &["--endpoints", "--password-file"]),
        (&["--user", "root:secret"], &["--user", "--password-file"]),
        (&["--config", "/no/such/file"], &["--config", "/no/such/file"]),
        // The TTL must cover two renewals, the grace and the kill.
        (&["--ttl", "2s"], &["TTL of 2s", "hint: choose --ttl"]),
        (&["--ttl", "10s", "--grace", "9s"], &["grace of 9s", "hint: choose --ttl", "--grace"]),
    ] {
        assert_usage(&etcd, &with(options), parts);
    }
    assert!(!etcd.path().join("ran").exists());
    assert_usage(
        &World::at("consul", "127.0.0.1:1"),
        &["-t", "9s", "/x", "true"],
        &["Consul grants no TTL of 9s", "10s"],
    );
    assert_usage(&World::at("consul", "127.0.0.1:1"), &["-t", "25h", "/x", "true"], &["Consul grants no TTL of 25h"]);
}

#[test]
fn secret_in_a_refused_option_is_not_printed() {
    let world = World::at("etcd", "http://127.0.0.1:1");
    for option in [["-e", "http://u:sesame@h:1"], ["--user", "root:sesame"]] {
        let job = world.distlock().args(option).args(["/x", "true"]).run().assert_code(64);
        assert!(!job.stderr.contains("sesame"), "{}", job.describe());
    }
}

#[test]
fn missing_command_exits_64_with_a_hint() {
    let world = World::local();
    for (line, hint) in [
        (&[][..], "distlock NAME -- COMMAND"),
        (&["/x"], "distlock /x -- COMMAND"),
        (&["/x", "--"], "distlock /x -- COMMAND"),
        (&["run"], "distlock NAME -- COMMAND"),
        (&["run", "x"], "distlock x -- COMMAND"),
        (&["backup"], "distlock backup -- COMMAND"),
        (&["/x", "-n", "true"], "options precede NAME: distlock -n /x -- COMMAND"),
        (&["x", "true"], "to lock it: distlock x -- true"),
    ] {
        assert_usage(&world, line, &[hint]);
    }
}

#[test]
fn mistyped_subcommand_is_suggested_and_locks_nothing() {
    let world = World::local();
    assert_usage(
        &world,
        &["statsu", "backup"],
        &["did you mean `status`?", "To lock it: distlock run statsu -- backup"],
    );
    assert!(!world.path().join("locks").exists());
}

#[test]
fn run_locks_names_that_are_subcommands() {
    everywhere(|world| {
        let names = ["status", "run", "statsu", "list", "man"];
        for name in names {
            let job = world.distlock().args(["run", name, "--", "sh", "-c", "echo $DISTLOCK_HELD_NAME"]).run();
            assert_eq!(job.assert_code(0).stdout, format!("{name}\n"));
        }
        // `run status` names a lock, not the subcommand.
        let _holder = Holder::of(world, "status");
        world.distlock().args(["-n", "run", "status", "true"]).run().assert_code(75);
    });
}

#[test]
fn reserved_subcommands_exit_64_with_a_hint() {
    let world = World::local();
    for name in ["status", "list", "acquire", "renew", "release", "verify", "break"] {
        assert_usage(&world, &[name, "backup"], &[&format!("`{name}`"), &format!("distlock run {name} -- COMMAND")]);
    }
}

#[test]
fn ambiguous_or_missing_backend_exits_64() {
    let world = World::new();
    assert_usage(&world, &["/x", "true"], &["no backend is chosen", "-b etcd, -b consul or -b local"]);
    let ambiguous =
        world.distlock().args(["/x", "true"]).env("ETCDCTL_ENDPOINTS", "a:1").env("CONSUL_HTTP_ADDR", "b:2");
    let ambiguous = ambiguous.run().assert_code(64);
    assert!(
        ambiguous.stderr.contains("ETCDCTL_ENDPOINTS") && ambiguous.stderr.contains("CONSUL_HTTP_ADDR"),
        "{}",
        ambiguous.stderr
    );
    assert_usage(&world, &["-b", "etcd", "/x", "true"], &["etcd has no address", "-e https://HOST:2379"]);
}

#[test]
fn invalid_variables_and_files_are_named_in_errors() {
    let world = World::local();
    let stderr_with = |name, value| world.distlock().args(["/x", "true"]).env(name, value).run().assert_code(64).stderr;
    assert!(stderr_with("DISTLOCK_WAIT", "soon").contains("DISTLOCK_WAIT"));
    assert!(stderr_with("DISTLOCK_TRY", "yes").contains("DISTLOCK_TRY"));
    let config = world.path().join("config.toml");
    fs::write(&config, "wiat = \"5s\"\n").expect("a file");
    let unknown = stderr_with("DISTLOCK_CONFIG", config.to_str().expect("UTF-8"));
    assert!(unknown.contains("wiat") && unknown.contains("config.toml"), "{unknown}");
    // An empty variable counts as not set.
    world.distlock().args(["/x", "true"]).env("DISTLOCK_WAIT", "").run().assert_code(0);
}

#[test]
fn no_reachable_server_exits_69_after_connect_timeout() {
    std::thread::scope(|scope| {
        for backend in ["etcd", "consul"] {
            scope.spawn(move || {
                let world = World::at(backend, "http://127.0.0.1:1,http://127.0.0.1:2");
                let unreachable = |options: &[&str], least: Duration| {
                    once_in(3, || {
                        let job = world.distlock().args(options).args(["/x", "echo", "ran"]).run().assert_code(69);
                        assert!(job.elapsed >= least, "{}", job.describe());
                        within("the failure", job.elapsed, least + secs(2)).map(|()| job)
                    })
                };
                let job = unreachable(&["--connect-timeout", "1s"], secs(1));
                assert!(job.stderr.starts_with("distlock: error: no server could be reached"), "{}", job.stderr);
                for part in ["127.0.0.1:1", "127.0.0.1:2", "refused", "hint: "] {
                    assert!(job.stderr.contains(part), "{part:?} in {}", job.describe());
                }
                assert_eq!(job.stdout, "");
                // A shorter --wait fails sooner; --busy-exit does not apply, since no holder is known.
                unreachable(&["-w", "300ms", "-E", "0"], millis(300));
            });
        }
    });
}

#[test]
fn wrong_kind_of_server_fails_without_waiting() {
    let (etcd, consul) = (shared::etcd35(), shared::consul());
    for (backend, address) in [("consul", etcd.url()), ("etcd", consul.url())] {
        let world = World::at(backend, &address);
        let job = world.distlock().args(["--connect-timeout", "1s", "/x", "echo", "ran"]).spawn();
        let job = job.wait();
        assert!(matches!(job.code(), Some(64 | 69)), "{}", job.describe());
        assert!(job.stderr.contains(&address) && job.stderr.contains("hint: "), "{}", job.describe());
        assert_eq!(job.stdout, "");
    }
}
