//! Faults of one member at a time, and of all connections, lose no lock.

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
        // The peers do not notice such a fault, so each job can lose another member at the same time.
        let proxies: Vec<Vec<Proxy>> = (0..3).map(|_| cluster.more_proxies()).collect();
        thread::scope(|scope| {
            for (n, proxies) in proxies.into_iter().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || {
                    let world = cluster.world_from(n, &proxies);
                    Round::start(cluster, &world, n, kind.short(), JOB).assert_outlives(&proxies[n], Fault::Cut);
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
            // A follower that resumes after a pause considers the leader failed and causes an election. Consul's take
            // longer than its short lease, so only a job that ends before the resumption can have that lease.
            let causes_election = matches!((kind, fault), (Kind::Consul, Fault::Pause));
            let rounds = match (leads, causes_election) {
                (true, _) => vec![(kind.long(), JOB)],
                (false, false) => vec![(kind.short(), JOB)],
                (false, true) => vec![(kind.short(), SHORT_JOB), (kind.long(), JOB)],
            };
            for (lease, job_time) in rounds {
                let world = cluster.world_usual(n);
                let round = Round::start(&cluster, &world, n, lease, job_time);
                if leads != (n == cluster.leader()) {
                    return Err(format!("leadership of member {n} changed"));
                }
                round.assert_outlives(&cluster.proxies[n], fault);
            }
            Ok(())
        });
    }
}

/// Duration of a holder's job that runs until after the member's recovery.
const JOB: Duration = Duration::from_secs(30);
/// Duration of a holder's job that ends while the member is down.
const SHORT_JOB: Duration = Duration::from_secs(18);
/// Duration of a fault: longer than any lease here except Consul's long one, which is renewed twice meanwhile.
const DOWN: Duration = Duration::from_secs(20);

/// A holder and a waiter whose first endpoint is the faulty member.
struct Round<'a> {
    cluster: &'a Cluster,
    member: usize,
    lease: Lease,
    job_time: Duration,
    ledger: Ledger,
    job: Running,
    waiter: Running,
}

impl<'a> Round<'a> {
    /// Starts both. The holder has the lock and the waiter is in the queue when this returns.
    fn start(cluster: &'a Cluster, world: &World, member: usize, lease: Lease, job_time: Duration) -> Self {
        let (name, ledger) = (world.name("jobs/backup"), Ledger::new(world));
        let job = locked(world, lease, &name).args(ledger.command(job_time)).spawn();
        // The previous fault may have caused an election.
        let start_deadline = Instant::now() + secs(90);
        while ledger.holds().is_empty() {
            assert!(Instant::now() < start_deadline, "the command does not run: {}", job.stderr());
            thread::sleep(millis(20));
        }
        let waiter = locked(world, lease, &name).args(ledger.command(millis(200))).spawn();
        poll_until("the waiter", secs(30), || cluster.members[member].contenders(&name) == 2);
        Self { cluster, member, lease, job_time, ledger, job, waiter }
    }

    /// Injects a fault, and asserts that the holder keeps the lock and the waiter its position.
    fn assert_outlives(self, proxy: &Proxy, fault: Fault) {
        let Self { cluster, member, lease, job_time, ledger, mut job, waiter } = self;
        cluster.inject(member, proxy, fault);
        throughout(DOWN, || {
            assert!(job.is_running() || job_time < DOWN, "{fault:?} of member {member}: {}", job.stderr());
        });
        cluster.remove(member, proxy, fault);
        let job = job.wait_within(JOB).assert_code(0);
        assert_eq!(job.stderr, "", "{fault:?} of member {member}");
        // After an unanswered release the lock is free only when its lease expires.
        let waiter = waiter.wait_within(lease.ttl * 4).assert_code(0);
        assert_eq!(waiter.stderr, "", "{fault:?} of member {member}");
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
            let_pass("the pause between two resets", secs(1));
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
