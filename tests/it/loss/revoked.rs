//! The lease is revoked, or the key deleted or overwritten, by another client.

use nix::sys::signal::{Signal, kill};

use super::{Lease, assert_error, assert_loss_reported, await_held, await_nothing_left, await_ready, locked, on_each};
use crate::world::{Entry, Gate, Server, World, children, once_in, poll_for, poll_until, secs, shared, state, within};

/// Script with a daemon, an orphan, a background child and a foreground child that all ignore TERM.
const PROCESS_TREE: &str = r#"
trap "" TERM HUP INT
setsid -f sleep 300
(sleep 300 &)
sleep 300 &
echo ready
sleep 300
"#;

#[test]
fn revoked_lease_kills_command_within_a_second() {
    on_each(|server| dead_within_a_second(server, |held| server.end_lease(held.lease.as_ref().expect("a lease"))));
}

#[test]
fn deleted_key_kills_command_within_a_second() {
    on_each(|server| dead_within_a_second(server, |held| server.delete(&held.key)));
}

#[test]
fn overwritten_key_kills_command_within_a_second() {
    for server in [shared::etcd34(), shared::etcd35()] {
        dead_within_a_second(server, |held| {
            // This detaches the key from its lease.
            server.put(&held.key, "foreign");
            server.delete(&held.key);
        });
    }
}

/// Asserts that the whole process tree is dead within a second of the fault.
fn dead_within_a_second(server: &dyn Server, inject: impl Fn(&Entry)) {
    once_in(3, || killed(server, &inject));
}

fn killed(server: &dyn Server, inject: impl Fn(&Entry)) -> Result<(), String> {
    let world = World::on(server);
    let name = world.name("jobs/backup");
    // With a long lease neither deadlines nor renewals detect the loss.
    let lease = Lease { ttl: secs(60), grace: secs(5) };
    let job = locked(&world, lease, &name).args(["sh", "-c", PROCESS_TREE]).spawn();
    await_ready(&job);
    let held = await_held(server, &name);
    let guardians = [job.pid(), job.keeper()];
    let injected_at = distlock::now();
    inject(&held);
    let mut last_seen_at = injected_at;
    poll_until("the death of the process tree", secs(30), || {
        let looked_at = distlock::now();
        let runs = world.processes().iter().any(|pid| !guardians.contains(pid));
        last_seen_at = if runs { looked_at } else { last_seen_at };
        !runs
    });
    let job = job.wait().assert_code(76);
    assert_loss_reported(&job, &name);
    poll_until("the exit of all processes", secs(30), || world.processes().is_empty());
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], secs(30));
    within("the kill", last_seen_at.since(injected_at), secs(1))
}

#[test]
fn lease_revoked_just_before_exit_is_found_at_release() {
    on_each(|server| lose_before_exit(server, |held| server.end_lease(held.lease.as_ref().expect("a lease"))));
}

#[test]
fn key_deleted_just_before_exit_is_found_at_release() {
    on_each(|server| lose_before_exit(server, |held| server.delete(&held.key)));
}

/// Stops the keeper while the lock is lost and the command exits with 0. The resumed keeper first handles the exit, so only
/// the release detects the loss.
fn lose_before_exit(server: &dyn Server, inject: impl FnOnce(&Entry)) {
    let world = World::on(server);
    let name = world.name("jobs/backup");
    let (lease, gate) = (Lease { ttl: secs(60), grace: secs(5) }, Gate::new(&world));
    let job = locked(&world, lease, &name).args(["sh", "-c", r#"read -r x <"$1""#, "sh"]).args([gate.path()]).spawn();
    let held = await_held(server, &name);
    let keeper = job.keeper();
    let command = poll_for("the command", secs(30), || children(keeper).pop());
    kill(keeper, Signal::SIGSTOP).expect("the keeper takes a signal");
    inject(&held);
    gate.open();
    poll_until("the exit of the command", secs(30), || state(command) == Some('Z'));
    kill(keeper, Signal::SIGCONT).expect("the keeper takes a signal");
    let job = job.wait().assert_code(76);
    assert_error(&job, &format!("the lock {name} was lost before the command exited"));
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], secs(30));
}

#[test]
fn waiter_with_revoked_lease_queues_again() {
    on_each(|server| {
        let world = World::on(server);
        let name = world.name("jobs/backup");
        let lease = Lease::SHORT;
        let holder = locked(&world, lease, &name).args(["sleep", "300"]).spawn();
        let held = await_held(server, &name);
        let waiter = locked(&world, lease, &name).args(["echo", "ran"]).spawn();
        let lease_other_than = |known: &[&Option<String>]| {
            poll_for("a position in the queue", secs(30), || {
                let leases = server.entries(&name).into_iter().map(|entry| entry.lease);
                leases.into_iter().find(|lease| lease.is_some() && !known.contains(&lease))
            })
        };
        let first = lease_other_than(&[&held.lease]);
        server.end_lease(first.as_ref().expect("a lease"));
        let second = lease_other_than(&[&held.lease, &first]);
        holder.signal(Signal::SIGTERM);
        let waiter = waiter.wait_within(secs(30)).assert_code(0);
        assert_eq!((&*waiter.stdout, &*waiter.stderr), ("ran\n", ""));
        await_nothing_left(server, &name, &[first, second].map(|lease| lease.expect("a lease")), secs(30));
    });
}
