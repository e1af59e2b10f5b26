//! Network faults between distlock and the servers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{
    Lease, Loss, READY, Stubborn, assert_loss_reported, await_held, await_nothing_left, await_ready, locked, on_each,
};
use crate::world::{Ledger, Mode, Proxy, Server, World, millis, once_in, poll_for, poll_until, secs, shared, within};

/// Age of the waiter's last renewal when it acquires the lock. Acquiring must not count as a renewal (rule 1).
const AGE: Duration = secs(2);

#[test]
fn deadline_counts_from_last_renewal_after_a_long_wait() {
    on_each(|server| once_in(5, || acquire_with_old_renewal(server)));
}

/// Returns an error if the lock was not acquired at the required time.
fn acquire_with_old_renewal(server: &dyn Server) -> Result<(), String> {
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let proxy = Proxy::to(server.address());
    let (direct, world) = (World::on(server), World::at(server.backend(), &proxy.url()));
    let name = world.name("jobs/backup");
    let holder = locked(&direct, lease, &name).args(["sleep", "300"]).spawn();
    let held = await_held(server, &name);
    let waiter = Stubborn::start(&world, lease, &name);
    let own_lease = poll_for("the waiter", secs(30), || {
        let lease = server.entries(&name).into_iter().rev().find_map(|entry| entry.lease);
        lease.filter(|lease| Some(lease) != held.lease.as_ref())
    });

    // A session of Consul expires after twice its TTL at the latest.
    let wait = if server.backend() == "consul" { lease.ttl * 2 } else { lease.ttl } + secs(2);
    let queued_at = distlock::now();
    poll_until("more than a TTL", wait + secs(30), || {
        assert!(server.leases().contains(&own_lease), "the waiter's lease must be renewed");
        distlock::now().since(queued_at) > wait
    });

    let bytes_before = proxy.bytes();
    let mut looked_at = distlock::now();
    poll_until("a renewal", lease.ttl, || {
        let (last_look_at, renewed) = (looked_at, proxy.bytes() != bytes_before);
        looked_at = if renewed { last_look_at } else { distlock::now() };
        renewed
    });
    // The renewal was sent after the last look that saw none.
    let renewed_at = distlock::now();
    within("the detection of the renewal", renewed_at.since(looked_at), millis(200))?;
    poll_until("the age of the renewal", AGE + secs(30), || distlock::now().since(renewed_at) >= AGE);
    holder.signal(Signal::SIGTERM);
    let started_at = waiter.await_start();
    proxy.set(Mode::Cut);
    // Later, the next renewal could have succeeded.
    within("the acquisition", distlock::now().since(renewed_at), lease.interval() * 9 / 10)?;
    assert!(started_at.since(renewed_at) >= AGE);

    let Loss { soft_signal_at, last_seen_at, .. } = waiter.await_loss(&world, &name, secs(60));
    // `renewed_at` is later than the renewal's `sent_at`, and the ledger's last note is up to 10 ms old.
    let hard_deadline = renewed_at + lease.hard();
    assert!(last_seen_at <= hard_deadline, "alive {:?} after the hard deadline", last_seen_at.since(hard_deadline));
    let late = (soft_signal_at + millis(10)).since(renewed_at + lease.soft());
    assert!(late < AGE / 2, "the soft signal came {late:?} late: the acquisition counted as a renewal");
    let early = (renewed_at + lease.soft()).since(soft_signal_at);
    assert!(early < millis(1500), "the soft signal came {early:?} early");
    drop(holder);
    await_nothing_left(server, &name, &[own_lease], lease.ttl * 3);
    Ok(())
}

#[test]
fn stubborn_command_is_dead_before_next_holder_runs() {
    // In parallel, because each mode takes two TTLs and the lock-delay on Consul.
    thread::scope(|scope| {
        for mode in [Mode::Swallow, Mode::Freeze, Mode::Cut] {
            scope.spawn(move || on_each(|server| assert_no_overlap(server, mode)));
        }
    });
}

fn assert_no_overlap(server: &dyn Server, mode: Mode) {
    let lease = Lease::SHORT;
    let proxy = Proxy::to(server.address());
    let (world, direct) = (World::at(server.backend(), &proxy.url()), World::on(server));
    let name = world.name("jobs/backup");
    let stubborn = Stubborn::start(&world, lease, &name);
    let started_at = stubborn.await_start();
    let held = await_held(server, &name);
    let next_holder = locked(&direct, lease, &name).args(stubborn.ledger.command(millis(200))).spawn();
    poll_until("the waiter", secs(30), || {
        server.entries(&name).iter().any(|e| e.lease != held.lease && e.lease.is_some())
    });
    // The deadlines must count from a renewal, not from the grant.
    poll_until("a renewal", lease.ttl * 3, || distlock::now().since(started_at) > lease.interval() + millis(500));

    let before_fault = distlock::now();
    proxy.set(mode);
    let after_fault = distlock::now();
    let ledger = Ledger::new(&world);
    let Loss { soft_signal_at, last_seen_at, finished } = stubborn.await_loss(&world, &name, lease.ttl + secs(30));
    let hard_deadline = after_fault + lease.hard();
    assert!(last_seen_at <= hard_deadline, "alive {:?} after the hard deadline", last_seen_at.since(hard_deadline));
    // No false alarm: at the fault the last renewal was at most an interval and a little old.
    let earliest_soft = before_fault + lease.soft() - lease.interval() - secs(1);
    assert!(soft_signal_at >= earliest_soft, "the soft signal came {:?} early", earliest_soft.since(soft_signal_at));
    // The shell may note the soft signal late, so the grace is checked by the time of KILL.
    let latest_soft = after_fault + lease.soft() + lease.grace / 2;
    assert!(soft_signal_at <= latest_soft, "the soft signal came {:?} late", soft_signal_at.since(latest_soft));
    let earliest_kill = earliest_soft + lease.grace;
    assert!(last_seen_at >= earliest_kill, "killed {:?} early", earliest_kill.since(last_seen_at));
    let grace = last_seen_at.since(soft_signal_at);
    assert!(grace >= lease.grace / 2, "{grace:?} from the soft signal to death");
    assert!(finished.stderr.contains("no renewal was confirmed"), "{}", finished.describe());
    assert!(finished.stderr.contains(&proxy.address().to_string()), "{}", finished.describe());

    next_holder.wait_within(lease.ttl * 4).assert_code(0);
    ledger.assert_exclusive(2);
    // The keeper still tries to revoke the lease, for which it needs the servers.
    proxy.set(Mode::Pass);
    poll_until("the exit of the keeper", secs(30), || world.processes().is_empty());
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], lease.ttl * 3);
}

