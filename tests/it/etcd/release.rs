//! How fast a lock and a place in the queue are given up.

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
    once_in(3, silent_at_the_end);
}

fn silent_at_the_end() -> Result<(), String> {
    let server = shared::etcd35();
    let [first, second] = [(); 2].map(|()| Proxy::to(server.address()));
    let world = World::at("etcd", &format!("{},{}", first.url(), second.url()));
    let name = world.name("x");
    let job = world.distlock().args(["run", &name, "--", "sh", "-c", UNTIL_DONE]).spawn();
    await_ready(&job);
    let waiter = enqueue(world.distlock(), &name, &["true"]);
    first.set(Mode::Freeze);
    let frozen = Instant::now();
    waiter.signal(Signal::SIGTERM);
    fs::write(world.path().join("done"), "").expect("a file in the world");
    waiter.wait_within(secs(30)).assert_code(143);
    job.wait_within(secs(30)).assert_code(0);
    let took = frozen.elapsed();
    assert_eq!(server.entries(&name).len(), 0);
    within("the end", took, millis(2200))
}

#[test]
fn handover_takes_one_request() {
    once_in(3, handed_over);
}

fn handed_over() -> Result<(), String> {
    let server = shared::etcd35();
    let proxy = Proxy::to(server.address());
    let (far, near) = (World::at("etcd", &proxy.url()), World::on(server));
    let name = far.name("x");
    let holder = Holder::of(&far, &name);
    let next = enqueue(near.distlock(), &name, &["sh", "-c", r#"read -r now idle </proc/uptime; echo "$now""#]);
    proxy.set(Mode::Delay(millis(700)));
    let ended = holder.release();
    let next = next.wait().assert_code(0);
    let printed = |stdout: &str| moment(stdout.lines().last().unwrap_or_default());
    let handover = printed(&next.stdout).since(printed(&ended.stdout));
    assert!(handover > millis(600), "{handover:?}");
    poll_until("the end of the keys", secs(30), || server.entries(&name).is_empty());
    within("the way of one request", handover, millis(1300))
}
