mod failures;
mod server;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use distlock_core::error::Kind;
use distlock_core::plan::OnLost;
use distlock_core::signal::Signal;

use super::*;
use crate::cli;
use crate::lock::transport::endpoint::{Secret, Server};
use crate::lock::{BackendName, BackendSettings, local};
use crate::report::output::{Format, Output};

/// Variables and files that a configuration depends on.
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
        let environment = Environment {
            variables: &|name| self.variables.get(name).map(OsString::from),
            default_file: self.dir.path().join("config.toml"),
        };
        let line = std::iter::once("distlock").chain(options.split_whitespace()).chain(["/x", "ls"]);
        match resolve(cli::parse(line.map(OsString::from))?, &environment)? {
            Invocation::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    fn accepts(&self, options: &str) -> Run {
        self.run(options).unwrap_or_else(|failure| panic!("`{options}`: {failure:?}"))
    }

    /// Returns the lines of the failure.
    fn refuses(&self, options: &str) -> String {
        let failure = self.run(options).expect_err(options);
        assert_eq!(failure.kind, Kind::Usage);
        [vec![failure.message], failure.causes, failure.hint.into_iter().collect()].concat().join("\n")
    }

    fn server(&self, options: &str) -> Server {
        match self.accepts(options).settings {
            Some(BackendSettings::Etcd(server) | BackendSettings::Consul(server, _)) => server,
            other => panic!("`{options}`: {other:?}"),
        }
    }
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
    assert!(
        matches!(run.settings, Some(BackendSettings::Local(directory)) if directory == local::Directory::standard())
    );
}

#[test]
fn sources_have_their_precedence() {
    let mut world = World::with(&[("DISTLOCK_CONNECT_TIMEOUT", "2s"), ("ETCDCTL_DIAL_TIMEOUT", "3s")])
        .config("connect_timeout = 5\n[etcd]\nconnect_timeout = \"4s\"");
    let timeout = |world: &World, options: &str| world.accepts(options).connect_timeout;
    let etcd = "-b etcd -e h:1";
    assert_eq!(timeout(&world, "-b etcd -e h:1 --connect-timeout 1s"), secs(1));
    assert_eq!(timeout(&world, etcd), secs(2));
    world.variables.insert("DISTLOCK_CONNECT_TIMEOUT".into(), String::new());
    assert_eq!(timeout(&world, etcd), secs(3));
    assert_eq!(timeout(&world, "-b consul"), secs(5), "variable and table of another backend");
    world.variables.clear();
    assert_eq!(timeout(&world, etcd), secs(4));
    assert_eq!(timeout(&world, "-b local"), secs(5));
}

#[test]
fn flags_beat_contradicting_variables() {
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
    assert_eq!(file.accepts("-b local").wait, None, "a variable can switch off a switch of the file");
    let quiet = World::with(&[("DISTLOCK_VERBOSE", "1")]).accepts("-b local -q").output;
    assert!(quiet.quiet && !quiet.verbose);
    let late = World::new().accepts("-b local -n run -w 10");
    assert_eq!(late.wait, ten, "flags after the subcommand come last");
}

