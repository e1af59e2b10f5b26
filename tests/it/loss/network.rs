//! The way to the server is disturbed or gone.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Lease, Loss, READY, Stubborn, assert_told, await_held, await_nothing_left, await_ready, locked, on_each};
use crate::world::{Mode, Proxy, Server, World, millis, once_in, poll_for, poll_until, secs, shared, within};

/// The rule under test: a deadline starts at the last renewal, and nothing else renews. The lock is acquired when the
/// last renewal is so old.
const AGE: Duration = secs(2);

#[test]
fn deadline_counts_from_last_renewal_after_a_long_wait() {
    on_each(|server| once_in(5, || acquired_late(server)));
}

/// An error tells that the lock was not acquired at the moment that this needs.
fn acquired_late(server: &dyn Server) -> Result<(), String> {
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let proxy = Proxy::to(server.address());
    let (first, world) = (World::on(server), World::at(server.backend(), &proxy.url()));
    let name = world.name("jobs/backup");
    let holder = locked(&first, lease, &name).args(["sleep", "300"]).spawn();
    let held = await_held(server, &name);
    let waiter = Stubborn::start(&world, lease, &name);
    let own = poll_for("the waiter", secs(30), || {
        let lease = server.entries(&name).into_iter().rev().find_map(|entry| entry.lease);
        lease.filter(|lease| Some(lease) != held.lease.as_ref())
    });

    // Consul ends a session after twice its TTL at the latest.
    let enough = if server.backend() == "consul" { lease.ttl * 2 } else { lease.ttl } + secs(2);
    let queued = distlock::now();
    poll_until("more than a TTL", enough + secs(30), || {
        assert!(server.leases().contains(&own), "the lease of the waiter ended");
        distlock::now().since(queued) > enough
    });

    let before = proxy.bytes();
    let mut looked = distlock::now();
    poll_until("a renewal", lease.ttl, || {
        let (last, renewed) = (looked, proxy.bytes() != before);
        looked = if renewed { last } else { distlock::now() };
        renewed
    });
    // It was sent after the last look that saw none.
    let renewed = distlock::now();
    within("the look at the renewal", renewed.since(looked), millis(200))?;
    poll_until("the renewal to age", AGE + secs(30), || distlock::now().since(renewed) >= AGE);
    holder.signal(Signal::SIGTERM);
    let started = waiter.await_start();
    proxy.set(Mode::Cut);
    // Later, the next renewal may have come through.
    within("the acquiring", distlock::now().since(renewed), lease.interval() * 9 / 10)?;
    assert!(started.since(renewed) >= AGE);

    let Loss { soft, last, .. } = waiter.await_loss(&world, &name, secs(60));
    // A request is seen here later than it was sent, and a proof of life is 10 ms old at most.
    assert!(last <= renewed + lease.hard(), "alive {:?} after the deadline", last.since(renewed + lease.hard()));
    let late = (soft + millis(10)).since(renewed + lease.soft());
    assert!(late < AGE / 2, "the soft signal came {late:?} late: the acquiring has renewed");
    let early = (renewed + lease.soft()).since(soft);
    assert!(early < millis(1500), "the soft signal came {early:?} early");
    drop(holder);
    await_nothing_left(server, &name, &[own], lease.ttl * 3);
    Ok(())
}

#[test]
fn stubborn_command_is_dead_before_next_holder_runs() {
    // All at once: on Consul each takes two TTLs and the lock-delay.
    thread::scope(|scope| {
        for mode in [Mode::Swallow, Mode::Freeze, Mode::Cut] {
            scope.spawn(move || on_each(|server| no_overlap(server, mode)));
        }
    });
}

