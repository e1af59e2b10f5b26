//! A paused leader of etcd is replaced and resumes: for a while it acknowledges renewals that its cluster does not know.

use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;

use super::on_both_versions;
use crate::loss::{Lease, from_boot, locked};
use crate::world::{
    Etcd, Ledger, Mode, Proxy, Run, Running, Server, Version, World, etcd, let_pass, millis, once_in, poll_until, secs,
};

/// A cluster whose leader can be isolated, a holder that knows only the leader's endpoint, and a waiter that knows only the
/// other endpoints.
struct Split {
    members: Vec<Etcd>,
    proxies: Vec<Proxy>,
    leader: usize,
    /// Header of the leader's requests to its peers.
    peer_header: String,
    /// Proxy between the holder and the leader.
    leader_proxy: Proxy,
    world: World,
    others: World,
    name: String,
    ledger: Ledger,
}

impl Split {
    fn start(version: Version) -> Self {
        let (members, proxies) = etcd::cluster_behind_proxies(version);
        let leader = etcd::leader(&members);
        let peer_header = format!("X-Server-From: {}\r\n", members[leader].member_id());
        let rest = members.iter().enumerate().filter(|&(n, _)| n != leader);
        let others: Vec<_> = rest.map(|(_, member)| member.url()).collect();
        let leader_proxy = Proxy::to(members[leader].address());
        let (world, others) = (World::at("etcd", &leader_proxy.url()), World::at("etcd", &others.join(",")));
        let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
        Self { members, proxies, leader, peer_header, leader_proxy, world, others, name, ledger }
    }

    /// Stops the leader with SIGSTOP and cuts its connections to its peers in both directions.
    fn pause(&self) -> Instant {
        let member = &self.members[self.leader];
        member.pause();
        let paused_at = distlock::now();
        for (n, proxy) in self.proxies.iter().enumerate() {
            if n == self.leader {
                proxy.set(Mode::Cut);
            } else {
                proxy.refuse(Some(&self.peer_header));
                proxy.reset();
            }
        }
        paused_at
    }

    /// Resumes the leader, and waits until it has answered the holder's requests of the meantime.
    fn resume_and_answer(&self, deadline: Instant) -> Result<(), String> {
        let bytes_before = self.leader_proxy.bytes().1;
        self.members[self.leader].resume();
        while self.leader_proxy.bytes().1 == bytes_before {
            if distlock::now() >= deadline {
                return Err("the resumed leader answered no request in time".to_owned());
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
        let has_new_leader = || (0..3).any(|n| n != self.leader && self.members[n].is_leader());
        poll_until("another leader", secs(30), has_new_leader);
    }

    /// Starts the holder, whose command ignores the soft signal, and then the waiter. The waiter is in the queue when this
    /// returns.
    fn jobs(&self, lease: Lease, holder: Run, hold: Duration) -> (Running, Running) {
        let stubborn = ["sh", "-c", r#"trap "" TERM; exec "$@""#, "stubborn"];
        let holder =
            holder.args(lease.options()).args([&self.name]).args(stubborn).args(self.ledger.command(secs(300))).spawn();
        poll_until("the command", secs(30), || self.ledger.holds().len() == 1);
        let waiter = locked(&self.others, lease, &self.name).args(self.ledger.command(hold)).spawn();
        poll_until("the waiter", secs(30), || self.members[0].contenders(&self.name) == 2);
        (holder, waiter)
    }

    /// Returns when the holder's command was last seen to run.
    fn last_seen_at(&self) -> Instant {
        from_boot(self.ledger.holds()[0].to)
    }
}

#[track_caller]
fn assert_dead_in_time(last_seen_at: Instant, hard_deadline: Instant) {
    let late = last_seen_at.since(hard_deadline);
    assert!(last_seen_at <= hard_deadline, "the command ran {late:?} after its hard deadline");
}

/// A lease that expires while the leader is paused. The waiter's outlives the election, even on busy processors.
const LEASE: Lease = Lease { ttl: secs(10), grace: secs(1) };

#[test]
fn acknowledgement_of_replaced_leader_extends_no_lease() {
    on_both_versions(|version| once_in(3, || acknowledge_after_replacement(version)));
}

/// Returns an error if the leader acknowledged no request before the deadline.
fn acknowledge_after_replacement(version: Version) -> Result<(), String> {
    let split = Split::start(version);
    // The leader resumes as soon as it is replaced, well before the deadlines.
    let lease = Lease { ttl: secs(20), grace: secs(1) };
    let (holder, waiter) = split.jobs(lease, split.world.distlock(), millis(500));
    let paused_at = split.pause();
    split.await_another_leader();
    let soft_deadline = paused_at + lease.soft().saturating_sub(lease.interval());
    split.resume_and_answer(soft_deadline)?;
    holder.wait_within(lease.ttl * 2).assert_code(76);
    let last_seen_at = split.last_seen_at();
    assert_dead_in_time(last_seen_at, paused_at + lease.hard());
    waiter.wait_within(lease.ttl * 3).assert_code(0);
    split.ledger.assert_exclusive(2);
    assert!(!split.members[split.leader].is_leader(), "the paused leader must stay isolated");
    Ok(())
}

#[test]
fn leader_resumed_after_lease_extends_no_lock() {
    on_both_versions(|version| {
        let split = Split::start(version);
        let lease = LEASE;
        let (holder, waiter) = split.jobs(lease, split.world.distlock(), lease.ttl + secs(1));
        let paused_at = split.pause();
        let_pass("more than the lease", lease.ttl + secs(3));
        split.members[split.leader].resume();
        holder.wait().assert_code(76);
        let last_seen_at = split.last_seen_at();
        assert_dead_in_time(last_seen_at, paused_at + lease.hard());
        waiter.wait().assert_code(0);
        split.ledger.assert_exclusive(2);
    });
}

#[test]
fn leader_resumed_after_lease_thaws_no_command() {
    on_both_versions(|version| {
        let split = Split::start(version);
        let lease = LEASE;
        let relock = split.world.distlock().args(["--on-lost", "relock"]);
        let (mut holder, waiter) = split.jobs(lease, relock, lease.ttl + secs(1));
        let paused_at = split.pause();
        let_pass("more than the lease", lease.ttl + secs(3));
        split.resume_and_answer(distlock::now() + secs(10)).expect("an answer to one of the retries");
        let waiter = waiter.wait().assert_code(0);
        assert!(holder.is_running(), "the holder must wait while its command is frozen: {}", holder.stderr());
        split.heal();
        let holder = holder.wait().assert_code(76);
        assert!(!holder.stderr.contains("the command continues"), "{}", holder.describe());
        assert_eq!(waiter.stderr, "");
        let last_seen_at = split.last_seen_at();
        assert_dead_in_time(last_seen_at, paused_at + lease.hard());
        split.ledger.assert_exclusive(2);
    });
}