#[test]
fn errors_about_values_name_their_origin() {
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
fn options_that_change_one_lock_are_flags_only() {
    let world = World::with(&[("DISTLOCK_SHELL", "1"), ("DISTLOCK_NO_LOCK", "1"), ("DISTLOCK_ON_LOST", "nonsense")]);
    let run = world.accepts("-b local");
    assert_eq!(run.argv, ["ls"]);
    assert!(run.settings.is_some());
    let refusal = World::new().config("no_lock = true").refuses("-b local");
    assert!(refusal.contains("config.toml: no_lock cannot be set in a file"), "{refusal}");
    assert!(World::new().config("config = \"x\"").refuses("-b local").contains("cannot be set in a file"));
}

#[test]
fn file_is_checked() {
    for (text, complaint) in [
        ("tll = 5", "config.toml: tll is not a known key\ndid you mean `ttl`?"),
        ("connect-timeout = 5", "did you mean `connect_timeout`?"),
        ("lock_delay = 5", "did you mean `lock_delay` in [consul]?"),
        ("[etcd]\nlock_delay = 5", "[etcd] lock_delay is not a known key"),
        ("[etcd]\nbackend = \"etcd\"", "[etcd] backend is not a known key"),
        ("[zookeeper]\nendpoints = \"h:1\"", "zookeeper is not a known key"),
        ("password = \"hunter2\"", "password_file = \"PATH\""),
        ("etcd = 5", "must be a table"),
        ("try = 1", "try must be true or false"),
        ("ttl = true", "ttl must be a string or a number"),
        ("user = [\"a\"]", "user must be a string or a number"),
        ("endpoints = [1]", "endpoints must be a string or a list of strings"),
        ("[consul]\nhealth_checks = \"a\"", "health_checks must be a list of strings"),
        ("try = true\nttl = ", "config.toml: line 2 is not valid TOML"),
    ] {
        let refusal = World::new().config(text).refuses("-b local");
        assert!(refusal.contains(complaint), "{text}: {refusal}");
        assert!(!refusal.contains("hunter2"));
    }
}

#[test]
fn named_file_must_exist() {
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
fn short_renewal_windows_are_refused_with_arithmetic() {
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
    assert!(world.refuses("-b etcd -e h:1 -t 2").contains("leaves"), "the arithmetic");
    assert_eq!(world.accepts("-b etcd -e h:1 -t 6").grace, secs(2));
}

#[test]
fn lock_delay_is_within_the_limits_of_consul() {
    let delay = |world: &World, options: &str| match world.accepts(options).settings {
        Some(BackendSettings::Consul(_, options)) => options.lock_delay,
        other => panic!("{other:?}"),
    };
    assert_eq!(delay(&World::new(), "-b consul"), secs(15));
    assert_eq!(delay(&World::new(), "-b consul -t 5m"), secs(60));
    let world = World::new().config("[consul]\nlock_delay = \"20s\"\nhealth_checks = [\"serfHealth\"]");
    assert_eq!(delay(&world, "-b consul"), secs(20));
    let long = World::new().config("[consul]\nlock_delay = 61");
    assert!(
        long.refuses("-b consul")
            .contains("[consul] lock_delay: Consul grants no lock-delay of 1m1s\nchoose 1m or less")
    );
    let short = World::new().config("[consul]\nlock_delay = 2");
    assert!(short.refuses("-b consul").contains("choose a lock_delay of 7s or more in [consul]"));
}

#[test]
fn shell_takes_one_word() {
    let world = World::new();
    let line = |words: &[&str]| {
        let environment = Environment { variables: &|_| None, default_file: world.dir.path().join("none") };
        let words = ["distlock", "-b", "local", "-c", "/x"].iter().chain(words).map(OsString::from);
        cli::parse(words).and_then(|request| resolve(request, &environment))
    };
    match line(&["a | b"]).unwrap() {
        Invocation::Run(run) => assert_eq!(run.argv, ["/bin/sh", "-c", "a | b"]),
        other => panic!("{other:?}"),
    }
    assert!(line(&["a", "b"]).unwrap_err().hint.unwrap().contains("'a b'"));
    // Words that need quotes are not joined.
    let hint = line(&["a b", "c"]).unwrap_err().hint.unwrap();
    assert!(hint.contains("remove --shell") && !hint.contains("a b c"), "{hint}");
}

#[test]
fn options_of_later_versions_are_refused_by_name() {
    for (variable, option) in [("DISTLOCK_SLOTS", "slots"), ("DISTLOCK_METRICS_DIR", "metrics-dir")] {
        let refusal = World::with(&[(variable, "2")]).refuses("-b local");
        assert!(refusal.contains(&format!("{variable}: `--{option}` is not available in this version")), "{refusal}");
        World::with(&[(variable, "")]).accepts("-b local");
    }
    for (key, message) in [("shared", "`--shared` is not available"), ("min_hold", "`--min-hold` is not available")] {
        let refusal = World::new().config(&format!("{key} = true")).refuses("-b local");
        assert!(refusal.contains(&format!("config.toml: {key}: {message}")), "{refusal}");
    }
    let refusal = World::new().config("slot = 3").refuses("-b local");
    assert!(refusal.contains("is not a known key") && !refusal.contains("did you mean"), "{refusal}");
}

#[test]
fn no_lock_needs_no_server() {
    let run = World::with(&[("DISTLOCK_BACKEND", "etcd")]).accepts("--no-lock");
    assert!(run.settings.is_none());
}

#[test]
fn on_lost_and_restarts_are_parsed() {
    let world = World::new();
    assert_eq!(world.accepts("-b local --on-lost restart --restarts 2").restarts, Some(2));
    assert_eq!(world.accepts("-b local --on-lost relock").on_lost, OnLost::Relock);
    assert!(world.refuses("-b local --on-lost maybe").contains("kill, restart, relock"));
    assert!(world.refuses("-b local --restarts 2").contains("--on-lost restart"));
}

#[test]
fn ci_job_is_the_default_message() {
    let world = World::with(&[("GITLAB_CI", "true"), ("CI_JOB_NAME", "deploy"), ("CI_JOB_URL", "https://ci/1")]);
    let run = world.accepts("-b local");
    assert_eq!((run.message.as_deref(), run.url.as_deref()), (Some("deploy"), Some("https://ci/1")));
    let run = world.accepts("-b local -m mine");
    assert_eq!((run.message.as_deref(), run.url.as_deref()), (Some("mine"), Some("https://ci/1")));
}