fn no_overlap(server: &dyn Server, mode: Mode) {
    let lease = Lease::SHORT;
    let proxy = Proxy::to(server.address());
    let (world, direct) = (World::at(server.backend(), &proxy.url()), World::on(server));
    let name = world.name("jobs/backup");
    let stubborn = Stubborn::start(&world, lease, &name);
    let started = stubborn.await_start();
    let held = await_held(server, &name);
    let next = locked(&direct, lease, &name).args(stubborn.ledger.command(millis(200))).spawn();
    poll_until("the next contender", secs(30), || {
        server.entries(&name).iter().any(|e| e.lease != held.lease && e.lease.is_some())
    });
    // The deadline is to come from a renewal, not from the grant.
    poll_until("a renewal", lease.ttl * 3, || distlock::now().since(started) > lease.interval() + millis(500));

    let sure = distlock::now();
    proxy.set(mode);
    let cut = distlock::now();
    let ledger = crate::world::Ledger::new(&world);
    let Loss { soft, last, finished } = stubborn.await_loss(&world, &name, lease.ttl + secs(30));
    assert!(last <= cut + lease.hard(), "alive {:?} after the deadline", last.since(cut + lease.hard()));
    // No false alarm: while all was well the last renewal was no older than the interval, and a little.
    let earliest = sure + lease.soft() - lease.interval() - secs(1);
    assert!(soft >= earliest, "the soft signal came {:?} early", earliest.since(soft));
    // The shell notes it when it comes to run, which may be late; so KILL is what tells the grace.
    let latest = cut + lease.soft() + lease.grace / 2;
    assert!(soft <= latest, "the soft signal came {:?} late", soft.since(latest));
    assert!(last >= earliest + lease.grace, "killed {:?} early", (earliest + lease.grace).since(last));
    let grace = last.since(soft);
    assert!(grace >= lease.grace / 2, "{grace:?} from soft to dead");
    assert!(finished.stderr.contains("no renewal was confirmed"), "{}", finished.describe());
    assert!(finished.stderr.contains(&proxy.address().to_string()), "{}", finished.describe());

    next.wait_within(lease.ttl * 4).assert_code(0);
    ledger.assert_exclusive(2);
    // The keeper has stayed to end the lease, and needs the servers for it.
    proxy.set(Mode::Pass);
    poll_until("the keeper's end", secs(30), || world.processes().is_empty());
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], lease.ttl * 3);
}

#[test]
fn keeper_revokes_lease_once_server_is_reachable() {
    on_each(|server| {
        once_in(3, || {
            // The command ends at the soft signal, so that there is time before the lease would end by itself.
            let lease = Lease { ttl: secs(15), grace: secs(8) };
            let proxy = Proxy::to(server.address());
            let world = World::at(server.backend(), &proxy.url());
            let name = world.name("jobs/backup");
            let job = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
            await_ready(&job);
            let held = await_held(server, &name).lease.expect("a lease");
            proxy.set(Mode::Cut);
            let job = job.wait_within(lease.ttl).assert_code(76);
            assert_told(&job, &name);
            assert!(server.leases().contains(&held), "{held} has ended by itself");
            proxy.set(Mode::Pass);
            let back = distlock::now();
            await_nothing_left(server, &name, &[held], lease.ttl * 3);
            within("the end of the lease", distlock::now().since(back), secs(1))?;
            poll_until("the end of all processes", secs(30), || world.processes().is_empty());
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
        let started = distlock::now();
        // Without renewals it would be lost by then.
        while distlock::now().since(started) < lease.soft() + secs(1) {
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
            let before = proxy.connections();
            proxy.reset();
            poll_until("another connection", secs(10), || proxy.connections() > before);
        }
        // A renewal is due every 20 s: only the watch can tell sooner.
        server.delete(&held.key);
        let job = job.wait_within(secs(5)).assert_code(76);
        assert_told(&job, &name);
    });
}

/// Something between us and the servers that answers whatever is asked with "not found", as long as the test runs, and
/// counts it.
fn gateway_without_routes() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("the address of a listener");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let length = stream.read(&mut [0; 4096]).unwrap_or(0);
            count.fetch_add(usize::from(length > 0), Ordering::Relaxed);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno route");
        }
    });
    (address, asked)
}

#[test]
fn not_found_from_a_gateway_is_no_loss() {
    let server = shared::consul();
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let proxy = Proxy::to(server.address());
    let (gateway, asked) = gateway_without_routes();
    let world = World::at("consul", &format!("{},http://{gateway}", proxy.url()));
    let name = world.name("jobs/backup");
    let mut job =
        locked(&world, lease, &name).args(["sh", "-c", "echo ready; until [ -e done ]; do sleep 0.05; done"]).spawn();
    await_ready(&job);
    let started = distlock::now();
    while distlock::now().since(started) < lease.soft() + secs(1) {
        // What is asked next is asked of the gateway.
        proxy.reset();
        thread::sleep(millis(700));
        assert!(job.is_running(), "{}", job.stderr());
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked >= 3, "the gateway was asked {asked} times");
    fs::write(world.path().join("done"), "").expect("a file in the world");
    job.wait().assert_code(0);
    assert_eq!(server.entries(&name).len(), 0);
}
