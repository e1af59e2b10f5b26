//! Lease settings: refused combinations, and the TTL that the server grants.

use std::fs;
use std::thread;

use distlock_core::duration::show_rounded;

use super::{Lease, READY, assert_loss_reported, await_ready, locked};
use crate::world::{Etcd, Mode, Proxy, Server, Version, World, poll_until, secs};

/// Endpoint of no server; no request is sent.
const UNUSED_ENDPOINT: &str = "http://127.0.0.1:1";

#[test]
fn too_short_renewal_window_is_refused_with_arithmetic() {
    for backend in ["etcd", "consul"] {
        let world = World::at(backend, UNUSED_ENDPOINT);
        let job = world.distlock().args(["-t", "10s", "--grace", "9s", "/x", "touch", "ran"]).run().assert_code(64);
        for part in [
            "10s",
            "9s",
            "1 %",
            "100ms",
            "500ms",
            "300ms",
            "caused by: ",
            "--ttl 11s or more",
            "--grace 8300ms or less",
        ] {
            assert!(job.stderr.contains(part), "{part}: {}", job.describe());
        }
        assert!(job.stderr.starts_with("distlock: error: "), "{}", job.describe());
        assert!(!world.path().join("ran").exists());
    }
}

#[test]
fn too_short_lock_delay_is_refused() {
    let world = World::at("consul", UNUSED_ENDPOINT);
    fs::write(world.path().join("config.toml"), "[consul]\nlock_delay = \"3s\"\n").expect("a file in the world");
    let job =
        world.distlock().args(["--config", "config.toml", "-t", "15s", "/x", "touch", "ran"]).run().assert_code(64);
    assert!(job.stderr.contains("lock_delay"), "{}", job.describe());
    assert!(!world.path().join("ran").exists());
}

#[test]
fn ttl_below_consul_minimum_is_refused() {
    let world = World::at("consul", UNUSED_ENDPOINT);
    let job = world.distlock().args(["-t", "9s", "/x", "touch", "ran"]).run().assert_code(64);
    assert!(job.stderr.contains("10s"), "{}", job.describe());
    assert!(!world.path().join("ran").exists());
}

#[test]
fn ttl_granted_by_etcd_is_used_and_reported() {
    let test = |version| {
        // The minimum of etcd is one and a half times its election timeout: six seconds.
        let server = Etcd::start_with(version, &["--heartbeat-interval=400", "--election-timeout=4000"]);
        let (requested, granted) = (Lease { ttl: secs(4), grace: secs(1) }, Lease { ttl: secs(6), grace: secs(1) });
        let proxy = Proxy::to(server.address());
        let world = World::at("etcd", &proxy.url());
        let (name, other_name) = (world.name("jobs/backup"), world.name("jobs/restore"));
        let job = world.distlock().args(["-v"]).args(requested.options()).args([&*name, "sh", "-c", READY]).spawn();
        let message = "granted a TTL of 6s, the server's minimum, instead of 4s";
        poll_until("the message", secs(30), || job.stderr().contains(message));
        drop(job);

        let job = locked(&world, requested, &other_name).args(["sh", "-c", READY]).spawn();
        await_ready(&job);
        let cut_at = distlock::now();
        proxy.set(Mode::Cut);
        let job = job.wait_within(granted.ttl + secs(30)).assert_code(76);
        assert_loss_reported(&job, &other_name);
        // With the requested TTL the command would have been killed earlier.
        assert!(distlock::now().since(cut_at) > requested.soft(), "{}", job.describe());
        let cause = format!("no renewal was confirmed within {}", show_rounded(granted.soft()));
        assert!(job.stderr.contains(&cause), "{cause}: {}", job.describe());
    };
    thread::scope(|scope| {
        for version in [Version::V34, Version::V35] {
            scope.spawn(move || test(version));
        }
    });
}
