//! Relock: the way back to a lock whose key outlives its sessions.

use std::fs;
use std::time::Instant;

use crate::loss::{Lease, READY, await_held, await_ready};
use crate::world::{
    Mode, Proxy, Recorded, Recorder, Run, Server, World, let_pass, once_in, poll_until, secs, shared, within,
};

const LEASE: Lease = Lease { ttl: secs(10), grace: secs(1) };

/// A job that is to take its lock again, and whose lock-delay is this long.
fn relocking(world: &World, lock_delay: u32) -> Run {
    let file = world.path().join("config.toml");
    fs::write(&file, format!("[consul]\nlock_delay = \"{lock_delay}s\"\n")).expect("a file in the world");
    let options = ["-v", "--on-lost", "relock", "--config"];
    world.distlock().args(options).args([file]).args(LEASE.options())
}

#[test]
fn a_lock_is_taken_again_after_its_lock_delay_is_over() {
    let consul = shared::consul();
    let proxy = Proxy::to(consul.address());
    let world = World::at("consul", &proxy.url());
    let name = world.name("jobs/backup");
    let job =
        relocking(&world, 4).args([&*name, "sh", "-c", "echo ready; until [ -e done ]; do sleep 0.1; done"]).spawn();
    await_ready(&job);
    let held = await_held(consul, &name).lease.expect("a lease");
    proxy.set(Mode::Freeze);
    poll_until("the end of the session", secs(25), || !consul.leases().contains(&held));
    let_pass("the lock-delay, which no server reports", secs(5));
    proxy.set(Mode::Pass);
    poll_until("the way back", secs(10), || job.stderr().contains("goes on"));
    fs::write(world.path().join("done"), "").expect("a file in the world");
    job.wait_within(secs(10)).assert_code(0);
    poll_until("the end of all keys", secs(2), || consul.entries(&name).is_empty());
}

/// Nobody is told of changes: what waits for one is asked for at a place where nothing is.
fn deaf(mut request: Recorded) -> Recorded {
    request.line = request.line.replace("GET /v1/kv/", "GET /v1/nothing/");
    request
}

#[test]
fn a_renewal_of_a_session_that_lost_the_lock_confirms_nothing() {
    once_in(3, renewal_without_lock);
}

/// Returns an error if the command was killed because it could not be frozen in time.
fn renewal_without_lock() -> Result<(), String> {
    let consul = shared::consul();
    let recorder = Recorder::to(consul.address(), deaf);
    let world = World::at("consul", &recorder.url());
    let name = world.name("jobs/backup");
    let job = relocking(&world, 10).args([&name, "sh", "-c", READY]).spawn();
    await_ready(&job);
    // The session lives on, and only renewals are answered.
    let held = await_held(consul, &name).key;
    let deleted = Instant::now();
    consul.delete(&held);
    let job = job.wait_within(secs(30)).assert_code(76);
    within("the way to the next renewal", deleted.elapsed(), LEASE.interval() + secs(3))?;
    let causes = ["may have held the lock in between", "is no longer held by this session"];
    let [after_relock, not_frozen] = causes.map(|cause| job.stderr.contains(&format!("{cause}\n  hint: ")));
    assert!(after_relock || not_frozen, "{}", job.describe());
    if after_relock { Ok(()) } else { Err(job.describe()) }
}
