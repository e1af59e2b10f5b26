//! What servers say, and what it means.

use std::sync::OnceLock;

use crate::loss::{Lease, READY, await_held, await_ready, locked};
use crate::world::{
    Authority, Consul, Recorded, Recorder, Server, ServerTls, World, poll_until, secs, shared, throughout,
};

/// The token to be replaced, and the one that takes its place, once it is known.
static LESS: OnceLock<(String, String)> = OnceLock::new();

/// A Consul that denies what no token allows.
fn guarded() -> Consul {
    Consul::start_secure(&ServerTls { pem: Authority::new().server(&["127.0.0.1"]), clients: None })
}

fn with_less(mut request: Recorded) -> Recorded {
    if let Some((all, less)) = LESS.get() {
        request.headers.iter_mut().for_each(|header| *header = header.replace(all, less));
    }
    request
}

#[test]
fn denied_key_read_is_no_loss() {
    let consul = guarded();
    let sessions = r#"session_prefix "" { policy = "write" }"#;
    let all = consul.token(&format!(r#"{sessions} key_prefix "" {{ policy = "write" }}"#));
    let less = consul.token(sessions);
    let recorder = Recorder::to(consul.address(), with_less);
    let world = World::at("consul", &recorder.url());
    let name = world.name("jobs/backup");
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let mut job = world.distlock().args(["-v"]).args(lease.options()).args([&*name, "sh", "-c", READY]);
    job = job.env("CONSUL_HTTP_TOKEN", &all);
    let mut job = job.spawn();
    await_ready(&job);
    LESS.set((all, less)).expect("set once");
    // Any change lets the watch look again.
    let lock = format!("{name}/.lock.");
    let mut n = 0;
    poll_until("a broken watch", secs(30), || {
        n += 1;
        consul.put(&lock, n, "");
        job.stderr().contains("the watch failed")
    });
    // Longer than a lease whose renewals are not confirmed.
    throughout(lease.ttl + secs(1), || assert!(job.is_running(), "{}", job.stderr()));
    assert!(job.stderr().contains("denies access: Permission denied"), "{}", job.stderr());
}

#[test]
fn unsupported_namespace_error_names_the_variable() {
    let world = World::on(shared::consul());
    let job = world.distlock().env("CONSUL_NAMESPACE", "team").args(["a", "--", "true"]).run().assert_code(64);
    assert!(job.stderr.contains("CONSUL_NAMESPACE"), "{}", job.describe());
}

#[test]
fn doctor_reports_a_foreign_key() {
    let consul = shared::consul();
    let world = World::on(consul);
    let name = world.name("settings");
    consul.put(&format!("{name}/.lock"), 0, "mine");
    let job = world.distlock().args(["doctor", &name]).run().assert_code(64);
    assert!(job.stderr.contains("is not a lock"), "{}", job.describe());
    assert_eq!(consul.entries(&name).len(), 1);
    assert_eq!(consul.entries(&name)[0].value, "mine");
}

#[test]
fn doctor_checks_permissions_on_the_lock_keys() {
    let consul = guarded();
    let sessions = r#"session_prefix "" { policy = "write" }"#;
    let one = consul.token(&format!(r#"{sessions} key_prefix "a/.doctor" {{ policy = "write" }}"#));
    let all = consul.token(&format!(r#"{sessions} key_prefix "a/" {{ policy = "write" }}"#));
    let world = World::at("consul", &format!("http://{}", consul.address()));
    let doctor = |token: &str| world.distlock().env("CONSUL_HTTP_TOKEN", token).args(["doctor", "a"]).run();
    let denied = doctor(&one);
    assert!(denied.code() != Some(0) && denied.stdout.contains("denies access"), "{}", denied.describe());
    doctor(&all).assert_code(0);
    assert_eq!(consul.entries("a").len(), 0);
}

#[test]
fn late_acquisition_leaves_the_queue() {
    let consul = shared::consul();
    let world = World::on(consul);
    let name = world.name("late");
    let lock = format!("{name}/.lock");
    // Somebody holds the lock so that it waits; then the session has it, as if the first try had arrived late.
    let lease = Lease { ttl: secs(20), grace: secs(1) };
    let holder = crate::world::Holder::of(&world, &name);
    let waiter = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
    let places = || consul.entries(&format!("{name}/.queue/"));
    poll_until("a place", secs(10), || places().len() == 1);
    let session = places()[0].lease.clone().expect("a session");
    let held = await_held(consul, &name).lease.expect("a session");
    let pids = super::stop(&waiter);
    holder.release();
    assert_ne!(held, session);
    consul.acquire(&lock, &session);
    super::go_on(&pids);
    await_ready(&waiter);
    assert_eq!(await_held(consul, &name).lease, Some(session));
    assert_eq!(places().len(), 0, "it went before the command started");
}
