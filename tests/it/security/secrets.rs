//! Secrets reach the server, and nobody else.

use std::fs;

use crate::world::{
    Authority, Consul, Etcd, Run, Running, Server, ServerTls, Terminal, Version, World, poll_for, secs,
};

const PASSWORD: &str = "s3cr3t-of-joe";

/// A server that asks for a secret, which all of `ways` bring.
struct Asking {
    authority: Authority,
    server: Box<dyn Server>,
    secret: String,
}

impl Asking {
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

    /// Every way by which the secret gets there without a terminal.
    fn ways(&self, world: &World) -> Vec<Run> {
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

/// What others can read of a job on this host: the arguments of its processes, and their names.
fn on_show(job: &Running) -> String {
    let processes = [job.pid(), job.keeper()];
    let files = ["cmdline", "comm", "stat", "status"];
    let paths = processes.iter().flat_map(|pid| files.map(|file| format!("/proc/{pid}/{file}")));
    paths.map(|path| fs::read_to_string(path).expect("a process's file")).collect()
}

#[test]
fn held_lock_shows_no_secret() {
    for asking in Asking::all() {
        let world = World::on(&*asking.server);
        for (n, way) in asking.ways(&world).into_iter().enumerate() {
            let name = world.name(&format!("way-{n}"));
            let format = ["text", "json"][n % 2];
            let mut job = way.args(["-v", "-v", "--log-format", format, &name, "sleep", "60"]).spawn();
            let holds = || asking.server.entries(&name).into_iter().find(|entry| entry.lease.is_some());
            poll_for("the lock", secs(30), holds);
            poll_for("the command", secs(30), || job.stderr().contains("the command runs").then_some(()));
            let records: String = asking.server.entries(&name).iter().map(|entry| format!("{entry:?}")).collect();
            assert!(job.is_running());
            for (what, text) in [("processes", on_show(&job)), ("record", records)] {
                assert!(!text.contains(&asking.secret), "the secret is in the {what}: {text}");
            }
            job.signal(nix::sys::signal::Signal::SIGTERM);
            let job = job.wait();
            assert!(!job.stderr.is_empty() && !job.stderr.contains(&asking.secret), "{}", job.describe());
        }
    }
}

#[test]
fn errors_contain_no_secret() {
    let asking = Asking::etcd(Version::V35);
    let world = World::on(&*asking.server);
    fs::write(world.path().join("wrong"), "wr0ng-s3cr3t\nand a second line\n").unwrap();
    let run = || asking.distlock(&world);
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
        super::assert_told(&job, &[]);
        assert!(!job.stderr.contains("wr0ng-s3cr3t"), "{}", job.describe());
    }
}

#[test]
fn password_typed_at_the_prompt_is_not_shown() {
    let asking = Asking::etcd(Version::V35);
    let world = World::on(&*asking.server);
    let distlock = format!(
        "{} -b etcd -e {} --cacert {} --user joe {} echo held",
        env!("CARGO_BIN_EXE_distlock"),
        asking.server.url(),
        asking.authority.cacert().display(),
        world.name("prompt"),
    );
    let mut terminal = Terminal::open(&world);
    terminal.send(&format!("{distlock} </dev/null | cat; stty -a | grep -o ' echo '\n"));
    terminal.expect("Password of joe on etcd: ");
    terminal.send_hidden(&format!("{PASSWORD}\n"));
    let mut shown = terminal.expect("held");
    // The terminal shows again what is typed.
    shown += &terminal.expect(" echo ");
    shown += &terminal.prompt();
    terminal.send(&format!("{distlock}; echo status $?\n"));
    terminal.expect("Password of joe on etcd: ");
    terminal.send_hidden("wrong-s3cr3t\n");
    shown += &terminal.expect("status 77");
    assert!(!shown.contains(PASSWORD) && !shown.contains("wrong-s3cr3t"), "{shown}");
    // Nobody to ask.
    let job = asking.distlock(&world).args(["--user", "joe", &world.name("prompt"), "true"]);
    let mut command = world.command("setsid");
    let job = job.into_command();
    command = command.args(["--wait"]).args([job.get_program()]).args(job.get_args());
    super::assert_told(&command.run().assert_code(64), &["--password-file"]);
}

#[test]
fn ctrl_c_at_the_prompt_ends_a_shell_loop() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let distlock = format!("{} -b etcd -e http://127.0.0.1:1 --user joe /x true", env!("CARGO_BIN_EXE_distlock"));
    terminal.send(&format!("for i in 1 2; do {distlock}; echo went-on; done\n"));
    terminal.expect("Password of joe on etcd: ");
    terminal.send_hidden("\x03");
    let shown = terminal.prompt();
    terminal.line("echo status $?");
    terminal.expect("status 130");
    assert!(!shown.contains("went-on") && !shown.contains("error"), "{shown}");
}

#[test]
fn command_inherits_the_token_variable() {
    let asking = Asking::consul();
    let world = World::on(&*asking.server);
    let job = asking.distlock(&world).env("CONSUL_HTTP_TOKEN", &asking.secret);
    let job = job.args([&*world.name("environment"), "printenv", "CONSUL_HTTP_TOKEN"]).run().assert_code(0);
    assert_eq!(job.stdout.trim_end(), asking.secret);
}
