//! etcd's leader is stopped, replaced, and goes on: for a while it acknowledges renewals that nobody else knows of.

use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;

use super::on_both_versions;
use crate::loss::{Lease, from_boot, locked};
use crate::world::{
    Etcd, Ledger, Mode, Proxy, Run, Running, Server, Version, World, etcd, let_pass, millis, once_in, poll_until, secs,
};

/// A cluster whose leader can be cut off from the others, a job that knows only the leader, and one behind it in the
/// queue that knows only the others.
struct Split {
    members: Vec<Etcd>,
    proxies: Vec<Proxy>,
    leader: usize,
    /// How the leader signs what it sends to its peers.
    mark: String,
    /// Between the job and the leader.
    way: Proxy,
    world: World,
    others: World,
    name: String,
    ledger: Ledger,
}

impl Split {
    fn start(version: Version) -> Self {
        let (members, proxies) = etcd::cluster_behind_proxies(version);
        let leader = etcd::leader(&members);
        let mark = format!("X-Server-From: {}\r\n", members[leader].member_id());
        let rest = members.iter().enumerate().filter(|&(n, _)| n != leader);
        let others: Vec<_> = rest.map(|(_, member)| member.url()).collect();
        let way = Proxy::to(members[leader].address());
        let (world, others) = (World::at("etcd", &way.url()), World::at("etcd", &others.join(",")));
        let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
        Self { members, proxies, leader, mark, way, world, others, name, ledger }
    }

    /// Stops the leader, and lets nothing pass between it and its peers, either way.
    fn pause(&self) -> Instant {
        let member = &self.members[self.leader];
        member.pause();
        let paused = distlock::now();
        for (n, proxy) in self.proxies.iter().enumerate() {
            if n == self.leader {
                proxy.set(Mode::Cut);
            } else {
                proxy.refuse(Some(&self.mark));
                proxy.reset();
            }
        }
        paused
    }

    /// Lets the leader go on, and waits until it has answered what the job has asked meanwhile.
    fn resume_and_answer(&self, deadline: Instant) -> Result<(), String> {
        let before = self.way.bytes().1;
        self.members[self.leader].resume();
        while self.way.bytes().1 == before {
            if distlock::now() >= deadline {
                return Err("the leader went on and answered nothing in time".to_owned());
            }
            thread::sleep(millis(5));
        }
        Ok(())
    }

    fn heal(&self) {
        self.proxies[self.leader].set(Mode::Pass);
        self.proxies.iter().for_each(|proxy| proxy.refuse(None));
    }

    fn await_another_leader(&self) {
        let another = || (0..3).any(|n| n != self.leader && self.members[n].is_leader());
        poll_until("another leader", secs(30), another);
    }

    /// The holder, whose command ignores the soft signal, and then the waiter. Both run when this returns.
    fn jobs(&self, lease: Lease, holder: Run, hold: Duration) -> (Running, Running) {
        let stubborn = ["sh", "-c", r#"trap "" TERM; exec "$@""#, "stubborn"];
        let holder =
            holder.args(lease.options()).args([&self.name]).args(stubborn).args(self.ledger.command(secs(300))).spawn();
        poll_until("the command", secs(30), || self.ledger.holds().len() == 1);
        let waiter = locked(&self.others, lease, &self.name).args(self.ledger.command(hold)).spawn();
        poll_until("the waiter", secs(30), || self.members[0].contenders(&self.name) == 2);
        (holder, waiter)
    }

    /// The last sign of life of the holder's command.
    fn last(&self) -> Instant {
        from_boot(self.ledger.holds()[0].to)
    }
}

/// A lease that ends while the leader is paused. The waiter's outlives the election, on busy processors too.
const PAUSED: Lease = Lease { ttl: secs(10), grace: secs(1) };

#[test]
fn acknowledgement_of_replaced_leader_extends_no_lease() {
    on_both_versions(|version| once_in(3, || acknowledged_late(version)));
}

/// An error tells that the leader did not come to acknowledge anything before the deadline.
fn acknowledged_late(version: Version) -> Result<(), String> {
    let split = Split::start(version);
    // It is thawed as soon as it is replaced, well before the deadlines.
    let lease = Lease { ttl: secs(20), grace: secs(1) };
    let (holder, waiter) = split.jobs(lease, split.world.distlock(), millis(500));
    let paused = split.pause();
    split.await_another_leader();
    let soft = paused + lease.soft().saturating_sub(lease.interval());
    split.resume_and_answer(soft)?;
    holder.wait_within(lease.ttl * 2).assert_code(76);
    let last = split.last();
    assert!(last <= paused + lease.hard(), "alive {:?} after its deadline", last.since(paused + lease.hard()));
    waiter.wait_within(lease.ttl * 3).assert_code(0);
    split.ledger.assert_exclusive(2);
    assert!(!split.members[split.leader].is_leader(), "it was to be cut off");
    Ok(())
}

#[test]
fn leader_resumed_after_lease_extends_no_lock() {
    on_both_versions(|version| {
        let split = Split::start(version);
        let lease = PAUSED;
        let (holder, waiter) = split.jobs(lease, split.world.distlock(), PAUSED.ttl + secs(1));
        let paused = split.pause();
        let_pass("the lease, and more", PAUSED.ttl + secs(3));
        split.members[split.leader].resume();
        holder.wait().assert_code(76);
        let last = split.last();
        assert!(last <= paused + lease.hard(), "alive {:?} after its deadline", last.since(paused + lease.hard()));
        waiter.wait().assert_code(0);
        split.ledger.assert_exclusive(2);
    });
}

#[test]
fn leader_resumed_after_lease_thaws_no_command() {
    on_both_versions(|version| {
        let split = Split::start(version);
        let lease = PAUSED;
        let relock = split.world.distlock().args(["--on-lost", "relock"]);
        let (mut holder, waiter) = split.jobs(lease, relock, PAUSED.ttl + secs(1));
        let paused = split.pause();
        let_pass("the lease, and more", PAUSED.ttl + secs(3));
        split.resume_and_answer(distlock::now() + secs(10)).expect("it is asked again and again");
        let waiter = waiter.wait().assert_code(0);
        assert!(holder.is_running(), "it stands still: {}", holder.stderr());
        split.heal();
        let holder = holder.wait().assert_code(76);
        assert!(!holder.stderr.contains("the command continues"), "{}", holder.describe());
        assert_eq!(waiter.stderr, "");
        let last = split.last();
        assert!(last <= paused + lease.hard(), "ran {:?} after its deadline", last.since(paused + lease.hard()));
        split.ledger.assert_exclusive(2);
    });
}
