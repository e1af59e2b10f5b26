//! Servers that are published in DNS.

use super::{IMMEDIATELY, assert_error_names};
use crate::world::{Authority, Etcd, NameServer, Server, ServerTls, Version, World, Zone, shared};

const SECURE: &str = "_etcd-client-ssl._tcp.lock.test";
const PLAIN: &str = "_etcd-client._tcp.lock.test";

fn service(service: &str, host: &str, port: u16) -> (String, String, u16) {
    (service.to_owned(), host.to_owned(), port)
}

/// Returns the port of a URL.
fn port(url: &str) -> u16 {
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a URL with a port")
}

#[test]
fn published_tls_servers_are_found_and_verified() {
    let authority = Authority::new();
    let tls = ServerTls { pem: authority.server(&["etcd-0.lock.test"]), clients: None };
    let etcd = Etcd::start_secure(Version::V35, &tls, 300);
    let world = World::new();
    // Nothing listens on port 1: plain servers are ignored if TLS servers are published too.
    let services = vec![service(SECURE, "etcd-0.lock.test", port(&etcd.url())), service(PLAIN, "etcd-1.lock.test", 1)];
    for truncates in [false, true] {
        let zone = Zone { services: services.clone(), truncates };
        let Some(dns) = NameServer::start(&world, &zone) else { return };
        let cacert = authority.cacert().display().to_string();
        let job = dns.distlock(&world).env("ETCDCTL_DISCOVERY_SRV", "lock.test");
        let job = job.args(["--cacert", &cacert, &world.name("found"), "printenv", "DISTLOCK_HELD_BACKEND"]);
        let job = job.spawn().wait_within(IMMEDIATELY).assert_code(0);
        assert_eq!((&*job.stdout, &*job.stderr), ("etcd\n", ""));
    }
}

#[test]
fn doctor_examines_each_published_server() {
    let etcd = shared::etcd35();
    let world = World::new();
    let services = vec![service(PLAIN, "etcd-0.lock.test", port(&etcd.url())), service(PLAIN, "etcd-1.lock.test", 1)];
    let Some(dns) = NameServer::start(&world, &Zone { services, truncates: false }) else { return };
    let job = dns.distlock(&world).env("ETCDCTL_DISCOVERY_SRV", "lock.test").args(["doctor"]).run().assert_code(0);
    for url in [format!("http://etcd-0.lock.test:{}", port(&etcd.url())), "http://etcd-1.lock.test:1".to_owned()] {
        assert!(job.stdout.contains(&url), "no {url}: {}", job.describe());
    }
}

#[test]
fn published_plain_servers_are_used_without_tls_options() {
    let etcd = shared::etcd34();
    let world = World::new();
    let zone = Zone { services: vec![service(PLAIN, "etcd-0.lock.test", port(&etcd.url()))], truncates: false };
    let Some(dns) = NameServer::start(&world, &zone) else { return };
    let distlock = || dns.distlock(&world).env("ETCDCTL_DISCOVERY_SRV", "lock.test");
    let name = world.name("plain");
    distlock().args([&*name, "true"]).spawn().wait_within(IMMEDIATELY).assert_code(0);
    let cacert = Authority::new();
    let cacert = cacert.cacert().display().to_string();
    let job = distlock()
        .args(["--connect-timeout", "100s", "--cacert", &cacert, &name, "true"])
        .spawn()
        .wait_within(IMMEDIATELY)
        .assert_code(69);
    assert_error_names(&job, &["without TLS", SECURE]);
    // The flag takes precedence over the variable.
    let job = distlock().args(["-e", "http://127.0.0.1:1", "--connect-timeout", "100ms", &name, "true"]).run();
    assert_error_names(&job.assert_code(69), &["http://127.0.0.1:1"]);
}

#[test]
fn domain_without_servers_fails_immediately() {
    let world = World::new();
    let Some(dns) = NameServer::start(&world, &Zone::default()) else { return };
    let job = dns.distlock(&world).env("ETCDCTL_DISCOVERY_SRV", "lock.test");
    let job = job.args(["--connect-timeout", "100s", &*world.name("none"), "true"]);
    assert_error_names(&job.spawn().wait_within(IMMEDIATELY).assert_code(69), &["lock.test", SECURE, PLAIN, "-e"]);
}

#[test]
fn silent_name_server_is_named_in_the_error() {
    let world = World::new();
    let Some(dns) = NameServer::silent(&world) else { return };
    let job = dns.distlock(&world).env("ETCDCTL_DISCOVERY_SRV", "lock.test");
    let job = job.args(["--connect-timeout", "1s", &*world.name("silent"), "true"]).run().assert_code(69);
    assert_error_names(&job, &["lock.test", &format!("name server {}", dns.address())]);
}
