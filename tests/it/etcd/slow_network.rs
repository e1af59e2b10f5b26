//! Healthy servers behind a slow network.

use std::fs;
use std::panic::catch_unwind;
use std::thread;

use crate::loss::{Lease, await_ready, locked};
use crate::world::{Mode, Proxy, Server, Version, World, millis, poll_until, secs, shared};

const UNTIL_DONE: &str = "echo ready; until [ -e done ]; do sleep 0.05; done";

/// Holds a lock over several renewals with round trips of so many milliseconds.
fn hold_across(lease: Lease, round_trip_ms: u64, proxies: &[Proxy]) {
    for proxy in proxies {
        proxy.set(Mode::Delay(millis(round_trip_ms / 2)));
    }
    let world = World::at("etcd", &proxies.iter().map(Proxy::url).collect::<Vec<_>>().join(","));
    let name = world.name("x");
    let mut job = locked(&world, lease, &name).args(["sh", "-c", UNTIL_DONE]).spawn();
    await_ready(&job);
    let started_at = distlock::now();
    poll_until("several renewals", lease.ttl * 4, || {
        assert!(
            job.is_running(),
            "lost after {:?} at {round_trip_ms} ms: {}",
            distlock::now().since(started_at),
            job.stderr()
        );
        distlock::now().since(started_at) > lease.ttl * 3 / 2
    });
    fs::write(world.path().join("done"), "").expect("a file in the world");
    let job = job.wait_within(secs(10)).assert_code(0);
    assert_eq!(job.stderr, "", "{round_trip_ms} ms");
}

#[test]
fn long_round_trips_lose_no_lock() {
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    thread::scope(|scope| {
        // The second one is longer than the timeout of one attempt.
        for round_trip_ms in [700, 1200] {
            scope.spawn(move || hold_across(lease, round_trip_ms, &[Proxy::to(shared::etcd35().address())]));
        }
        // The other endpoint is as slow.
        scope.spawn(|| hold_across(lease, 900, &[(); 2].map(|()| Proxy::to(shared::etcd34().address()))));
    });
}

/// Prints the longest round trips, in milliseconds, with which short leases survive; needs an idle machine.
#[test]
#[ignore = "a measurement"]
fn measure_round_trips_that_keep_a_lock() {
    for (ttl_seconds, round_trips_ms) in [(3, [90, 150, 200, 250, 300]), (5, [200, 400, 600, 700, 800])] {
        let lease = Lease { ttl: secs(ttl_seconds), grace: secs(1) };
        for round_trip_ms in round_trips_ms {
            let hold = || hold_across(lease, round_trip_ms, &[Proxy::to(shared::etcd35().address())]);
            println!(
                "TTL {ttl_seconds} s, {round_trip_ms} ms: {}",
                if catch_unwind(hold).is_ok() { "held" } else { "lost" }
            );
        }
    }
}

#[test]
fn leader_change_on_slow_network_loses_no_lock() {
    let members = crate::world::etcd::cluster(Version::V35, 3);
    let proxies: Vec<_> = members.iter().map(|member| Proxy::to(member.address())).collect();
    for proxy in &proxies {
        proxy.set(Mode::Delay(millis(300)));
    }
    let world = World::at("etcd", &proxies[0].url());
    let name = world.name("x");
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let mut job = locked(&world, lease, &name).args(["sh", "-c", UNTIL_DONE]).spawn();
    await_ready(&job);
    let old_entry = members[0].entries(&name).pop().expect("the key");
    let leader = crate::world::etcd::leader(&members);
    members[leader].hand_over_to(&members[(leader + 1) % 3]);
    poll_until("a fresh lease", lease.ttl * 2, || {
        assert!(job.is_running(), "{}", job.stderr());
        members[0].entries(&name).pop().is_some_and(|entry| entry.lease != old_entry.lease)
    });
    let changed_at = distlock::now();
    poll_until("renewals of the fresh lease", lease.ttl * 3, || {
        assert!(job.is_running(), "{}", job.stderr());
        distlock::now().since(changed_at) > lease.ttl
    });
    fs::write(world.path().join("done"), "").expect("a file in the world");
    assert_eq!(job.wait_within(secs(10)).assert_code(0).stderr, "");
}
