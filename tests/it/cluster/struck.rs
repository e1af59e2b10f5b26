//! One member after the other is struck.

use std::thread;

use super::{Kind, length, soaks};
use crate::loss::{Lease, locked};
use crate::world::{Blow, Cluster, Ledger, Proxy, World, millis, poll_until, secs};

#[test]
fn no_lock_is_lost_when_a_member_is_killed() {
    Kind::each(|kind| each_member_in_turn(kind, Blow::Kill));
}

#[test]
fn no_lock_is_lost_when_a_member_stands_still() {
    Kind::each(|kind| each_member_in_turn(kind, Blow::Pause));
}

#[test]
fn no_lock_is_lost_when_a_member_is_out_of_reach() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        // Its peers do not notice, so all can be out of somebody's reach at once, each out of another one's.
        let proxies: Vec<Vec<Proxy>> = (0..3).map(|_| cluster.more_proxies()).collect();
        thread::scope(|scope| {
            for (n, proxies) in proxies.into_iter().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || {
                    rides_it_out(cluster, &cluster.world_from(n, &proxies), n, &proxies[n], Blow::Cut, kind.short());
                });
            }
        });
    });
}

fn each_member_in_turn(kind: Kind, blow: Blow) {
    let cluster = kind.cluster();
    // Until a server of Consul that was away is a voter again no other may be struck, so one follower is left to a soak.
    let victims = match kind {
        Kind::Consul if !soaks() => vec![cluster.followers()[0], cluster.leader()],
        _ => vec![0, 1, 2],
    };
    for n in victims {
        let lease = if n == cluster.leader() { kind.long() } else { kind.short() };
        rides_it_out(&cluster, &cluster.world_usual(n), n, &cluster.proxies[n], blow, lease);
    }
}

/// A holder and a waiter talk to the member that is struck; both end while it is down still.
///
/// Nothing is said of what follows: a leader of etcd that stood still for longer than a lease may revoke it when it goes
/// on, although it was renewed with the next leader.
fn rides_it_out(cluster: &Cluster, world: &World, n: usize, proxy: &Proxy, blow: Blow, lease: Lease) {
    let (name, ledger) = (world.name("jobs/backup"), Ledger::new(world));
    let job = locked(world, lease, &name).args(ledger.command(length(lease))).spawn();
    poll_until("the command", secs(30), || ledger.holds().len() == 1);
    let waiter = locked(world, lease, &name).args(ledger.command(millis(200))).spawn();
    poll_until("the waiter", secs(30), || cluster.members[n].contenders(&name) == 2);

    cluster.begin(n, proxy, blow);
    let job = job.wait_within(length(lease) + secs(10)).assert_code(0);
    assert_eq!(job.stderr, "", "{blow:?} of member {n}");
    // A release that got no answer leaves the lock to the end of its lease.
    let waiter = waiter.wait_within(lease.ttl * 4).assert_code(0);
    assert_eq!(waiter.stderr, "", "{blow:?} of member {n}");
    ledger.assert_exclusive(2);
    cluster.end(n, proxy, blow);
}

#[test]
fn no_lock_is_lost_when_all_connections_are_reset_every_second() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        let world = cluster.world_from(0, &cluster.proxies);
        let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
        let lease = kind.short();
        let mut job = locked(&world, lease, &name).args(ledger.command(secs(30))).spawn();
        poll_until("the command", secs(30), || ledger.holds().len() == 1);
        let waiter = locked(&world, lease, &name).args(ledger.command(millis(200))).spawn();
        while job.is_running() {
            cluster.proxies.iter().for_each(Proxy::reset);
            thread::sleep(secs(1));
        }
        let job = job.wait().assert_code(0);
        assert_eq!(job.stderr, "");
        let waiter = waiter.wait_within(lease.ttl * 4).assert_code(0);
        assert_eq!(waiter.stderr, "");
        ledger.assert_exclusive(2);
        let connections: usize = cluster.proxies.iter().map(Proxy::connections).sum();
        assert!(connections >= 30, "{connections} connections");
    });
}
