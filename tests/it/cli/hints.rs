//! Errors end with a hint: the next command to run or the option to change.

use nix::sys::signal::Signal;

use crate::world::{Server, World, poll_for, secs, shared, write_program};

#[track_caller]
fn assert_hint(world: &World, args: &[&str], code: i32, hint: &str) {
    let job = world.distlock().args(args).run().assert_code(code);
    assert!(job.stderr.contains(&format!("hint: {hint}")), "{hint:?} in {}", job.describe());
}

#[test]
fn refusals_have_hints() {
    let world = World::local();
    write_program(&world.path().join("bad"), b"#!/nonexistent\n");
    for (args, code, hint) in [
        (&["/x", "no-such-command"][..], 127, "no directory in PATH contains it"),
        (&["/x", "./no-such-command"], 127, "the file does not exist"),
        (&["/x", "./bad"], 126, "install the interpreter"),
        (&["/x", ""], 64, "is a variable unset?"),
        (&["-c", "/x", ""], 64, "is a variable unset?"),
        (&["/x/", "true"], 64, "remove it: /x"),
        (&["/a b/", "true"], 64, "remove it: '/a b'"),
        (&["/x\u{202e}y", "true"], 64, "remove it"),
        (&["--config", "/no/such/file", "/x", "true"], 64, "create it or make it readable"),
        (&["--cacert", "f", "/x", "true"], 64, "remove it, or choose -b etcd"),
        (&["-c", "/x", "a b", "c"], 64, "remove --shell"),
        (&["-t", "5s", "doctor"], 64, "remove --ttl"),
    ] {
        assert_hint(&world, args, code, hint);
    }
    assert_hint(&World::new(), &["-e", "h:1", "/x", "true"], 64, "choose one: -b etcd");
    let both = world.distlock().env("DISTLOCK_TRY", "1").env("DISTLOCK_WAIT", "5s").args(["/x", "true"]);
    assert!(both.run().assert_code(64).stderr.contains("hint: remove one of them"));
}

#[test]
fn unsupported_namespace_error_names_the_variable() {
    let world = World::on(shared::consul());
    let job = world.distlock().env("CONSUL_NAMESPACE", "team").args(["/x", "true"]).run().assert_code(64);
    assert!(job.stderr.contains("CONSUL_NAMESPACE"), "{}", job.describe());
}

#[test]
fn loss_and_lock_delay_errors_have_hints() {
    let consul = shared::consul();
    let world = World::on(consul);
    let name = world.name("x");
    let job = world.distlock().args([&name, "sleep", "300"]).spawn();
    let session =
        poll_for("the held key", secs(30), || consul.entries(&name).into_iter().find_map(|entry| entry.lease));
    consul.end_lease(&session);
    let job = job.wait().assert_code(76);
    assert!(job.stderr.contains("hint: check the servers with distlock doctor"), "{}", job.describe());
    assert_ne!(job.signal(), Some(Signal::SIGKILL));
    assert_hint(&world, &["-n", &name, "true"], 75, "the lock-delay ends by itself");
}
