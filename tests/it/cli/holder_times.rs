//! Messages about the holder: since when it holds the lock or waits in the queue.

use crate::world::{Holder, World, enqueue, everywhere, poll_until, secs};

#[test]
fn queued_since_is_not_reported_as_held_since() {
    everywhere(|world| {
        let name = world.name("x");
        let first = Holder::of(world, &name);
        let second = enqueue(world.distlock(), &name, &["sh", "-c", "echo holding; exec sleep 300"]);
        first.release();
        poll_until("the second holder", secs(30), || second.stdout() == "holding\n");
        let busy = world.distlock().args(["-n", &name, "true"]).run().assert_code(75);
        let on_etcd = world.distlock().into_command().get_args().any(|word| word == "etcd");
        assert_eq!(busy.stderr.contains(", in the queue since "), on_etcd, "{}", busy.describe());
        assert!(busy.stderr.contains(" since "), "{}", busy.describe());
        let since = busy.stderr.split(" since ").nth(1).expect("a moment");
        assert!(since.starts_with("20") && !since.contains('Z'), "must be local time: {since}");
    });
}

#[test]
fn ci_without_job_name_gets_waiting_notice() {
    let world = World::local();
    let _holder = Holder::of(&world, "/x");
    let stderr_of_wait = |value: &str| {
        let job = world.distlock().env("GITLAB_CI", value).args(["-w", "1s", "-E", "0", "/x", "true"]);
        job.run().assert_code(0).stderr
    };
    assert!(stderr_of_wait("true").contains("waiting"));
    assert_eq!(stderr_of_wait("false"), "");
}
