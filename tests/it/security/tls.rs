//! TLS: verification of servers, client certificates, and hints for wrong settings.

use super::{IMMEDIATELY, assert_error_names, patient, servers, servers_with, trusting};
use crate::world::{Authority, Proxy, ServerTls, World, shared};

#[test]
fn trusted_server_grants_the_lock() {
    let authority = Authority::new();
    for server in servers(&authority, false, &["127.0.0.1"]) {
        let world = World::on(&*server);
        let name = world.name("trusted");
        let job = trusting(&world, &authority.cacert()).args([&*name, "true"]).run().assert_code(0);
        assert_eq!(job.stderr, "");
        assert_eq!(server.entries(&name).len(), 0);
    }
}

#[test]
fn system_ca_certificates_are_the_default() {
    let authority = Authority::new();
    for server in servers(&authority, false, &["127.0.0.1"]) {
        let world = World::on(&*server);
        // The variable replaces the system's CA certificates, as it does for OpenSSL.
        let job = world.distlock().env("SSL_CERT_FILE", authority.cacert());
        job.args([&*world.name("system"), "true"]).run().assert_code(0);
    }
}

#[test]
fn backend_variables_configure_tls() {
    let authority = Authority::new();
    for server in servers(&authority, true, &["lock.example"]) {
        let world = World::new();
        let (pem, cacert, name) = (authority.client(), authority.cacert(), world.name("variables"));
        let run = || world.distlock().args(["--tls-server-name", "lock.example", &name, "true"]);
        // The address has no scheme: the TLS settings imply https.
        let address = server.url().replace("https://", "");
        let job = if server.backend() == "etcd" {
            let run = run().env("ETCDCTL_ENDPOINTS", address).env("ETCDCTL_CACERT", cacert);
            run.env("ETCDCTL_CERT", pem.cert).env("ETCDCTL_KEY", pem.key)
        } else {
            // CONSUL_CAPATH is a directory of CA certificates.
            let certs = world.path().join("certs");
            std::fs::create_dir(&certs).and_then(|()| std::fs::copy(cacert, certs.join("ca.pem"))).unwrap();
            let run = run().env("CONSUL_HTTP_ADDR", address).env("CONSUL_CAPATH", certs).env("CONSUL_HTTP_SSL", "true");
            run.env("CONSUL_CLIENT_CERT", pem.cert).env("CONSUL_CLIENT_KEY", pem.key)
        };
        job.run().assert_code(0);
    }
}

#[test]
fn certificate_of_unknown_ca_is_refused() {
    let (authority, unknown_authority) = (Authority::new(), Authority::new());
    for server in servers(&authority, false, &["127.0.0.1"]) {
        let world = World::on(&*server);
        let job = trusting(&world, &unknown_authority.cacert()).args([&*world.name("unknown-ca"), "true"]).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["hint: ", "--cacert"]);
        // The system's CA certificates do not cover it either.
        let job = patient(&world).args([&*world.name("unknown-ca"), "true"]).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["hint: ", "--cacert"]);
    }
}

#[test]
fn several_untrusted_servers_are_refused_immediately() {
    let (authority, unknown_authority) = (Authority::new(), Authority::new());
    for server in servers(&authority, false, &["127.0.0.1"]) {
        let proxy = Proxy::to(server.url().trim_start_matches("https://").parse().unwrap());
        let endpoints = format!("{},https://{}", server.url(), proxy.address());
        let world = World::at(server.backend(), &endpoints);
        let job = trusting(&world, &unknown_authority.cacert()).args([&*world.name("unknown-cas"), "true"]).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["hint: ", "--cacert"]);
    }
}

#[test]
fn tls_server_name_accepts_certificate_for_another_name() {
    let authority = Authority::new();
    for server in servers(&authority, false, &["lock.example"]) {
        let world = World::on(&*server);
        let name = world.name("named");
        let job = trusting(&world, &authority.cacert()).args([&*name, "true"]).spawn();
        assert_error_names(
            &job.wait_within(IMMEDIATELY).assert_code(69),
            &["hint: ", "--tls-server-name", "lock.example"],
        );
        let named = ["--tls-server-name", "lock.example", &name, "true"];
        trusting(&world, &authority.cacert()).args(named).run().assert_code(0);
        let wrong_name = ["--tls-server-name", "other.example", &name, "true"];
        let job = trusting(&world, &authority.cacert()).args(wrong_name).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["hint: ", "--tls-server-name"]);
    }
}

#[test]
fn expired_certificate_is_refused() {
    let authority = Authority::new();
    for server in servers_with(&ServerTls { pem: authority.expired(), clients: None }) {
        let world = World::on(&*server);
        let job = trusting(&world, &authority.cacert()).args([&*world.name("old"), "true"]).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["expired", "hint: ", "renew"]);
    }
}

#[test]
fn insecure_option_accepts_any_certificate() {
    let authority = Authority::new();
    for server in servers_with(&ServerTls { pem: authority.expired(), clients: None }) {
        let world = World::on(&*server);
        let options = ["--insecure-skip-tls-verify", &world.name("blind"), "true"];
        world.distlock().args(options).run().assert_code(0);
    }
}

#[test]
fn client_certificate_is_sent_if_required() {
    let (authority, unknown_authority) = (Authority::new(), Authority::new());
    for server in servers(&authority, true, &["127.0.0.1"]) {
        let world = World::on(&*server);
        let name = world.name("mutual");
        let job = |options: &[String]| {
            trusting(&world, &authority.cacert()).args(options).args([&*name, "true"]).spawn().wait_within(IMMEDIATELY)
        };
        job(&authority.client().options()).assert_code(0);
        assert_error_names(&job(&[]).assert_code(77), &["hint: ", "--cert"]);
        assert_error_names(&job(&unknown_authority.client().options()).assert_code(77), &["hint: ", "--cert"]);
    }
}

#[test]
fn plain_http_to_a_server_with_tls_hints_at_https() {
    let authority = Authority::new();
    for server in servers(&authority, false, &["127.0.0.1"]) {
        let world = World::at(server.backend(), &server.url().replace("https:", "http:"));
        let job = patient(&world).args([&*world.name("plain"), "true"]).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["hint: ", "https://"]);
    }
}

#[test]
fn https_to_a_server_without_tls_hints_at_http() {
    for server in shared::all() {
        let world = World::at(server.backend(), &server.url().replace("http:", "https:"));
        let job = patient(&world).args([&*world.name("secure"), "true"]).spawn();
        assert_error_names(&job.wait_within(IMMEDIATELY).assert_code(69), &["hint: ", "http://"]);
    }
}

#[test]
fn malformed_pem_files_are_refused() {
    let authority = Authority::new();
    for server in shared::all() {
        let world = World::at(server.backend(), "https://127.0.0.1:1");
        let junk = world.path().join("junk.pem");
        std::fs::write(&junk, "no certificate").unwrap();
        let junk = junk.display().to_string();
        let pem = authority.client();
        let (cert, key) = (pem.cert.display().to_string(), pem.key.display().to_string());
        for options in
            [["--cacert", &junk, "-n", "-q"], ["--cert", &junk, "--key", &key], ["--cert", &cert, "--key", &junk]]
        {
            let job = world.distlock().args(options).args([&*world.name("junk"), "true"]).run().assert_code(64);
            assert_error_names(&job, &[&junk]);
        }
    }
}
