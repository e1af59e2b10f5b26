//! etcd behind its own `grpc-proxy`, which renews leases by itself.

use std::fs;

use crate::loss::{Lease, await_ready, locked};
use crate::world::{GrpcProxy, World, poll_until, secs, shared};

#[test]
fn doctor_reports_etcd_grpc_proxy() {
    let proxy = GrpcProxy::to(shared::etcd35());
    let world = World::at("etcd", &proxy.url());
    let doctor = world.distlock().args(["doctor"]).run().assert_code(69);
    let output = format!("{}{}", doctor.stdout, doctor.stderr);
    assert!(output.contains("answered by a proxy") && output.contains("grpc-proxy"), "{}", doctor.describe());
    World::on(shared::etcd35()).distlock().args(["doctor"]).run().assert_code(0);
}

#[test]
fn lock_behind_grpc_proxy_is_kept() {
    let proxy = GrpcProxy::to(shared::etcd35());
    let world = World::at("etcd", &proxy.url());
    let (name, lease) = (world.name("x"), Lease { ttl: secs(5), grace: secs(1) });
    let mut job =
        locked(&world, lease, &name).args(["sh", "-c", "echo ready; until [ -e done ]; do sleep 0.05; done"]).spawn();
    await_ready(&job);
    let started_at = std::time::Instant::now();
    poll_until("several renewals", lease.ttl * 3, || {
        assert!(job.is_running(), "{}", job.stderr());
        started_at.elapsed() > lease.ttl * 2
    });
    fs::write(world.path().join("done"), "").expect("a file in the world");
    job.wait_within(secs(10)).assert_code(0);
}
