//! How distlock interprets replies of Consul: denials, foreign keys, late acquisitions.

use std::sync::OnceLock;

use crate::loss::{Lease, READY, await_held, await_ready, locked};
use crate::world::{
    Authority, Consul, Recorded, Recorder, Server, ServerTls, World, poll_until, secs, shared, throughout,
};

/// The token that the recorder replaces and its replacement, once set.
static REPLACED_TOKEN: OnceLock<(String, String)> = OnceLock::new();

/// Starts a Consul whose default policy is to deny.
fn start_with_acl() -> Consul {
    Consul::start_secure(&ServerTls { pem: Authority::new().server(&["127.0.0.1"]), clients: None })
}

fn replace_token(mut request: Recorded) -> Recorded {
    if let Some((token, replacement)) = REPLACED_TOKEN.get() {
        request.headers.iter_mut().for_each(|header| *header = header.replace(token, replacement));
    }
    request
}

#[test]
fn denied_key_read_is_no_loss() {
    let consul = start_with_acl();
    let sessions = r#"session_prefix "" { policy = "write" }"#;
    let all_access = consul.token(&format!(r#"{sessions} key_prefix "" {{ policy = "write" }}"#));
    let sessions_only = consul.token(sessions);
    let recorder = Recorder::to(consul.address(), replace_token);
    let world = World::at("consul", &recorder.url());
    let name = world.name("jobs/backup");
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let mut job = world.distlock().args(["-v"]).args(lease.options()).args([&*name, "sh", "-c", READY]);
    job = job.env("CONSUL_HTTP_TOKEN", &all_access);
    let mut job = job.spawn();
    await_ready(&job);
    REPLACED_TOKEN.set((all_access, sessions_only)).expect("set once");
    // Any change below the name makes the watch read again.
    let neighbour = format!("{name}/.lock.");
    let mut n = 0;
    poll_until("the failure of the watch", secs(30), || {
        n += 1;
        consul.put(&neighbour, n, "");
        job.stderr().contains("the watch failed")
    });
    // Longer than a lease would last without confirmed renewals.
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
    let consul = start_with_acl();
    let sessions = r#"session_prefix "" { policy = "write" }"#;
    let doctor_key_only = consul.token(&format!(r#"{sessions} key_prefix "a/.doctor" {{ policy = "write" }}"#));
    let all_keys = consul.token(&format!(r#"{sessions} key_prefix "a/" {{ policy = "write" }}"#));
    let world = World::at("consul", &format!("http://{}", consul.address()));
    let doctor = |token: &str| world.distlock().env("CONSUL_HTTP_TOKEN", token).args(["doctor", "a"]).run();
    let denied = doctor(&doctor_key_only);
    assert!(denied.code() != Some(0) && denied.stdout.contains("denies access"), "{}", denied.describe());
    doctor(&all_keys).assert_code(0);
    assert_eq!(consul.entries("a").len(), 0);
}

#[test]
fn late_acquisition_leaves_the_queue() {
    let consul = shared::consul();
    let world = World::on(consul);
    let name = world.name("late");
    let lock = format!("{name}/.lock");
    // While the waiter is in the queue its session acquires the lock, as if its first attempt had arrived late.
    let lease = Lease { ttl: secs(20), grace: secs(1) };
    let holder = crate::world::Holder::of(&world, &name);
    let waiter = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
    let queue = || consul.entries(&format!("{name}/.queue/"));
    poll_until("a position in the queue", secs(10), || queue().len() == 1);
    let session = queue()[0].lease.clone().expect("a session");
    let holder_session = await_held(consul, &name).lease.expect("a session");
    let pids = super::pause(&waiter);
    holder.release();
    assert_ne!(holder_session, session);
    consul.acquire(&lock, &session);
    super::resume(&pids);
    await_ready(&waiter);
    assert_eq!(await_held(consul, &name).lease, Some(session));
    assert_eq!(queue().len(), 0, "the waiter must leave the queue before its command starts");
}
