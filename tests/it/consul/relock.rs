//! `--on-lost relock`: a lock's key outlives the session that held it.

use std::fs;
use std::time::Instant;

use crate::loss::{Lease, READY, await_held, await_ready};
use crate::world::{
    Mode, Proxy, Recorded, Recorder, Run, Server, World, let_pass, once_in, poll_until, secs, shared, within,
};

const LEASE: Lease = Lease { ttl: secs(10), grace: secs(1) };

/// Returns a job with relock and a lock-delay of so many seconds.
fn relocking(world: &World, lock_delay_seconds: u32) -> Run {
    let file = world.path().join("config.toml");
    fs::write(&file, format!("[consul]\nlock_delay = \"{lock_delay_seconds}s\"\n")).expect("a file in the world");
    let options = ["-v", "--on-lost", "relock", "--config"];
    world.distlock().args(options).args([file]).args(LEASE.options())
}

#[test]
fn relock_succeeds_after_the_lock_delay() {
    let consul = shared::consul();
    let proxy = Proxy::to(consul.address());
    let world = World::at("consul", &proxy.url());
    let name = world.name("jobs/backup");
    let job =
        relocking(&world, 4).args([&*name, "sh", "-c", "echo ready; until [ -e done ]; do sleep 0.1; done"]).spawn();
    await_ready(&job);
    let session = await_held(consul, &name).lease.expect("a session");
    proxy.set(Mode::Freeze);
    poll_until("the expiry of the session", secs(25), || !consul.leases().contains(&session));
    let_pass("the lock-delay, which no server reports", secs(5));
    proxy.set(Mode::Pass);
    poll_until("the command to continue", secs(10), || job.stderr().contains("the command continues"));
    fs::write(world.path().join("done"), "").expect("a file in the world");
    job.wait_within(secs(10)).assert_code(0);
    poll_until("the deletion of all keys", secs(2), || consul.entries(&name).is_empty());
}

/// Redirects blocking queries to a key that does not exist, so that they report no change.
pub(super) fn blind_watches(mut request: Recorded) -> Recorded {
    request.line = request.line.replace("GET /v1/kv/", "GET /v1/nothing/");
    request
}

#[test]
fn renewed_session_without_the_lock_confirms_nothing() {
    once_in(3, renewal_without_lock);
}

/// Returns an error if the command was killed because it could not be frozen in time.
fn renewal_without_lock() -> Result<(), String> {
    let consul = shared::consul();
    let recorder = Recorder::to(consul.address(), blind_watches);
    let world = World::at("consul", &recorder.url());
    let name = world.name("jobs/backup");
    let job = relocking(&world, 10).args([&name, "sh", "-c", READY]).spawn();
    await_ready(&job);
    // The session survives, and only its renewals are answered.
    let held = await_held(consul, &name).key;
    let deleted = Instant::now();
    consul.delete(&held);
    let job = job.wait_within(secs(30)).assert_code(76);
    within("the loss seen by the next renewal", deleted.elapsed(), LEASE.interval() + secs(3))?;
    let after_relock = job.stderr.contains("may have held the lock in between\n  hint: ");
    let not_frozen = job.stderr.contains("is no longer held by session");
    assert!(after_relock || not_frozen, "{}", job.describe());
    if after_relock { Ok(()) } else { Err(job.describe()) }
}
