//! A supervisor or keeper that is stopped with SIGSTOP.

use nix::sys::signal::Signal;

use super::{LEASE, TTL, assert_exited, send};
use crate::loss::{await_held, await_ready, on_each};
use crate::world::{Gate, Ledger, Mode, Proxy, Running, Server, World, millis, poll_until, secs, shared, throughout};

/// Injects a fault in a holder whose command keeps a ledger and ignores TERM, while a waiter queues; panics unless both
/// excluded each other.
fn assert_exclusive(server: &'static dyn Server, endpoint: &str, fault: impl FnOnce(&World, Running, &str)) {
    let world = World::at(server.backend(), endpoint);
    let (name, ledger) = (world.name("fault"), Ledger::new(&world));
    let ignore_term = [&name, "sh", "-c", r#"trap "" TERM; "$@"; exit"#, "sh"];
    let holder = world.distlock().args(LEASE).args(ignore_term).args(ledger.command(secs(100))).spawn();
    poll_until("the holder", secs(30), || ledger.holds().len() == 1);
    let waiter_world = World::on(server);
    let waiter = waiter_world.distlock().args([&name, "--"]).args(ledger.command(millis(100))).spawn();
    poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
    fault(&world, holder, &name);
    waiter.wait().assert_code(0);
    ledger.assert_exclusive(2);
}

#[test]
fn stopped_keeper_and_tree_are_killed_before_lease_expiry() {
    on_each(|server| {
        assert_exclusive(server, &server.url(), |world, holder, _| {
            let stopped_at = send(holder.keeper(), Signal::SIGSTOP);
            // The deadlines count from the last renewal, which was sent before the stop.
            assert_exited(world, &[holder.pid()], stopped_at, TTL);
            let holder = holder.wait().assert_code(76);
            assert!(holder.stderr.contains("was lost"), "{}", holder.describe());
        });
    });
}

#[test]
fn keeper_works_while_the_supervisor_is_stopped() {
    on_each(|server| {
        let proxy = Proxy::to(server.address());
        assert_exclusive(server, &proxy.url(), |world, holder, name| {
            let keeper = holder.keeper();
            let lease =
                server.entries(name).into_iter().min_by_key(|entry| entry.revision).and_then(|entry| entry.lease);
            send(holder.pid(), Signal::SIGSTOP);
            throughout(TTL * 3 / 2, || {
                assert!(server.entries(name).iter().any(|entry| entry.lease == lease), "the lock must stay held");
            });
            proxy.set(Mode::Swallow);
            // The deadlines count from the last confirmed renewal, which was sent before this time.
            assert_exited(world, &[holder.pid(), keeper], distlock::now(), TTL);
            holder.signal(Signal::SIGCONT);
            holder.wait().assert_code(76);
        });
    });
}

#[test]
fn supervisor_stopped_longer_than_the_ttl_continues() {
    let server = shared::etcd35();
    let proxy = Proxy::to(server.address());
    let world = World::at("etcd", &proxy.url());
    let (name, gate, ttl) = (world.name("stopped"), Gate::new(&world), secs(5));
    let command = ["-t", "5", &name, "sh", "-c", r#"echo ready; read -r x <"$1"; exit 7"#, "sh"];
    let mut job = world.distlock().args(command).args([gate.path()]).spawn();
    await_ready(&job);
    let held = await_held(server, &name);
    job.signal(Signal::SIGSTOP);
    throughout(ttl + secs(2), || assert_eq!(await_held(server, &name).lease, held.lease));
    job.signal(Signal::SIGCONT);
    // The supervisor must read its overdue deadlines, and a renewal must follow.
    let before = proxy.bytes();
    throughout(secs(2), || assert!(job.is_running(), "{}", job.stderr()));
    poll_until("a renewal", ttl, || proxy.bytes() != before);
    gate.open();
    job.wait().assert_code(7);
}
