//! Each renewal checks the lock's key, so that a loss is noticed even if no watch reports it.

use super::relock::blind_watches;
use crate::loss::{Lease, READY, await_held, await_ready};
use crate::world::{Recorder, Server, World, once_in, secs, shared, within};

const LEASE: Lease = Lease { ttl: secs(10), grace: secs(1) };

/// The session survives, its renewals are answered, and blocking reads report no change.
#[test]
fn deleted_key_is_noticed_by_the_next_renewal() {
    once_in(3, || {
        let consul = shared::consul();
        let recorder = Recorder::to(consul.address(), blind_watches);
        let world = World::at("consul", &recorder.url());
        let name = world.name("jobs/backup");
        let job = world.distlock().args(LEASE.options()).args([&*name, "sh", "-c", READY]).spawn();
        await_ready(&job);
        let key = await_held(consul, &name).key;
        let deleted_at = distlock::now();
        consul.delete(&key);
        let job = job.wait_within(secs(60)).assert_code(76);
        assert!(job.stderr.contains("is no longer held by session"), "{}", job.describe());
        within("the loss seen by the next renewal", distlock::now().since(deleted_at), LEASE.interval() + secs(3))
    });
}
