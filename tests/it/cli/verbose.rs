//! `-v` reports each step; with `--no-lock` no message claims a lock.

use std::fs;

use serde_json::{Value, json};

use crate::world::{Server, World, everywhere, shared};

/// Asserts that distlock's lines on stderr begin with these texts, in this order; other lines may come between them.
#[track_caller]
fn assert_steps(stderr: &str, starts: &[&str]) {
    let mut lines = stderr.lines().filter_map(|line| line.strip_prefix("distlock: "));
    for start in starts {
        assert!(lines.any(|line| line.starts_with(start)), "no {start:?}, or not in the order {starts:?}: {stderr}");
    }
}

#[test]
fn verbose_reports_each_step() {
    everywhere(|world| {
        let line = "sleep 300 >/dev/null 2>&1 & exit 7";
        let job = world.distlock().args(["-v", &world.name("x"), "sh", "-c", line]).run().assert_code(7);
        let backend = world.distlock().into_command().get_args().nth(1).map(|name| name.to_string_lossy().into_owned());
        let backend_step = format!("{} at ", backend.unwrap_or_default());
        let steps = [&backend_step, "acquired, token ", "the command runs", "the command exited with code 7"];
        assert_steps(&job.stderr, &steps);
        assert_steps(&job.stderr, &["terminating processes that outlived the command", "the lock is released"]);
    });
}

#[test]
fn source_of_the_address_is_named() {
    let url = shared::etcd35().url();
    let world = World::new();
    let job = world.distlock().env("ETCDCTL_ENDPOINTS", &url).args(["-v", "/x", "true"]).run().assert_code(0);
    assert_steps(&job.stderr, &[&format!("etcd at {url} (from ETCDCTL_ENDPOINTS)")]);
    fs::write(world.path().join("c.toml"), format!("[etcd]\nendpoints = \"{url}\"\n")).expect("a file");
    let job = world.distlock().args(["--config", "c.toml", "-v", "/x", "true"]).run().assert_code(0);
    assert_steps(&job.stderr, &[&format!("etcd at {url} (from c.toml: [etcd] endpoints)")]);
    // An error for an unreachable server names the source too.
    let job =
        world.distlock().env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").args(["--connect-timeout", "100ms", "/x", "true"]);
    let job = job.run().assert_code(69);
    assert!(job.stderr.contains("hint: check the addresses from ETCDCTL_ENDPOINTS"), "{}", job.describe());
}

#[test]
fn no_lock_run_reports_no_acquisition() {
    let world = World::new();
    let job =
        world.distlock().args(["--no-lock", "-v", "--report", "r.json", "/x", "sleep", "0.1"]).run().assert_code(0);
    assert!(job.stderr.contains("without a lock"), "{}", job.describe());
    assert!(!job.stderr.contains("acquired") && !job.stderr.contains("released"), "{}", job.describe());
    let report: Value = serde_json::from_str(&world.wait_for_file("r.json")).expect("JSON");
    assert_eq!((&report["token"], &report["held"], &report["backend"]), (&Value::Null, &json!(0.0), &Value::Null));
    assert_eq!(report["outcome"], "exited");
}
