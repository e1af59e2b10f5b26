use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::lock::transport::endpoint::{Endpoint, Secret, Server};
use crate::lock::{Name, local};

/// Everything that a configuration depends on.
struct World {
    dir: TempDir,
    variables: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), variables: BTreeMap::new() }
    }

    fn with(variables: &[(&str, &str)]) -> Self {
        let world = Self::new();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { variables, ..world }
    }

    /// Writes the default configuration file.
    fn config(self, text: &str) -> Self {
        self.file("config.toml", text);
        self
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, options: &str) -> Result<Run, Failure> {
        let around = Surroundings {
            environment: &|name| self.variables.get(name).map(OsString::from),
            default_file: self.dir.path().join("config.toml"),
        };
        let line = std::iter::once("distlock").chain(options.split_whitespace()).chain(["/x", "ls"]);
        match resolve(cli::parse(line.map(OsString::from))?, &around)? {
            Invocation::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    fn accepts(&self, options: &str) -> Run {
        self.run(options).unwrap_or_else(|failure| panic!("`{options}`: {failure:?}"))
    }

    /// The refusal's lines.
    fn refuses(&self, options: &str) -> String {
        let failure = self.run(options).expect_err(options);
        assert_eq!(failure.kind, distlock_core::error::Kind::Usage);
        [vec![failure.message], failure.causes, failure.hint.into_iter().collect()].concat().join("\n")
    }

    fn server(&self, options: &str) -> Server {
        match self.accepts(options).settings {
            Some(Settings::Etcd(server) | Settings::Consul(server, _)) => server,
            other => panic!("`{options}`: {other:?}"),
        }
    }
}

fn backend(run: &Run) -> Option<Name> {
    run.settings.as_ref().map(Settings::name)
}

fn endpoints(server: &Server) -> String {
    server.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" ")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn defaults() {
    let run = World::new().accepts("-b local");
    assert_eq!((run.name.as_str(), run.argv), ("/x", vec!["ls".into()]));
    assert_eq!((run.ttl, run.grace, run.connect_timeout), (secs(15), secs(5), secs(10)));
    assert_eq!((run.wait, run.signal, run.on_lost), (None, Signal::SIGTERM, OnLost::Kill));
    assert_eq!((run.busy_exit, run.message, run.url), (None, None, None));
    assert_eq!(run.output, Output { verbose: false, quiet: false, format: Format::Text, ci: false });
    assert!(matches!(run.settings, Some(Settings::Local(directory)) if directory == local::Directory::standard()));
}

#[test]
fn flag_beats_variable_beats_own_variable_beats_table_beats_file() {
    let mut world = World::with(&[("DISTLOCK_CONNECT_TIMEOUT", "2s"), ("ETCDCTL_DIAL_TIMEOUT", "3s")])
        .config("connect_timeout = 5\n[etcd]\nconnect_timeout = \"4s\"");
    let timeout = |world: &World, options: &str| world.accepts(options).connect_timeout;
    let etcd = "-b etcd -e h:1";
    assert_eq!(timeout(&world, "-b etcd -e h:1 --connect-timeout 1s"), secs(1));
    assert_eq!(timeout(&world, etcd), secs(2));
    world.variables.insert("DISTLOCK_CONNECT_TIMEOUT".into(), String::new());
    assert_eq!(timeout(&world, etcd), secs(3));
    assert_eq!(timeout(&world, "-b consul"), secs(5), "another backend's variable and table do not count");
    world.variables.clear();
    assert_eq!(timeout(&world, etcd), secs(4));
    assert_eq!(timeout(&world, "-b local"), secs(5));
}

#[test]
fn a_flag_beats_a_variable_where_two_flags_would_contradict() {
    let wait = |variables: &[(&str, &str)], options: &str| World::with(variables).accepts(options).wait;
    let (none, ten) = (Some(Duration::ZERO), Some(secs(10)));
    assert_eq!(wait(&[("DISTLOCK_TRY", "1")], "-b local"), none);
    assert_eq!(wait(&[("DISTLOCK_TRY", "1")], "-b local -w 10"), ten);
    assert_eq!(wait(&[("DISTLOCK_WAIT", "10")], "-b local -n"), none);
    assert_eq!(wait(&[("DISTLOCK_WAIT", "10"), ("DISTLOCK_TRY", "0")], "-b local"), ten);
    assert_eq!(wait(&[("DISTLOCK_TRY", "1")], "-b local -w forever"), None);
    assert_eq!(wait(&[], "-b local -w 10 -n"), none);
    assert_eq!(wait(&[], "-b local -n -w 10"), ten);
    let both = World::with(&[("DISTLOCK_WAIT", "10"), ("DISTLOCK_TRY", "true")]);
    assert!(both.refuses("-b local").contains("DISTLOCK_TRY and DISTLOCK_WAIT contradict"));
    let file = World::with(&[("DISTLOCK_TRY", "0")]).config("try = true");
    assert_eq!(file.accepts("-b local").wait, None, "a variable can switch off what the file has on");
    let quiet = World::with(&[("DISTLOCK_VERBOSE", "1")]).accepts("-b local -q").output;
    assert!(quiet.quiet && !quiet.verbose);
    let late = World::new().accepts("-b local -n run -w 10");
    assert_eq!(late.wait, ten, "what stands after the subcommand stands later");
}

#[test]
fn a_value_that_does_not_parse_is_an_error_that_names_its_source() {
    for (name, value) in [
        ("DISTLOCK_TTL", "soon"),
        ("DISTLOCK_TRY", "yes"),
        ("DISTLOCK_TRY", "TRUE"),
        ("DISTLOCK_WAIT", "never"),
        ("DISTLOCK_BACKEND", "zookeeper"),
        ("DISTLOCK_SIGNAL", "FOO"),
        ("DISTLOCK_BUSY_EXIT", "256"),
        ("DISTLOCK_LOG_FORMAT", "xml"),
        ("DISTLOCK_CONNECT_TIMEOUT", "0"),
        ("DISTLOCK_USER", "a:b"),
        ("ETCDCTL_DIAL_TIMEOUT", "soon"),
        ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "maybe"),
        ("ETCDCTL_ENDPOINTS", "ftp://h:1"),
    ] {
        let options = if name.ends_with("ENDPOINTS") { "" } else { "-e h:1" };
        let options = if name == "DISTLOCK_BACKEND" { "" } else { &format!("-b etcd {options}") };
        let refusal = World::with(&[(name, value)]).refuses(options);
        assert!(refusal.starts_with(&format!("{name}: ")), "{refusal}");
    }
    assert!(
        World::with(&[("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "TRUE")]).server("-b etcd -e h:1").tls.insecure_skip_verify
    );
}

#[test]
fn what_changes_one_lock_is_taken_from_flags_alone() {
    let world = World::with(&[("DISTLOCK_SHELL", "1"), ("DISTLOCK_NO_LOCK", "1"), ("DISTLOCK_ON_LOST", "nonsense")]);
    let run = world.accepts("-b local");
    assert_eq!(run.argv, ["ls"]);
    assert!(run.settings.is_some());
    let refusal = World::new().config("no_lock = true").refuses("-b local");
    assert!(refusal.contains("config.toml: no_lock is not taken from a file"), "{refusal}");
    assert!(World::new().config("config = \"x\"").refuses("-b local").contains("is not taken from a file"));
}

#[test]
fn the_file_is_checked() {
    for (text, complaint) in [
        ("tll = 5", "config.toml: tll is not a known key\ndid you mean `ttl`?"),
        ("connect-timeout = 5", "did you mean `connect_timeout`?"),
        ("lock_delay = 5", "did you mean `lock_delay` in [consul]?"),
        ("[etcd]\nlock_delay = 5", "[etcd] lock_delay is not a known key"),
        ("[etcd]\nbackend = \"etcd\"", "[etcd] backend is not a known key"),
        ("[zookeeper]\nendpoints = \"h:1\"", "zookeeper is not a known key"),
        ("password = \"hunter2\"", "password_file = \"PATH\""),
        ("etcd = 5", "is a table"),
        ("try = 1", "try is true or false"),
        ("ttl = true", "ttl is a string or a number"),
        ("user = [\"a\"]", "user is a string or a number"),
        ("endpoints = [1]", "endpoints is a string or a list of strings"),
        ("[consul]\nhealth_checks = \"a\"", "health_checks is a list of strings"),
        ("try = true\nttl = ", "config.toml: line 2 is not valid TOML"),
    ] {
        let refusal = World::new().config(text).refuses("-b local");
        assert!(refusal.contains(complaint), "{text}: {refusal}");
        assert!(!refusal.contains("hunter2"));
    }
}

#[test]
fn a_named_file_has_to_exist() {
    assert!(
        World::new().refuses("-b local --config /nonexistent/c.toml").contains("--config: cannot read /nonexistent")
    );
    let missing = World::with(&[("DISTLOCK_CONFIG", "/nonexistent/c.toml")]);
    assert!(missing.refuses("-b local").contains("DISTLOCK_CONFIG: cannot read"));
    let world = World::new().config("ttl = 20");
    let named = world.file("other.toml", "ttl = 30");
    assert_eq!(world.accepts(&format!("-b local --config {named}")).ttl, secs(30));
    assert_eq!(world.accepts("-b local").ttl, secs(20));
}

#[test]
fn paths_in_the_file_are_relative_to_it() {
    let world = World::new().config("[consul]\ntoken_file = \"token\"");
    world.file("token", "s3cret\n");
    assert_eq!(world.server("-b consul").identity.token, Some(Secret::new("s3cret".to_owned())));
}

#[test]
fn the_backend_is_named_or_is_the_one_with_an_address() {
    let choice = |world: &World, options: &str| backend(&world.accepts(options));
    let etcd = &[("ETCDCTL_ENDPOINTS", "h:1")][..];
    let consul = &[("CONSUL_HTTP_ADDR", "h:1")][..];
    let both = &[("ETCDCTL_ENDPOINTS", "h:1"), ("CONSUL_HTTP_ADDR", "h:1")][..];
    assert_eq!(choice(&World::with(etcd), ""), Some(Name::Etcd));
    assert_eq!(choice(&World::with(consul), ""), Some(Name::Consul));
    assert_eq!(choice(&World::with(etcd), "-b local"), Some(Name::Local));
    assert_eq!(choice(&World::with(both), "-b consul"), Some(Name::Consul));
    assert_eq!(choice(&World::with(both).config("backend = \"etcd\""), ""), Some(Name::Etcd));
    assert_eq!(choice(&World::new().config("[consul]\nendpoints = \"h:1\""), ""), Some(Name::Consul));
    assert_eq!(choice(&World::new(), "-e file:///tmp"), Some(Name::Local));
    assert_eq!(choice(&World::new(), "-e unix:///tmp/s"), Some(Name::Consul));
    assert_eq!(choice(&World::with(&[("DISTLOCK_BACKEND", "local")]), ""), Some(Name::Local));
    let refusal = World::with(both).refuses("");
    assert!(refusal.contains("more than one") && refusal.contains("etcd: ETCDCTL_ENDPOINTS"), "{refusal}");
    assert!(World::with(etcd).refuses("-e file:///tmp").contains("more than one"));
    for (options, why) in [("", "none has an address"), ("-e http://h:1", "--endpoints does not tell which it is for")]
    {
        let refusal = World::new().refuses(options);
        assert!(refusal.contains(why) && refusal.contains("-b etcd"), "{refusal}");
    }
    let tables = World::new().config("[etcd]\nttl = 5\n[consul]\nttl = 30");
    assert!(tables.refuses("").contains("none has an address"), "a table without endpoints has no address");
}

#[test]
fn addresses_and_the_scheme_of_plain_ones() {
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
    // The own variables mean for their own addresses what they mean to the backends' own tools, and ours for all.
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
fn the_servers_of_a_domain_are_left_to_dns() {
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
    assert!(refusal.contains("ETCDCTL_DISCOVERY_SRV: `https://a.org` is not the name of a domain"), "{refusal}");
}

#[test]
fn the_identity_and_its_sources() {
    let login = |world: &World, options: &str| {
        let identity = world.server(options).identity;
        (identity.user.unwrap_or_default(), identity.password.map(|secret| secret.reveal().to_owned()))
    };
    let some = |user: &str, password: &str| (user.to_owned(), Some(password.to_owned()));
    let etcd = "-b etcd -e h:1";
    let alice = World::with(&[("ETCDCTL_USER", "alice:a:1")]);
    assert_eq!(login(&alice, etcd), some("alice", "a:1"));
    assert_eq!(login(&alice, "-b etcd -e h:1 --user alice"), some("alice", "a:1"));
    // Another user's password is not his: he is asked for his own.
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
fn tokens_and_their_sources() {
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
    assert!(World::new().refuses("-b etcd -e h:1 --namespace n").contains("--namespace: means nothing on etcd"));
}

#[test]
fn tls_settings() {
    let world = World::with(&[("CONSUL_HTTP_SSL_VERIFY", "false")]);
    let (ca, cert, key) = (world.file("ca", ""), world.file("cert", ""), world.file("key", ""));
    let tls = world.server(&format!("-b consul --cacert {ca} --cert {cert} --key {key}")).tls;
    assert_eq!((tls.cacert, tls.cert, tls.key), (Some(ca.clone().into()), Some(cert.clone().into()), Some(key.into())));
    assert!(tls.insecure_skip_verify);
    assert!(world.refuses(&format!("-b consul --cert {cert}")).contains("without its key"));
    assert!(world.refuses("-b consul --cacert /nonexistent").contains("--cacert: cannot read /nonexistent"));
    let capath = World::with(&[("CONSUL_CAPATH", "/")]).server("-b consul").tls.capath;
    assert_eq!(capath, Some("/".into()));
}

#[test]
fn terms_without_room_are_refused_with_the_arithmetic() {
    let world = World::new();
    for (options, expected) in [
        ("-b etcd -e h:1 -t 2", "choose --ttl 3s or more"),
        ("-b etcd -e h:1 --grace 14", "choose --ttl 16s or more, or --grace 13250ms or less"),
        ("-b consul -t 9.999s", "choose one from 10s to 24h"),
        ("-b consul -t 25h", "choose one from 10s to 24h"),
        ("-b consul -t 100 --grace 70", "choose --grace 57800ms or less"),
    ] {
        let refusal = world.refuses(options);
        assert!(refusal.contains(expected), "{options}: {refusal}");
    }
    for options in ["-b etcd -e h:1 -t 3", "-b etcd -e h:1 --grace 13250ms", "-b consul -t 10", "-b local -t 1ms"] {
        world.accepts(options);
    }
    assert!(world.refuses("-b etcd -e h:1 -t 2").contains("leaves"), "the arithmetic is told");
    assert_eq!(world.accepts("-b etcd -e h:1 -t 6").grace, secs(2));
}

#[test]
fn consuls_lock_delay() {
    let delay = |world: &World, options: &str| match world.accepts(options).settings {
        Some(Settings::Consul(_, options)) => options.lock_delay,
        other => panic!("{other:?}"),
    };
    assert_eq!(delay(&World::new(), "-b consul"), secs(15));
    assert_eq!(delay(&World::new(), "-b consul -t 5m"), secs(60));
    let world = World::new().config("[consul]\nlock_delay = \"20s\"\nhealth_checks = [\"serfHealth\"]");
    assert_eq!(delay(&world, "-b consul"), secs(20));
    let long = World::new().config("[consul]\nlock_delay = 61");
    assert!(long.refuses("-b consul").contains("[consul] lock_delay: Consul's longest lock-delay is 60s"));
    let short = World::new().config("[consul]\nlock_delay = 2");
    assert!(short.refuses("-b consul").contains("choose a lock_delay of 7s or more in [consul]"));
}

#[test]
fn a_shell_takes_one_word() {
    let around = World::new();
    let line = |words: &[&str]| {
        let surroundings = Surroundings { environment: &|_| None, default_file: around.dir.path().join("none") };
        let words = ["distlock", "-b", "local", "-c", "/x"].iter().chain(words).map(OsString::from);
        cli::parse(words).and_then(|request| resolve(request, &surroundings))
    };
    match line(&["a | b"]).unwrap() {
        Invocation::Run(run) => assert_eq!(run.argv, ["/bin/sh", "-c", "a | b"]),
        other => panic!("{other:?}"),
    }
    assert!(line(&["a", "b"]).unwrap_err().hint.unwrap().contains("'a b'"));
    // Words that are more than one to a shell cannot just be joined.
    let hint = line(&["a b", "c"]).unwrap_err().hint.unwrap();
    assert!(hint.contains("leave --shell out") && !hint.contains("a b c"), "{hint}");
}

#[test]
fn what_secures_the_way_to_a_server_is_not_passed_over() {
    let files = World::new();
    let secret = files.file("secret", "s\n");
    for options in ["-b etcd -e h:1", "-b consul"] {
        let refusal = files.refuses(&format!("{options} --password-file {secret}"));
        assert!(refusal.contains("--password-file: there is no user") && refusal.contains("--user"), "{refusal}");
        let refusal = World::with(&[("DISTLOCK_PASSWORD_FILE", &secret)]).refuses(options);
        assert!(refusal.contains("DISTLOCK_PASSWORD_FILE: there is no user"), "{refusal}");
    }
    for option in ["--cacert f", "--insecure-skip-tls-verify", "--user joe", "--token-file f", "--namespace n"] {
        let refusal = World::new().refuses(&format!("-b local {option}"));
        assert!(
            refusal.contains("means nothing on the local backend") && refusal.contains("leave it out"),
            "{refusal}"
        );
    }
    // A script's environment may be there for other locks.
    World::with(&[("DISTLOCK_USER", "joe"), ("ETCDCTL_CACERT", "/none"), ("DISTLOCK_CACERT", "/none")])
        .accepts("-b local");
    World::new().config("user = \"joe\"").accepts("-b local");
}

#[test]
fn what_a_later_version_takes_is_refused_by_name() {
    for (variable, option) in [("DISTLOCK_SLOTS", "slots"), ("DISTLOCK_METRICS_DIR", "metrics-dir")] {
        let refusal = World::with(&[(variable, "2")]).refuses("-b local");
        assert!(refusal.contains(&format!("{variable}: `--{option}` is not available in this version")), "{refusal}");
        World::with(&[(variable, "")]).accepts("-b local");
    }
    for (key, said) in [("shared", "`--shared` is not available"), ("min_hold", "`--min-hold` is not available")] {
        let refusal = World::new().config(&format!("{key} = true")).refuses("-b local");
        assert!(refusal.contains(&format!("config.toml: {key}: {said}")), "{refusal}");
    }
    let refusal = World::new().config("slot = 3").refuses("-b local");
    assert!(refusal.contains("is not a known key") && !refusal.contains("did you mean"), "{refusal}");
}

#[test]
fn without_a_lock_no_server_is_needed() {
    let run = World::with(&[("DISTLOCK_BACKEND", "etcd")]).accepts("--no-lock");
    assert!(run.settings.is_none());
}

#[test]
fn what_follows_a_loss() {
    let world = World::new();
    assert_eq!(world.accepts("-b local --on-lost restart --restarts 2").restarts, Some(2));
    assert_eq!(world.accepts("-b local --on-lost relock").on_lost, OnLost::Relock);
    assert!(world.refuses("-b local --on-lost maybe").contains("kill, restart, relock"));
    assert!(world.refuses("-b local --restarts 2").contains("--on-lost restart"));
}

#[test]
fn the_ci_job_is_the_message() {
    let world = World::with(&[("GITLAB_CI", "true"), ("CI_JOB_NAME", "deploy"), ("CI_JOB_URL", "https://ci/1")]);
    let run = world.accepts("-b local");
    assert_eq!((run.message.as_deref(), run.url.as_deref()), (Some("deploy"), Some("https://ci/1")));
    let run = world.accepts("-b local -m mine");
    assert_eq!((run.message.as_deref(), run.url.as_deref()), (Some("mine"), Some("https://ci/1")));
}
