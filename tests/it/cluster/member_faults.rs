//! One member after the other is struck.

use std::thread;
use std::time::{Duration, Instant};

use super::Kind;
use crate::loss::{Lease, locked};
use crate::world::{
    Cluster, Fault, Ledger, Proxy, Running, World, let_pass, millis, once_in, poll_until, secs, throughout,
};

#[test]
fn killed_member_loses_no_lock() {
    Kind::each(|kind| each_member_in_turn(kind, Fault::Kill));
}

#[test]
fn paused_member_loses_no_lock() {
    Kind::each(|kind| each_member_in_turn(kind, Fault::Pause));
}

#[test]
fn unreachable_member_loses_no_lock() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        // Its peers do not notice, so all can be out of somebody's reach at once, each out of another one's.
        let proxies: Vec<Vec<Proxy>> = (0..3).map(|_| cluster.more_proxies()).collect();
        thread::scope(|scope| {
            for (n, proxies) in proxies.into_iter().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || {
                    let world = cluster.world_from(n, &proxies);
                    Round::start(cluster, &world, n, kind.short(), JOB).ride_out(&proxies[n], Fault::Cut);
                });
            }
        });
    });
}

fn each_member_in_turn(kind: Kind, fault: Fault) {
    let cluster = kind.cluster();
    for n in 0..3 {
        once_in(5, || {
            let leads = n == cluster.leader();
            // A follower that goes on after it stood still takes the leader for gone, and there is an election. Consul's
            // take longer than its short lease lasts, so that is for a job which ends before.
            let elects = matches!((kind, fault), (Kind::Consul, Fault::Pause));
            let rounds = match (leads, elects) {
                (true, _) => vec![(kind.long(), JOB)],
                (false, false) => vec![(kind.short(), JOB)],
                (false, true) => vec![(kind.short(), SHORT_JOB), (kind.long(), JOB)],
            };
            for (lease, length) in rounds {
                let world = cluster.world_usual(n);
                let round = Round::start(&cluster, &world, n, lease, length);
                if leads != (n == cluster.leader()) {
                    return Err(format!("member {n} leads, or does no longer"));
                }
                round.ride_out(&cluster.proxies[n], fault);
            }
            Ok(())
        });
    }
}

/// How long a holder's job takes that sees the member come back.
const JOB: Duration = Duration::from_secs(30);
/// And of one that ends while the member is down.
const SHORT_JOB: Duration = Duration::from_secs(18);
/// For how long a member is down: longer than any lease here but Consul's long one, which is renewed twice in that time.
const DOWN: Duration = Duration::from_secs(20);

/// A holder and a waiter that talk to the member which is struck.
struct Round<'a> {
    cluster: &'a Cluster,
    n: usize,
    lease: Lease,
    length: Duration,
    ledger: Ledger,
    job: Running,
    waiter: Running,
}

impl<'a> Round<'a> {
    /// The one holds and the other waits when this returns.
    fn start(cluster: &'a Cluster, world: &World, n: usize, lease: Lease, length: Duration) -> Self {
        let (name, ledger) = (world.name("jobs/backup"), Ledger::new(world));
        let job = locked(world, lease, &name).args(ledger.command(length)).spawn();
        // Whoever was struck before may have brought an election.
        let bound = Instant::now() + secs(90);
        while ledger.holds().is_empty() {
            assert!(Instant::now() < bound, "the command does not run: {}", job.stderr());
            thread::sleep(millis(20));
        }
        let waiter = locked(world, lease, &name).args(ledger.command(millis(200))).spawn();
        poll_until("the waiter", secs(30), || cluster.members[n].contenders(&name) == 2);
        Self { cluster, n, lease, length, ledger, job, waiter }
    }

    /// They keep the lock and the place behind it.
    fn ride_out(self, proxy: &Proxy, fault: Fault) {
        let Self { cluster, n, lease, length, ledger, mut job, waiter } = self;
        cluster.inject(n, proxy, fault);
        throughout(DOWN, || {
            assert!(job.is_running() || length < DOWN, "{fault:?} of member {n}: {}", job.stderr());
        });
        cluster.remove(n, proxy, fault);
        let job = job.wait_within(JOB).assert_code(0);
        assert_eq!(job.stderr, "", "{fault:?} of member {n}");
        // A release that got no answer leaves the lock to the end of its lease.
        let waiter = waiter.wait_within(lease.ttl * 4).assert_code(0);
        assert_eq!(waiter.stderr, "", "{fault:?} of member {n}");
        ledger.assert_exclusive(2);
        cluster.await_health();
    }
}

#[test]
fn connection_resets_every_second_lose_no_lock() {
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
            let_pass("the time between two resets", secs(1));
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
