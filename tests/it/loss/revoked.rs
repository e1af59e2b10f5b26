//! Somebody ends the lease or deletes the key.

use nix::sys::signal::{Signal, kill};

use super::{Lease, assert_error, assert_told, await_held, await_nothing_left, await_ready, locked, on_each};
use crate::world::{Entry, Gate, Server, World, children, once_in, poll_for, poll_until, secs, shared, state, within};

/// Everything that a shell can leave below itself, and none of it minds TERM.
const FAMILY: &str = r#"
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
            // etcd takes the key from its lease by this.
            server.put(&held.key, "somebody's");
            server.delete(&held.key);
        });
    }
}

/// The promise is a second until nothing of the command runs.
fn dead_within_a_second(server: &dyn Server, harm: impl Fn(&Entry)) {
    once_in(3, || killed(server, &harm));
}

fn killed(server: &dyn Server, harm: impl Fn(&Entry)) -> Result<(), String> {
    let world = World::on(server);
    let name = world.name("jobs/backup");
    // A long lease: its deadline and its renewals have no part in this.
    let lease = Lease { ttl: secs(60), grace: secs(5) };
    let job = locked(&world, lease, &name).args(["sh", "-c", FAMILY]).spawn();
    await_ready(&job);
    let held = await_held(server, &name);
    let own = [job.pid(), job.keeper()];
    let harmed = distlock::now();
    harm(&held);
    let mut last = harmed;
    poll_until("the end of the command", secs(30), || {
        let look = distlock::now();
        let runs = world.processes().iter().any(|pid| !own.contains(pid));
        last = if runs { look } else { last };
        !runs
    });
    let job = job.wait().assert_code(76);
    assert_told(&job, &name);
    poll_until("the end of all processes", secs(30), || world.processes().is_empty());
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], secs(30));
    within("the end of the command", last.since(harmed), secs(1))
}

#[test]
fn lease_revoked_just_before_exit_is_found_at_release() {
    on_each(|server| lost_before_the_end(server, |held| server.end_lease(held.lease.as_ref().expect("a lease"))));
}

#[test]
fn key_deleted_just_before_exit_is_found_at_release() {
    on_each(|server| lost_before_the_end(server, |held| server.delete(&held.key)));
}

/// The keeper is stopped while the lock is lost and the command returns 0: when it goes on it learns of the command
/// first, and of the loss only by what the release finds.
fn lost_before_the_end(server: &dyn Server, harm: impl FnOnce(&Entry)) {
    let world = World::on(server);
    let name = world.name("jobs/backup");
    let (lease, gate) = (Lease { ttl: secs(60), grace: secs(5) }, Gate::new(&world));
    let job = locked(&world, lease, &name).args(["sh", "-c", r#"read -r x <"$1""#, "sh"]).args([gate.path()]).spawn();
    let held = await_held(server, &name);
    let keeper = job.keeper();
    let command = poll_for("the command", secs(30), || children(keeper).pop());
    kill(keeper, Signal::SIGSTOP).expect("the keeper takes a signal");
    harm(&held);
    gate.open();
    poll_until("the end of the command", secs(30), || state(command) == Some('Z'));
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
        let waiter = locked(&world, lease, &name).args(["echo", "mine"]).spawn();
        let another = |than: &[&Option<String>]| {
            poll_for("a place in the queue", secs(30), || {
                let leases = server.entries(&name).into_iter().map(|entry| entry.lease);
                leases.into_iter().find(|lease| lease.is_some() && !than.contains(&lease))
            })
        };
        let first = another(&[&held.lease]);
        server.end_lease(first.as_ref().expect("a lease"));
        let second = another(&[&held.lease, &first]);
        holder.signal(Signal::SIGTERM);
        let waiter = waiter.wait_within(secs(30)).assert_code(0);
        assert_eq!((&*waiter.stdout, &*waiter.stderr), ("mine\n", ""));
        await_nothing_left(server, &name, &[first, second].map(|lease| lease.expect("a lease")), secs(30));
    });
}
