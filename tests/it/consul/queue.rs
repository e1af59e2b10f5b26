//! The queue: its order, the time to pass dead waiters, and the requests of waiters.

use std::fs;
use std::time::{Duration, Instant};

use super::{crash, enqueue_labelled, pause, resume};
use crate::world::{
    Holder, Proxy, Recorder, Run, Server, World, enqueue, once_in, poll_until, secs, shared, throughout, within,
};

/// The flags of a lock's key.
const LOCK_FLAGS: u64 = 3_304_740_253_564_472_344;

fn queue_length(name: &str) -> usize {
    shared::consul().entries(&format!("{name}/.queue/")).len()
}

fn await_no_keys(name: &str) {
    let keys = || shared::consul().entries(name).into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    poll_until(&format!("the deletion of {:?}", keys()), secs(2), || keys().is_empty());
}

#[test]
fn expiry_of_dead_first_waiter_keeps_the_order() {
    once_in(3, first_waiter_dies);
}

fn first_waiter_dies() -> Result<(), String> {
    let world = World::on(shared::consul());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    crash(enqueue(world.distlock().args(["-t", "10s"]), &name, &["true"]));
    let waiters = ["1", "2", "3"].map(|label| enqueue_labelled(&world, &name, label));
    // A session expires after twice its TTL at the latest.
    poll_until("the expiry of the dead waiter's session", secs(25), || queue_length(&name) == 3);
    holder.release();
    let released_at = Instant::now();
    for job in waiters {
        job.wait_within(secs(30)).assert_code(0);
    }
    let drained = released_at.elapsed();
    assert_eq!(fs::read_to_string(world.path().join("order")).expect("an order"), "1\n2\n3\n");
    await_no_keys(&name);
    within("draining the queue", drained, secs(4))
}

#[test]
fn six_dead_waiters_are_passed_in_five_seconds() {
    once_in(3, six_dead_waiters);
}

fn six_dead_waiters() -> Result<(), String> {
    let world = World::on(shared::consul());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    for _ in 0..6 {
        crash(enqueue(world.distlock().args(["-t", "60s"]), &name, &["true"]));
    }
    let recorder = Recorder::to(shared::consul().address(), |request| request);
    let observed = World::at("consul", &recorder.url());
    let waiters = ["1", "2"].map(|label| enqueue_labelled(&observed, &name, label));
    // A waiter also watches the lock's key after some time without a change in the queue.
    let watch = format!("GET /v1/kv{name}/.lock?");
    let watches = || recorder.requests().iter().filter(|request| request.line.starts_with(&watch)).count();
    poll_until("both waiters to watch the lock", secs(30), || watches() == waiters.len());
    holder.release();
    let released_at = Instant::now();
    for job in waiters {
        job.wait_within(secs(20)).assert_code(0);
    }
    let passed = released_at.elapsed();
    assert_eq!(fs::read_to_string(observed.path().join("order")).expect("an order"), "1\n2\n");
    within("passing the dead waiters", passed, secs(5))
}

#[test]
fn newcomer_does_not_pass_a_slow_waiter() {
    let world = World::on(shared::consul());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let first = enqueue_labelled(&world, &name, "first");
    let pids = pause(&first);
    holder.release();
    // The lock is free, but the first waiter is slow to acquire it.
    world.distlock().args(["--try", &name, "true"]).run().assert_code(75);
    let keys: Vec<_> = shared::consul().entries(&name).into_iter().map(|entry| entry.key).collect();
    assert!(keys.len() == 1 && keys[0].contains("/.queue/"), "{keys:?}");
    let newcomer = enqueue_labelled(&world, &name, "newcomer");
    resume(&pids);
    first.wait_within(secs(5)).assert_code(0);
    newcomer.wait_within(secs(5)).assert_code(0);
    assert_eq!(fs::read_to_string(world.path().join("order")).expect("an order"), "first\nnewcomer\n");
    await_no_keys(&name);
}

#[test]
fn leftover_lock_key_without_session_is_free() {
    let world = World::on(shared::consul());
    let name = world.name("left");
    shared::consul().put(&format!("{name}/.lock"), LOCK_FLAGS, "");
    world.distlock().args(["--try", &name, "true"]).run().assert_code(0);
    await_no_keys(&name);
}

#[test]
fn next_holder_deletes_queue_entry_of_dead_waiter() {
    let consul = shared::consul();
    let world = World::on(consul);
    let name = world.name("leftover");
    let holder = Holder::of(&world, &name);
    let waiter = enqueue(world.distlock().args(["--on-lost", "relock"]), &name, &["true"]);
    let entry = consul.entries(&format!("{name}/.queue/")).pop().expect("a queue entry");
    crash(waiter);
    consul.end_lease(&entry.lease.expect("a session"));
    holder.release();
    assert_eq!(queue_length(&name), 1);
    world.distlock().args([&name, "true"]).run().assert_code(0);
    await_no_keys(&name);
}

#[test]
fn long_wait_sends_only_renewals() {
    once_in(3, wait_without_requests);
}

/// Returns an error if the test took so long that a renewal was due.
fn wait_without_requests() -> Result<(), String> {
    let consul = shared::consul();
    let (world, proxy) = (World::on(consul), Proxy::to(consul.address()));
    let proxied = World::at("consul", &proxy.url());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let (started_at, interval) = (Instant::now(), secs(20));
    let waiters: Vec<_> = (0..3).map(|_| enqueue(proxied.distlock().args(["-t", "60s"]), &name, &["true"])).collect();
    // Longer than it takes until the last waiter also watches the lock's key.
    let (mut count, mut changed_at) = (proxy.requests(), Instant::now());
    poll_until("a pause of 4 s without requests", secs(30), || {
        let now = proxy.requests();
        if now != count {
            (count, changed_at) = (now, Instant::now());
        }
        changed_at.elapsed() >= secs(4)
    });
    let mut renewal_due = false;
    throughout(secs(8), || {
        renewal_due = renewal_due || started_at.elapsed() >= interval;
        assert!(renewal_due || proxy.requests() == count, "{} requests", proxy.requests() - count);
    });
    let waited = started_at.elapsed();
    holder.release();
    for job in waiters {
        job.wait_within(secs(10)).assert_code(0);
    }
    within("the wait", waited, interval)
}

/// Drains a queue of so many contenders; returns the duration and the number of requests per contender.
fn drain(contenders: usize) -> (Duration, f64) {
    let consul = shared::consul();
    let (world, proxy) = (World::on(consul), Proxy::to(consul.address()));
    let proxied = World::at("consul", &proxy.url());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let run = |job: Run| job.args(["-t", "120s", &name, "true"]).spawn();
    let waiters: Vec<_> = (0..contenders).map(|_| run(proxied.distlock())).collect();
    poll_until("all contenders to queue", secs(60), || queue_length(&name) == contenders);
    holder.release();
    let released_at = Instant::now();
    for job in waiters {
        job.wait().assert_code(0);
    }
    let duration = released_at.elapsed();
    await_no_keys(&name);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    (duration, proxy.requests() as f64 / contenders as f64)
}

#[test]
fn thirty_contenders_need_twelve_requests_each() {
    once_in(3, || {
        let (duration, requests) = drain(30);
        if requests <= 12.0 { Ok(()) } else { Err(format!("{requests} requests per contender in {duration:?}")) }
    });
}

#[test]
#[ignore = "a measurement"]
fn measure_draining_a_hundred_contenders() {
    println!("100 contenders: {:?}", drain(100));
}
