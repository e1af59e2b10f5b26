//! Measurements, which run with `--ignored`: the duration of elections, and the TTL from which a lock outlives them.
//! docs/design.md lists the results.

use super::Kind;
use crate::loss::{Lease, locked};
use crate::world::{Cluster, Fault, millis, poll_until, secs};

const ROUNDS: usize = 3;

#[test]
#[ignore = "a measurement that takes minutes"]
fn measure_election_times() {
    Kind::each(|kind| {
        for fault in [Fault::Kill, Fault::Pause] {
            let cluster = kind.cluster();
            let mut times: Vec<_> = (0..ROUNDS).map(|_| election(&cluster, fault)).collect();
            times.sort_unstable();
            println!("{kind:?}: without a leader after {fault:?}, in ms: {times:?}");
        }
    });
}

/// Returns the milliseconds from the fault to the first read that a new leader confirms.
fn election(cluster: &Cluster, fault: Fault) -> u128 {
    let leader = cluster.leader();
    cluster.inject(leader, &cluster.proxies[leader], fault);
    let injected_at = distlock::now();
    let has_new_leader =
        || (0..3).filter(|&n| n != leader).any(|n| cluster.members[n].leads() && cluster.members[n].serves());
    poll_until("another leader", secs(120), has_new_leader);
    let duration = distlock::now().since(injected_at);
    cluster.heal(leader, &cluster.proxies[leader], fault);
    duration.as_millis()
}

#[test]
#[ignore = "a measurement that takes minutes"]
fn measure_ttls_that_outlive_an_election() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        let ttls: &[u64] = match kind {
            Kind::Etcd(_) => &[3, 4, 5, 6, 8],
            Kind::Consul => &[10, 15, 20, 30],
        };
        for &ttl in ttls {
            let survived = (0..ROUNDS).filter(|&round| outlives(&cluster, secs(ttl), round)).count();
            println!("{kind:?}: TTL {ttl} s, grace 1 s: {survived} of {ROUNDS} locks outlived the death of the leader");
        }
    });
}

fn outlives(cluster: &Cluster, ttl: std::time::Duration, round: usize) -> bool {
    let leader = cluster.leader();
    let lease = Lease { ttl, grace: secs(1) };
    let world = cluster.world_usual(leader);
    let name = world.name("jobs/backup");
    let job = locked(&world, lease, &name).args(["sleep".to_owned(), (ttl + secs(5)).as_secs().to_string()]).spawn();
    poll_until("the holder", secs(30), || cluster.members[leader].contenders(&name) == 1);
    // Each round injects the fault at another time between two renewals.
    std::thread::sleep(
        lease.interval() * u32::try_from(round).expect("few") / u32::try_from(ROUNDS).expect("few") + millis(50),
    );
    cluster.inject(leader, &cluster.proxies[leader], Fault::Kill);
    let code = job.wait_within(ttl * 3 + secs(10)).code();
    cluster.heal(leader, &cluster.proxies[leader], Fault::Kill);
    code == Some(0)
}

#[test]
#[ignore = "a measurement that takes minutes"]
fn measure_locks_that_outlive_a_resumed_leader() {
    Kind::each(|kind| {
        let lease = kind.long();
        let cluster = kind.cluster();
        let kept = (0..ROUNDS).filter(|_| outlives_resumed_leader(&cluster, lease)).count();
        println!("{kind:?}: {kept} of {ROUNDS} locks outlived a leader that resumed after {:?}", lease.ttl + secs(2));
    });
}

fn outlives_resumed_leader(cluster: &Cluster, lease: Lease) -> bool {
    let leader = cluster.leader();
    let world = cluster.world_usual(leader);
    let name = world.name("jobs/backup");
    let pause = lease.ttl + secs(2);
    let job = locked(&world, lease, &name).args(["sleep".to_owned(), (pause + secs(8)).as_secs().to_string()]).spawn();
    poll_until("the holder", secs(30), || cluster.members[leader].contenders(&name) == 1);
    cluster.inject(leader, &cluster.proxies[leader], Fault::Pause);
    std::thread::sleep(pause);
    cluster.heal(leader, &cluster.proxies[leader], Fault::Pause);
    let job = job.wait_within(lease.ttl * 3);
    if job.code() != Some(0) {
        println!("{}", job.stderr);
    }
    job.code() == Some(0)
}
