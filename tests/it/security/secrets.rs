//! Secrets reach the server and appear nowhere else.

use std::fs;

use crate::world::{
    Authority, Consul, Etcd, Run, Running, Server, ServerTls, Terminal, Version, World, poll_for, secs,
};

const PASSWORD: &str = "s3cr3t-of-joe";

/// A server that requires a secret.
struct SecretServer {
    authority: Authority,
    server: Box<dyn Server>,
    secret: String,
}

impl SecretServer {
    fn etcd(version: Version) -> Self {
        let authority = Authority::new();
        let etcd = Etcd::start_secure(version, &tls(&authority), 300);
        etcd.add_user("joe", PASSWORD, &["/test-"]);
        etcd.enable_auth();
        Self { authority, server: Box::new(etcd), secret: PASSWORD.to_owned() }
    }

    fn consul() -> Self {
        let authority = Authority::new();
        let consul = Consul::start_secure(&tls(&authority));
        let rules = r#"session_prefix "" { policy = "write" } key_prefix "" { policy = "write" }"#;
        let secret = consul.token(rules);
        Self { authority, server: Box::new(consul), secret }
    }

    fn all() -> [Self; 3] {
        [Self::etcd(Version::V34), Self::etcd(Version::V35), Self::consul()]
    }

    fn distlock(&self, world: &World) -> Run {
        super::trusting(world, &self.authority.cacert())
    }

    /// Returns a run of distlock for each way to pass the secret without a terminal.
    fn runs_with_secret(&self, world: &World) -> Vec<Run> {
        fs::write(world.path().join("secret"), format!("{}\n", self.secret)).unwrap();
        let run = || self.distlock(world);
        match self.server.backend() {
            "etcd" => vec![
                run().args(["--user", "joe", "--password-file", "secret"]),
                run().env("DISTLOCK_USER", "joe").env("DISTLOCK_PASSWORD_FILE", "secret"),
                run().args(["--user", "joe"]).env("ETCDCTL_PASSWORD", &self.secret),
                run().env("ETCDCTL_USER", format!("joe:{}", self.secret)),
            ],
            _ => vec![
                run().args(["--token-file", "secret"]),
                run().env("CONSUL_HTTP_TOKEN_FILE", "secret"),
                run().env("CONSUL_HTTP_TOKEN", &self.secret),
            ],
        }
    }
}

fn tls(authority: &Authority) -> ServerTls {
    ServerTls { pem: authority.server(&["127.0.0.1"]), clients: None }
}

/// Returns what other users of this host can read of a job: arguments, names and states of its processes.
fn public_process_data(job: &Running) -> String {
    let processes = [job.pid(), job.keeper()];
    let files = ["cmdline", "comm", "stat", "status"];
    let paths = processes.iter().flat_map(|pid| files.map(|file| format!("/proc/{pid}/{file}")));
    paths.map(|path| fs::read_to_string(path).expect("a process's file")).collect()
}

#[test]
fn held_lock_shows_no_secret() {
    for guarded in SecretServer::all() {
        let world = World::on(&*guarded.server);
        for (n, run) in guarded.runs_with_secret(&world).into_iter().enumerate() {
            let name = world.name(&format!("run-{n}"));
            let format = ["text", "json"][n % 2];
            let mut job = run.args(["-v", "-v", "--log-format", format, &name, "sleep", "60"]).spawn();
            let held_entry = || guarded.server.entries(&name).into_iter().find(|entry| entry.lease.is_some());
            poll_for("the lock", secs(30), held_entry);
            poll_for("the command", secs(30), || job.stderr().contains("the command runs").then_some(()));
            let records: String = guarded.server.entries(&name).iter().map(|entry| format!("{entry:?}")).collect();
            assert!(job.is_running());
            for (place, text) in [("processes", public_process_data(&job)), ("record", records)] {
                assert!(!text.contains(&guarded.secret), "the secret is in the {place}: {text}");
            }
            job.signal(nix::sys::signal::Signal::SIGTERM);
            let job = job.wait();
            assert!(!job.stderr.is_empty() && !job.stderr.contains(&guarded.secret), "{}", job.describe());
        }
    }
}

