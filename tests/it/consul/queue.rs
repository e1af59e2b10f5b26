//! The queue: who is next, what passing a dead one takes, and what it costs to wait.

use std::fs;
use std::time::{Duration, Instant};

use super::{go_on, named, stop, strike_dead};
use crate::world::{
    Holder, Proxy, Recorder, Run, Server, World, enqueue, once_in, poll_until, secs, shared, throughout, within,
};

/// The flags of a lock's key.
const LOCK_FLAGS: u64 = 3_304_740_253_564_472_344;

fn places(name: &str) -> usize {
    shared::consul().entries(&format!("{name}/.queue/")).len()
}

fn nothing_left(name: &str) {
    let keys = || shared::consul().entries(name).into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    poll_until(&format!("an end of {:?}", keys()), secs(2), || keys().is_empty());
}

#[test]
fn expiry_of_dead_first_waiter_keeps_the_order() {
    once_in(3, a_dead_first);
}

fn a_dead_first() -> Result<(), String> {
    let world = World::on(shared::consul());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    strike_dead(enqueue(world.distlock().args(["-t", "10s"]), &name, &["true"]));
    let waiting = ["1", "2", "3"].map(|who| named(&world, &name, who));
    // Its session ends after twice its TTL at the latest.
    poll_until("the end of the dead one's session", secs(25), || places(&name) == 3);
    holder.release();
    let released = Instant::now();
    for job in waiting {
        job.wait_within(secs(30)).assert_code(0);
    }
    let drained = released.elapsed();
    assert_eq!(fs::read_to_string(world.path().join("order")).expect("an order"), "1\n2\n3\n");
    nothing_left(&name);
    within("draining", drained, secs(4))
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
        strike_dead(enqueue(world.distlock().args(["-t", "60s"]), &name, &["true"]));
    }
    let recorder = Recorder::to(shared::consul().address(), |request| request);
    let far = World::at("consul", &recorder.url());
    let waiting = ["1", "2"].map(|who| named(&far, &name, who));
    // A waiter whose queue has not moved for its patience waits for a change of the lock itself too.
    let watch = format!("GET /v1/kv{name}/.lock?");
    let watches = || recorder.requests().iter().filter(|request| request.line.starts_with(&watch)).count();
    poll_until("both waiters to watch the lock", secs(30), || watches() == waiting.len());
    holder.release();
    let released = Instant::now();
    for job in waiting {
        job.wait_within(secs(20)).assert_code(0);
    }
    let passed = released.elapsed();
    assert_eq!(fs::read_to_string(far.path().join("order")).expect("an order"), "1\n2\n");
    within("passing them", passed, secs(5))
}

#[test]
fn newcomer_does_not_pass_a_slow_waiter() {
    let world = World::on(shared::consul());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let first = named(&world, &name, "first");
    let pids = stop(&first);
    holder.release();
    // The lock is free, and the first is slow to take it.
    world.distlock().args(["--try", &name, "true"]).run().assert_code(75);
    let left: Vec<_> = shared::consul().entries(&name).into_iter().map(|entry| entry.key).collect();
    assert!(left.len() == 1 && left[0].contains("/.queue/"), "{left:?}");
    let newcomer = named(&world, &name, "newcomer");
    go_on(&pids);
    first.wait_within(secs(5)).assert_code(0);
    newcomer.wait_within(secs(5)).assert_code(0);
    assert_eq!(fs::read_to_string(world.path().join("order")).expect("an order"), "first\nnewcomer\n");
    nothing_left(&name);
}

#[test]
fn leftover_lock_key_without_session_is_free() {
    let world = World::on(shared::consul());
    let name = world.name("left");
    shared::consul().put(&format!("{name}/.lock"), LOCK_FLAGS, "");
    world.distlock().args(["--try", &name, "true"]).run().assert_code(0);
    nothing_left(&name);
}

#[test]
fn next_holder_deletes_queue_entry_of_dead_waiter() {
    let consul = shared::consul();
    let world = World::on(consul);
    let name = world.name("litter");
    let holder = Holder::of(&world, &name);
    let dead = enqueue(world.distlock().args(["--on-lost", "relock"]), &name, &["true"]);
    let place = consul.entries(&format!("{name}/.queue/")).pop().expect("a place");
    strike_dead(dead);
    consul.end_lease(&place.lease.expect("a session"));
    holder.release();
    assert_eq!(places(&name), 1);
    world.distlock().args([&name, "true"]).run().assert_code(0);
    nothing_left(&name);
}

#[test]
fn long_wait_sends_only_renewals() {
    once_in(3, waiting_costs_nothing);
}

/// Returns an error if it took so long that a renewal was due.
fn waiting_costs_nothing() -> Result<(), String> {
    let consul = shared::consul();
    let (world, proxy) = (World::on(consul), Proxy::to(consul.address()));
    let far = World::at("consul", &proxy.url());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let (began, interval) = (Instant::now(), secs(20));
    let waiting: Vec<_> = (0..3).map(|_| enqueue(far.distlock().args(["-t", "60s"]), &name, &["true"])).collect();
    // Longer than the patience of the last one, which then waits for a change of the lock too.
    let (mut before, mut since) = (proxy.requests(), Instant::now());
    poll_until("an end of requests", secs(30), || {
        let now = proxy.requests();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        since.elapsed() >= secs(4)
    });
    let mut renews = false;
    throughout(secs(8), || {
        renews = renews || began.elapsed() >= interval;
        assert!(renews || proxy.requests() == before, "{} requests", proxy.requests() - before);
    });
    let watched = began.elapsed();
    holder.release();
    for job in waiting {
        job.wait_within(secs(10)).assert_code(0);
    }
    within("waiting", watched, interval)
}

/// Lets so many contenders drain; returns how long that took, and the requests of each.
fn drain(contenders: usize) -> (Duration, f64) {
    let consul = shared::consul();
    let (world, proxy) = (World::on(consul), Proxy::to(consul.address()));
    let far = World::at("consul", &proxy.url());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let run = |job: Run| job.args(["-t", "120s", &name, "true"]).spawn();
    let waiting: Vec<_> = (0..contenders).map(|_| run(far.distlock())).collect();
    poll_until("a queue", secs(60), || places(&name) == contenders);
    holder.release();
    let released = Instant::now();
    for job in waiting {
        job.wait().assert_code(0);
    }
    let taken = released.elapsed();
    nothing_left(&name);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    (taken, proxy.requests() as f64 / contenders as f64)
}

#[test]
fn thirty_contenders_need_twelve_requests_each() {
    once_in(3, || {
        let (taken, each) = drain(30);
        if each <= 12.0 { Ok(()) } else { Err(format!("{each} requests each, in {taken:?}")) }
    });
}

#[test]
#[ignore = "a measurement"]
fn measure_draining_a_hundred_contenders() {
    println!("100 contenders: {:?}", drain(100));
}
