//! Delayed requests that arrive after their sender has given up.

use crate::world::{Etcd, Mode, Proxy, Server, Version, World, millis, once_in, poll_until, secs, throughout, within};

#[test]
fn late_request_after_release_acquires_no_lock() {
    once_in(3, request_arrives_late);
}

/// Returns an error if the job ran until the delayed request arrived.
fn request_arrives_late() -> Result<(), String> {
    let server = Etcd::start(Version::V35);
    let (slow, fast) = (Proxy::to(server.address()), Proxy::to(server.address()));
    let world = World::at("etcd", &format!("{},{}", slow.url(), fast.url()));
    let name = world.name("x");
    let delay = secs(5);
    slow.set(Mode::Delay(delay));
    let job = world.distlock().args(["run", &name, "--", "true"]).run().assert_code(0);
    within("the job", job.elapsed, delay)?;
    assert_eq!((server.entries(&name).len(), server.leases().len()), (0, 0));
    poll_until("the delayed grant", secs(10), || server.leases().len() == 1);
    // Long enough for a request that was sent right after the grant.
    throughout(millis(300), || assert_eq!(server.entries(&name).len(), 0, "the late request must not create a key"));
    Ok(())
}

#[test]
fn timed_out_search_revokes_its_lease() {
    let server = Etcd::start(Version::V35);
    let proxy = Proxy::to(server.address());
    let world = World::at("etcd", &proxy.url());
    let name = world.name("x");
    // The server's grant arrives too late.
    proxy.set(Mode::Delay(millis(1100)));
    let job = world.distlock().args(["--connect-timeout", "2s", "run", &name, "--", "true"]).run().assert_code(69);
    // Long before the lease would expire.
    poll_until(&format!("the revocation of the lease: {}", job.describe()), secs(3), || server.leases().is_empty());
}
