//! Many keys below the name of a lock that belong to other locks.

use crate::world::{Etcd, Holder, Server, Version, World, enqueue};

#[test]
fn lock_with_megabytes_of_nested_keys_works() {
    let server = Etcd::start(Version::V35);
    let world = World::on(&server);
    let name = world.name("x");
    // More than 4 MiB of keys, the limit of one reply, among possible keys of contenders.
    let long = "n".repeat(4000);
    for n in 0..1200 {
        server.put(&format!("{name}/{n:x}/{long}"), "");
    }
    let holder = Holder::of(&world, &name);
    let waiter = enqueue(world.distlock(), &name, &["true"]);
    let third = enqueue(world.distlock().args(["--log-format", "json"]), &name, &["true"]);
    assert!(third.stderr().contains(r#""ahead":2"#), "{}", third.stderr());
    holder.release();
    waiter.wait().assert_code(0);
    third.wait().assert_code(0);
    assert!(server.leases().is_empty());
}
