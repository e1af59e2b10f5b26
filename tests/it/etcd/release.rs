//! Time to release a lock, and to leave the queue.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::loss::await_ready;
use crate::world::{
    Holder, Mode, Proxy, Server, World, enqueue, millis, moment, once_in, poll_until, secs, shared, within,
};

const UNTIL_DONE: &str = "echo ready; until [ -e done ]; do sleep 0.05; done";

#[test]
fn silent_endpoint_delays_release_by_a_second() {
    once_in(3, release_with_silent_endpoint);
}

fn release_with_silent_endpoint() -> Result<(), String> {
    let server = shared::etcd35();
    let [first, second] = [(); 2].map(|()| Proxy::to(server.address()));
    let world = World::at("etcd", &format!("{},{}", first.url(), second.url()));
    let name = world.name("x");
    let job = world.distlock().args(["run", &name, "--", "sh", "-c", UNTIL_DONE]).spawn();
    await_ready(&job);
    let waiter = enqueue(world.distlock(), &name, &["true"]);
    first.set(Mode::Freeze);
    let frozen_at = Instant::now();
    waiter.signal(Signal::SIGTERM);
    fs::write(world.path().join("done"), "").expect("a file in the world");
    waiter.wait_within(secs(30)).assert_code(143);
    job.wait_within(secs(30)).assert_code(0);
    let duration = frozen_at.elapsed();
    assert_eq!(server.entries(&name).len(), 0);
    within("the release", duration, millis(2200))
}

#[test]
fn handover_takes_one_request() {
    once_in(3, hand_over);
}

fn hand_over() -> Result<(), String> {
    let server = shared::etcd35();
    let proxy = Proxy::to(server.address());
    let (proxied, direct) = (World::at("etcd", &proxy.url()), World::on(server));
    let name = proxied.name("x");
    let holder = Holder::of(&proxied, &name);
    let next = enqueue(direct.distlock(), &name, &["sh", "-c", r#"read -r now idle </proc/uptime; echo "$now""#]);
    proxy.set(Mode::Delay(millis(700)));
    let released = holder.release();
    let next = next.wait().assert_code(0);
    let printed_time = |stdout: &str| moment(stdout.lines().last().unwrap_or_default());
    let handover = printed_time(&next.stdout).since(printed_time(&released.stdout));
    assert!(handover > millis(600), "{handover:?}");
    poll_until("the deletion of the keys", secs(30), || server.entries(&name).is_empty());
    within("the handover", handover, millis(1300))
}
