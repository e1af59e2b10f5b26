//! The arithmetic of a lease, as users meet it.

use std::fs;
use std::thread;

use distlock_core::duration::show_rounded;

use super::{Lease, READY, assert_told, await_ready, locked};
use crate::world::{Etcd, Mode, Proxy, Server, Version, World, poll_until, secs};

/// Nothing listens there, and nothing is asked.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn too_short_renewal_window_is_refused_with_arithmetic() {
    for backend in ["etcd", "consul"] {
        let world = World::at(backend, NOWHERE);
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
    let world = World::at("consul", NOWHERE);
    fs::write(world.path().join("config.toml"), "[consul]\nlock_delay = \"3s\"\n").expect("a file in the world");
    let job =
        world.distlock().args(["--config", "config.toml", "-t", "15s", "/x", "touch", "ran"]).run().assert_code(64);
    assert!(job.stderr.contains("lock_delay"), "{}", job.describe());
    assert!(!world.path().join("ran").exists());
}

#[test]
fn ttl_below_consul_minimum_is_refused() {
    let world = World::at("consul", NOWHERE);
    let job = world.distlock().args(["-t", "9s", "/x", "touch", "ran"]).run().assert_code(64);
    assert!(job.stderr.contains("10s"), "{}", job.describe());
    assert!(!world.path().join("ran").exists());
}

#[test]
fn ttl_granted_by_etcd_is_used_and_reported() {
    let test = |version| {
        // etcd grants no less than one and a half times its election timeout: six seconds.
        let server = Etcd::start_with(version, &["--heartbeat-interval=400", "--election-timeout=4000"]);
        let (asked, granted) = (Lease { ttl: secs(4), grace: secs(1) }, Lease { ttl: secs(6), grace: secs(1) });
        let proxy = Proxy::to(server.address());
        let world = World::at("etcd", &proxy.url());
        let (name, another) = (world.name("jobs/backup"), world.name("jobs/restore"));
        let job = world.distlock().args(["-v"]).args(asked.options()).args([&*name, "sh", "-c", READY]).spawn();
        let told = "granted a TTL of 6s, the server's minimum, instead of 4s";
        poll_until("the report", secs(30), || job.stderr().contains(told));
        drop(job);

        let job = locked(&world, asked, &another).args(["sh", "-c", READY]).spawn();
        await_ready(&job);
        let cut = distlock::now();
        proxy.set(Mode::Cut);
        let job = job.wait_within(granted.ttl + secs(30)).assert_code(76);
        assert_told(&job, &another);
        // The one asked for would have ended it at the latest by now.
        assert!(distlock::now().since(cut) > asked.soft(), "{}", job.describe());
        let cause = format!("no renewal was confirmed within {}", show_rounded(granted.soft()));
        assert!(job.stderr.contains(&cause), "{cause}: {}", job.describe());
    };
    thread::scope(|scope| {
        for version in [Version::V34, Version::V35] {
            scope.spawn(move || test(version));
        }
    });
}
