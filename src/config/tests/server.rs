//! Backend, addresses, TLS and identity.

use super::*;
use crate::lock::transport::endpoint::Endpoint;

fn backend(run: &Run) -> Option<BackendName> {
    run.settings.as_ref().map(BackendSettings::name)
}

fn endpoints(server: &Server) -> String {
    server.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn backend_is_named_or_the_only_one_with_an_address() {
    let choice = |world: &World, options: &str| backend(&world.accepts(options));
    let etcd = &[("ETCDCTL_ENDPOINTS", "h:1")][..];
    let consul = &[("CONSUL_HTTP_ADDR", "h:1")][..];
    let both = &[("ETCDCTL_ENDPOINTS", "h:1"), ("CONSUL_HTTP_ADDR", "h:1")][..];
    assert_eq!(choice(&World::with(etcd), ""), Some(BackendName::Etcd));
    assert_eq!(choice(&World::with(consul), ""), Some(BackendName::Consul));
    assert_eq!(choice(&World::with(etcd), "-b local"), Some(BackendName::Local));
    assert_eq!(choice(&World::with(both), "-b consul"), Some(BackendName::Consul));
    assert_eq!(choice(&World::with(both).config("backend = \"etcd\""), ""), Some(BackendName::Etcd));
    assert_eq!(choice(&World::new().config("[consul]\nendpoints = \"h:1\""), ""), Some(BackendName::Consul));
    assert_eq!(choice(&World::new(), "-e file:///tmp"), Some(BackendName::Local));
    assert_eq!(choice(&World::new(), "-e unix:///tmp/s"), Some(BackendName::Consul));
    assert_eq!(choice(&World::with(&[("DISTLOCK_BACKEND", "local")]), ""), Some(BackendName::Local));
    let refusal = World::with(both).refuses("");
    assert!(refusal.contains("more than one") && refusal.contains("etcd: ETCDCTL_ENDPOINTS"), "{refusal}");
    assert!(World::with(etcd).refuses("-e file:///tmp").contains("more than one"));
    for (options, why) in [("", "none has an address"), ("-e http://h:1", "none follows from --endpoints")] {
        let refusal = World::new().refuses(options);
        assert!(refusal.contains(why) && refusal.contains("-b etcd"), "{refusal}");
    }
    let tables = World::new().config("[etcd]\nttl = 5\n[consul]\nttl = 30");
    assert!(tables.refuses("").contains("none has an address"), "a table without endpoints gives no address");
}

#[test]
fn addresses_without_a_scheme_get_one() {
    let of = |variables: &[(&str, &str)], options: &str| endpoints(&World::with(variables).server(options));
    assert_eq!(of(&[], "-b etcd -e a:1,https://b:2"), "http://a:1 https://b:2");
    assert_eq!(of(&[], "-b etcd -e a:1 --tls-server-name b"), "https://a:1");
    assert_eq!(of(&[], "-b etcd -e a:1 --insecure-skip-tls-verify"), "https://a:1");
    assert_eq!(of(&[], "-b etcd -e http://a:1 --tls-server-name b"), "http://a:1");
    assert_eq!(of(&[("ETCDCTL_INSECURE_TRANSPORT", "false")], "-b etcd -e a:1"), "https://a:1");
    assert_eq!(of(&[("ETCDCTL_INSECURE_TRANSPORT", "true")], "-b etcd -e a:1"), "http://a:1");
    assert_eq!(of(&[], "-b consul"), "http://127.0.0.1:8500");
    assert_eq!(of(&[("CONSUL_HTTP_SSL", "true")], "-b consul"), "https://127.0.0.1:8500");
    assert_eq!(of(&[("CONSUL_HTTP_SSL", "1"), ("CONSUL_HTTP_ADDR", "http://a:1")], ""), "https://a:1");
    assert_eq!(of(&[("CONSUL_HTTP_SSL", "1"), ("CONSUL_HTTP_ADDR", "a:1")], "-e http://b:1"), "http://b:1");
    assert_eq!(of(&[("CONSUL_HTTP_ADDR", "unix:///run/c.sock")], ""), "unix:///run/c.sock");
    // For addresses from the backends' own variables, those have the meaning of the backends' own tools.
    for (variables, options, expected) in [
        (&[("CONSUL_HTTP_ADDR", "a:1"), ("CONSUL_HTTP_SSL_VERIFY", "false")][..], "", "http://a:1"),
        (&[("CONSUL_HTTP_ADDR", "a:1"), ("CONSUL_CACERT", "/dev/null")], "", "http://a:1"),
        (&[("CONSUL_CACERT", "/dev/null")], "-b consul", "http://127.0.0.1:8500"),
        (&[("CONSUL_CACERT", "/dev/null")], "-b consul -e a:1", "https://a:1"),
        (&[("CONSUL_HTTP_ADDR", "a:1")], "--cacert /dev/null", "https://a:1"),
        (&[("CONSUL_HTTP_ADDR", "a:1"), ("DISTLOCK_INSECURE_SKIP_TLS_VERIFY", "1")], "", "https://a:1"),
        (&[("CONSUL_HTTP_ADDR", "a:1"), ("DISTLOCK_INSECURE_SKIP_TLS_VERIFY", "0")], "", "http://a:1"),
        (&[("ETCDCTL_ENDPOINTS", "a:1"), ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true")], "", "http://a:1"),
        (&[("ETCDCTL_ENDPOINTS", "a:1"), ("ETCDCTL_CACERT", "/dev/null")], "", "https://a:1"),
        (&[("ETCDCTL_ENDPOINTS", "a:1"), ("ETCDCTL_INSECURE_TRANSPORT", "false")], "", "https://a:1"),
    ] {
        assert_eq!(of(variables, options), expected, "{variables:?} {options}");
    }
    let file = World::new().config("[etcd]\nendpoints = [\"a:1\", \"b:2\"]");
    assert_eq!(endpoints(&file.server("")), "http://a:1 http://b:2");
    assert!(World::new().refuses("-b etcd").contains("etcd has no address"));
    assert!(World::new().refuses("-b etcd -e unix:///s").contains("is not an address for the backend etcd"));
    assert!(World::new().refuses("-b local -e file:///a,file:///b").contains("two would be two locks"));
}

#[test]
fn servers_are_discovered_by_dns() {
    let found = |variables: &[(&str, &str)], options: &str| {
        World::with(&[variables, &[("ETCDCTL_DISCOVERY_SRV", "a.org.")]].concat()).server(options).endpoints
    };
    let discovered = |secure| vec![Endpoint::Discovered { domain: "a.org".into(), secure }];
    assert_eq!(found(&[("ETCDCTL_ENDPOINTS", "a:1")], ""), discovered(false));
    assert_eq!(found(&[("ETCDCTL_INSECURE_TRANSPORT", "false")], ""), discovered(true));
    assert_eq!(found(&[], "--insecure-skip-tls-verify"), discovered(true));
    assert_ne!(found(&[], "-e a:1"), discovered(false));
    assert_ne!(found(&[("DISTLOCK_ENDPOINTS", "a:1")], ""), discovered(false));
    let refusal = World::with(&[("ETCDCTL_DISCOVERY_SRV", "https://a.org")]).refuses("");
    assert!(refusal.contains("ETCDCTL_DISCOVERY_SRV: `https://a.org` is not a domain name"), "{refusal}");
}

#[test]
fn login_has_its_precedence() {
    let login = |world: &World, options: &str| {
        let identity = world.server(options).identity;
        (identity.user.unwrap_or_default(), identity.password.map(|secret| secret.reveal().to_owned()))
    };
    let some = |user: &str, password: &str| (user.to_owned(), Some(password.to_owned()));
    let etcd = "-b etcd -e h:1";
    let alice = World::with(&[("ETCDCTL_USER", "alice:a:1")]);
    assert_eq!(login(&alice, etcd), some("alice", "a:1"));
    assert_eq!(login(&alice, "-b etcd -e h:1 --user alice"), some("alice", "a:1"));
    // Bob does not get Alice's password, but a prompt.
    assert_eq!(login(&alice, "-b etcd -e h:1 --user bob"), ("bob".to_owned(), None));
    let separate = World::with(&[("ETCDCTL_USER", "bob"), ("ETCDCTL_PASSWORD", "b")]);
    assert_eq!(login(&separate, etcd), some("bob", "b"));
    assert_eq!(login(&separate, "-b etcd -e h:1 --user carol"), some("carol", "b"));
    let file = separate.file("pw", "from file\n");
    assert_eq!(login(&separate, &format!("-b etcd -e h:1 --password-file {file}")), some("bob", "from file"));
    assert_eq!(login(&World::with(&[("CONSUL_HTTP_AUTH", "dave:d")]), "-b consul"), some("dave", "d"));
    assert_eq!(login(&World::with(&[("CONSUL_HTTP_AUTH", "dave")]), "-b consul"), some("dave", ""));
    assert_eq!(login(&World::with(&[("CONSUL_HTTP_AUTH", "dave:d")]), etcd), (String::new(), None));
}

#[test]
fn token_has_its_precedence() {
    let token =
        |world: &World, options: &str| world.server(options).identity.token.map(|token| token.reveal().to_owned());
    let mut world = World::with(&[("CONSUL_HTTP_TOKEN", "variable")]).config("token_file = \"default\"");
    let (own, flag) = (world.file("own", "own"), world.file("flag", "flag"));
    world.file("default", "default");
    assert_eq!(token(&world, "-b consul").as_deref(), Some("variable"));
    world.variables.insert("CONSUL_HTTP_TOKEN_FILE".into(), own);
    assert_eq!(token(&world, "-b consul").as_deref(), Some("own"));
    assert_eq!(token(&world, &format!("-b consul --token-file {flag}")).as_deref(), Some("flag"));
    world.variables.clear();
    assert_eq!(token(&world, "-b consul").as_deref(), Some("default"));
    world.file("default", "\n");
    assert!(world.refuses("-b consul").contains("is empty"));
    assert!(World::new().refuses("-b etcd -e h:1 --namespace n").contains("--namespace: does not apply to etcd"));
}

#[test]
fn tls_files_are_checked() {
    let world = World::with(&[("CONSUL_HTTP_SSL_VERIFY", "false")]);
    let (ca, cert, key) = (world.file("ca", ""), world.file("cert", ""), world.file("key", ""));
    let tls = world.server(&format!("-b consul --cacert {ca} --cert {cert} --key {key}")).tls;
    assert_eq!((tls.cacert, tls.cert, tls.key), (Some(ca.clone().into()), Some(cert.clone().into()), Some(key.into())));
    assert!(tls.insecure_skip_verify);
    assert!(world.refuses(&format!("-b consul --cert {cert}")).contains("without a private key"));
    assert!(world.refuses("-b consul --cacert /nonexistent").contains("--cacert: cannot read /nonexistent"));
    let capath = World::with(&[("CONSUL_CAPATH", "/")]).server("-b consul").tls.capath;
    assert_eq!(capath, Some("/".into()));
}

#[test]
fn security_settings_are_not_ignored() {
    let files = World::new();
    let secret = files.file("secret", "s\n");
    for options in ["-b etcd -e h:1", "-b consul"] {
        let refusal = files.refuses(&format!("{options} --password-file {secret}"));
        assert!(
            refusal.contains("--password-file: the user of this password is not set") && refusal.contains("--user"),
            "{refusal}"
        );
        let refusal = World::with(&[("DISTLOCK_PASSWORD_FILE", &secret)]).refuses(options);
        assert!(refusal.contains("DISTLOCK_PASSWORD_FILE: the user of this password is not set"), "{refusal}");
    }
    for option in ["--cacert f", "--insecure-skip-tls-verify", "--user joe", "--token-file f", "--namespace n"] {
        let refusal = World::new().refuses(&format!("-b local {option}"));
        assert!(refusal.contains("does not apply to the local backend") && refusal.contains("remove it"), "{refusal}");
    }
    // Variables and keys may be meant for other locks.
    World::with(&[("DISTLOCK_USER", "joe"), ("ETCDCTL_CACERT", "/none"), ("DISTLOCK_CACERT", "/none")])
        .accepts("-b local");
    World::new().config("user = \"joe\"").accepts("-b local");
}
