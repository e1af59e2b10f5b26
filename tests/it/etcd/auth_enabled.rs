//! Authentication that is enabled while jobs run.

use std::fs;

use crate::loss::{Lease, await_ready, locked};
use crate::world::{Etcd, Server, Version, World, enqueue, poll_until, secs};

#[test]
fn enabling_auth_ends_no_running_job() {
    for version in [Version::V34, Version::V35] {
        let server = Etcd::start(version);
        let (world, lease) = (World::on(&server), Lease { ttl: secs(5), grace: secs(1) });
        let name = world.name("x");
        server.add_user("ann", "secret", &[&name]);
        let as_ann = || {
            world
                .distlock()
                .args(["--user", "ann"])
                .env("DISTLOCK_PASSWORD", "secret")
                .env("ETCDCTL_PASSWORD", "secret")
        };
        let mut job = as_ann()
            .args(lease.options())
            .args([&*name, "sh", "-c", "echo ready; until [ -e done ]; do sleep 0.05; done"])
            .spawn();
        await_ready(&job);
        let waiter = enqueue(as_ann().args(lease.options()), &name, &["true"]);
        server.enable_auth();
        let enabled_at = std::time::Instant::now();
        poll_until("several renewals", lease.ttl * 3, || {
            assert!(job.is_running(), "{}", job.stderr());
            enabled_at.elapsed() > lease.ttl * 2
        });
        fs::write(world.path().join("done"), "").expect("a file in the world");
        job.wait_within(secs(10)).assert_code(0);
        waiter.wait_within(secs(10)).assert_code(0);
        assert_eq!(server.entries(&name).len(), 0);
        // A client without a user is denied.
        locked(&world, lease, &name).args(["true"]).run().assert_code(77);
    }
}