#[test]
fn keeper_revokes_lease_once_server_is_reachable() {
    on_each(|server| {
        once_in(3, || {
            // The command dies of the soft signal, well before the lease expires.
            let lease = Lease { ttl: secs(15), grace: secs(8) };
            let proxy = Proxy::to(server.address());
            let world = World::at(server.backend(), &proxy.url());
            let name = world.name("jobs/backup");
            let job = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
            await_ready(&job);
            let own_lease = await_held(server, &name).lease.expect("a lease");
            proxy.set(Mode::Cut);
            let job = job.wait_within(lease.ttl).assert_code(76);
            assert_loss_reported(&job, &name);
            assert!(server.leases().contains(&own_lease), "{own_lease} expired too early");
            proxy.set(Mode::Pass);
            let reachable_at = distlock::now();
            await_nothing_left(server, &name, &[own_lease], lease.ttl * 3);
            within("the revocation", distlock::now().since(reachable_at), secs(1))?;
            poll_until("the exit of all processes", secs(30), || world.processes().is_empty());
            Ok(())
        });
    });
}

#[test]
fn repeated_connection_resets_are_no_loss() {
    on_each(|server| {
        let lease = Lease::SHORT;
        let proxy = Proxy::to(server.address());
        let world = World::at(server.backend(), &proxy.url());
        let name = world.name("jobs/backup");
        let mut job = locked(&world, lease, &name).args(["sh", "-c", "until [ -e done ]; do sleep 0.05; done"]).spawn();
        await_held(server, &name);
        let started_at = distlock::now();
        // Without renewals the lock would be lost by then.
        while distlock::now().since(started_at) < lease.soft() + secs(1) {
            proxy.reset();
            thread::sleep(millis(700));
            assert!(job.is_running(), "{}", job.stderr());
        }
        fs::write(world.path().join("done"), "").expect("a file in the world");
        let job = job.wait().assert_code(0);
        assert_eq!(job.stderr, "");
        assert!(proxy.connections() > 4, "{} connections", proxy.connections());
        assert_eq!(server.entries(&name).len(), 0);
    });
}

#[test]
fn broken_watch_is_opened_again() {
    on_each(|server| {
        let lease = Lease { ttl: secs(60), grace: secs(1) };
        let proxy = Proxy::to(server.address());
        let world = World::at(server.backend(), &proxy.url());
        let name = world.name("jobs/backup");
        let job = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
        await_ready(&job);
        let held = await_held(server, &name);
        for _ in 0..3 {
            let count = proxy.connections();
            proxy.reset();
            poll_until("another connection", secs(10), || proxy.connections() > count);
        }
        // A renewal is due every 20 s, so only the watch can detect the loss in time.
        server.delete(&held.key);
        let job = job.wait_within(secs(5)).assert_code(76);
        assert_loss_reported(&job, &name);
    });
}

/// Starts a gateway that answers every request with 404 for as long as the test process runs; returns its address and its
/// number of requests.
fn gateway_without_routes() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("the address of a listener");
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let length = stream.read(&mut [0; 4096]).unwrap_or(0);
            counter.fetch_add(usize::from(length > 0), Ordering::Relaxed);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno route");
        }
    });
    (address, requests)
}

#[test]
fn not_found_from_a_gateway_is_no_loss() {
    let server = shared::consul();
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let proxy = Proxy::to(server.address());
    let (gateway, requests) = gateway_without_routes();
    let world = World::at("consul", &format!("{},http://{gateway}", proxy.url()));
    let name = world.name("jobs/backup");
    let mut job =
        locked(&world, lease, &name).args(["sh", "-c", "echo ready; until [ -e done ]; do sleep 0.05; done"]).spawn();
    await_ready(&job);
    let started_at = distlock::now();
    while distlock::now().since(started_at) < lease.soft() + secs(1) {
        // The next request goes to the gateway.
        proxy.reset();
        thread::sleep(millis(700));
        assert!(job.is_running(), "{}", job.stderr());
    }
    let requests = requests.load(Ordering::Relaxed);
    assert!(requests >= 3, "the gateway got {requests} requests");
    fs::write(world.path().join("done"), "").expect("a file in the world");
    job.wait().assert_code(0);
    assert_eq!(server.entries(&name).len(), 0);
}
