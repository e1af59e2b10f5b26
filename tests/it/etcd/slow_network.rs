//! Servers that are well and far away.

use std::fs;
use std::panic::catch_unwind;
use std::thread;

use crate::loss::{Lease, await_ready, locked};
use crate::world::{Mode, Proxy, Server, Version, World, millis, poll_until, secs, shared};

const UNTIL_DONE: &str = "echo ready; until [ -e done ]; do sleep 0.05; done";

/// Keeps a lock over several renewals, at so many milliseconds from here to there and back.
fn held_across(lease: Lease, round_trip: u64, proxies: &[Proxy]) {
    for proxy in proxies {
        proxy.set(Mode::Delay(millis(round_trip / 2)));
    }
    let world = World::at("etcd", &proxies.iter().map(Proxy::url).collect::<Vec<_>>().join(","));
    let name = world.name("x");
    let mut job = locked(&world, lease, &name).args(["sh", "-c", UNTIL_DONE]).spawn();
    await_ready(&job);
    let started = distlock::now();
    poll_until("several renewals", lease.ttl * 4, || {
        assert!(
            job.is_running(),
            "lost after {:?} at {round_trip} ms: {}",
            distlock::now().since(started),
            job.stderr()
        );
        distlock::now().since(started) > lease.ttl * 3 / 2
    });
    fs::write(world.path().join("done"), "").expect("a file in the world");
    let job = job.wait_within(secs(10)).assert_code(0);
    assert_eq!(job.stderr, "", "{round_trip} ms");
}

#[test]
fn long_round_trips_lose_no_lock() {
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    thread::scope(|scope| {
        // The second takes longer than one try may take.
        for round_trip in [700, 1200] {
            scope.spawn(move || held_across(lease, round_trip, &[Proxy::to(shared::etcd35().address())]));
        }
        // There are others, which are as far away.
        scope.spawn(|| held_across(lease, 900, &[(); 2].map(|()| Proxy::to(shared::etcd34().address()))));
    });
}

/// Tells the greatest round-trip times, in milliseconds, at which short leases last; needs a machine with nothing else to do.
#[test]
#[ignore = "measures"]
fn measure_round_trips_that_keep_a_lock() {
    for (ttl, round_trips) in [(3, [90, 150, 200, 250, 300]), (5, [200, 400, 600, 700, 800])] {
        let lease = Lease { ttl: secs(ttl), grace: secs(1) };
        for round_trip in round_trips {
            let held = || held_across(lease, round_trip, &[Proxy::to(shared::etcd35().address())]);
            println!("TTL {ttl} s, {round_trip} ms: {}", if catch_unwind(held).is_ok() { "held" } else { "lost" });
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
    let before = members[0].entries(&name).pop().expect("the key");
    let leader = crate::world::etcd::leader(&members);
    members[leader].hand_over_to(&members[(leader + 1) % 3]);
    poll_until("a fresh lease", lease.ttl * 2, || {
        assert!(job.is_running(), "{}", job.stderr());
        members[0].entries(&name).pop().is_some_and(|entry| entry.lease != before.lease)
    });
    let changed = distlock::now();
    poll_until("renewals of it", lease.ttl * 3, || {
        assert!(job.is_running(), "{}", job.stderr());
        distlock::now().since(changed) > lease.ttl
    });
    fs::write(world.path().join("done"), "").expect("a file in the world");
    assert_eq!(job.wait_within(secs(10)).assert_code(0).stderr, "");
}