#[test]
fn errors_contain_no_secret() {
    let guarded = SecretServer::etcd(Version::V35);
    let world = World::on(&*guarded.server);
    fs::write(world.path().join("wrong"), "wr0ng-s3cr3t\nand a second line\n").unwrap();
    let run = || guarded.distlock(&world);
    let name = world.name("errors");
    let denied = [
        run().args(["--user", "joe", "--password-file", "wrong"]),
        run().env("ETCDCTL_USER", "joe:wr0ng-s3cr3t"),
        run().args(["--user", "joe"]).env("ETCDCTL_PASSWORD", "wr0ng-s3cr3t"),
    ];
    let refused = [
        run().args(["--user", "joe:wr0ng-s3cr3t"]),
        run().args(["-e", "https://joe:wr0ng-s3cr3t@127.0.0.1:1"]),
        run().args(["-b", "consul", "-e", "http://127.0.0.1:1"]).env("CONSUL_HTTP_TOKEN", "wr0ng-s3cr3t\nx"),
        run().args(["--token-file", "wrong"]),
    ];
    let jobs = denied.into_iter().map(|run| (run, 77)).chain(refused.into_iter().map(|run| (run, 64)));
    for (run, code) in jobs {
        let job = run.args(["-v", &name, "true"]).run().assert_code(code);
        super::assert_error_names(&job, &[]);
        assert!(!job.stderr.contains("wr0ng-s3cr3t"), "{}", job.describe());
    }
}

#[test]
fn password_typed_at_the_prompt_is_not_shown() {
    let guarded = SecretServer::etcd(Version::V35);
    let world = World::on(&*guarded.server);
    let distlock = format!(
        "{} -b etcd -e {} --cacert {} --user joe {} echo held",
        env!("CARGO_BIN_EXE_distlock"),
        guarded.server.url(),
        guarded.authority.cacert().display(),
        world.name("prompt"),
    );
    let mut terminal = Terminal::open(&world);
    terminal.send(&format!("{distlock} </dev/null | cat; stty -a | grep -o ' echo '\n"));
    terminal.expect("Password of joe on etcd: ");
    terminal.send_hidden(&format!("{PASSWORD}\n"));
    let mut shown = terminal.expect("held");
    // The terminal echoes input again.
    shown += &terminal.expect(" echo ");
    shown += &terminal.prompt();
    terminal.send(&format!("{distlock}; echo status $?\n"));
    terminal.expect("Password of joe on etcd: ");
    terminal.send_hidden("wrong-s3cr3t\n");
    shown += &terminal.expect("status 77");
    assert!(!shown.contains(PASSWORD) && !shown.contains("wrong-s3cr3t"), "{shown}");
    // Without a terminal there is no prompt.
    let job = guarded.distlock(&world).args(["--user", "joe", &world.name("prompt"), "true"]);
    let mut command = world.command("setsid");
    let job = job.into_command();
    command = command.args(["--wait"]).args([job.get_program()]).args(job.get_args());
    super::assert_error_names(&command.run().assert_code(64), &["--password-file"]);
}

#[test]
fn ctrl_c_at_the_prompt_ends_a_shell_loop() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let distlock = format!("{} -b etcd -e http://127.0.0.1:1 --user joe /x true", env!("CARGO_BIN_EXE_distlock"));
    terminal.send(&format!("for i in 1 2; do {distlock}; echo continued; done\n"));
    terminal.expect("Password of joe on etcd: ");
    terminal.send_hidden("\x03");
    let shown = terminal.prompt();
    terminal.line("echo status $?");
    terminal.expect("status 130");
    assert!(!shown.contains("continued") && !shown.contains("error"), "{shown}");
}

#[test]
fn command_inherits_the_token_variable() {
    let guarded = SecretServer::consul();
    let world = World::on(&*guarded.server);
    let job = guarded.distlock(&world).env("CONSUL_HTTP_TOKEN", &guarded.secret);
    let job = job.args([&*world.name("environment"), "printenv", "CONSUL_HTTP_TOKEN"]).run().assert_code(0);
    assert_eq!(job.stdout.trim_end(), guarded.secret);
}
