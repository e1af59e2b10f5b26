//! Servers that answer but cannot grant a lock: no quorum, full store.

use crate::world::{Etcd, Server, Version, World, etcd, poll_until, secs};

#[test]
fn missing_quorum_is_reported_and_retried() {
    let members = etcd::cluster(Version::V35, 3);
    let world = World::on(&members[0]);
    members[1].kill();
    members[2].kill();
    poll_until("the loss of the leader", secs(30), || !members[0].is_ready());
    for wait in [&["--connect-timeout", "6s", "-n"][..], &["-w", "6s"]] {
        let job = world.distlock().args(["-v"]).args(wait).args(["run", &world.name("x"), "--", "true"]).run();
        let job = job.assert_code(69);
        assert!(job.stderr.contains("could grant the lock within 6s"), "{}", job.describe());
        assert!(
            job.stderr.contains("not acquired yet; retrying: ") && job.stderr.contains("have no leader"),
            "{}",
            job.describe()
        );
    }
    // A server was reached, so --connect-timeout does not apply, but a warning reports that it grants nothing.
    let job = world.distlock().args(["--connect-timeout", "3s", "run", &world.name("x"), "--", "echo", "ran"]).spawn();
    poll_until("a warning", secs(30), || job.stderr().contains("warning: no server can grant the lock yet"));
    members[1].restart();
    assert_eq!(job.wait().assert_code(0).stdout, "ran\n");
}

#[test]
fn full_etcd_store_error_has_a_hint() {
    let server = Etcd::start_with(Version::V35, &["--quota-backend-bytes=1000000"]);
    let world = World::on(&server);
    let fill = || server.etcdctl(&world, &server.url()).args(["put", "/full", &"x".repeat(100_000)]).run();
    poll_until("a full store", secs(60), || fill().code() != Some(0));
    let job = world.distlock().args(["-w", "2s", "run", &world.name("x"), "--", "true"]).run().assert_code(69);
    assert!(job.stderr.contains("could grant the lock within 2s"), "{}", job.describe());
    assert!(job.stderr.contains("space exceeded") && job.stderr.contains("alarm disarm"), "{}", job.describe());
}
