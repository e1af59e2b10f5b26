//! `--report`: one JSON object for every outcome; no target of the report can delay the release.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::world::{
    Etcd, Finished, Holder, Run, Running, Server, Version, World, enqueue, everywhere, on_servers, poll_for,
    poll_until, secs, shared, start,
};

const FIELDS: [&str; 16] = [
    "backend",
    "command_exit",
    "ended_at",
    "exit",
    "held",
    "losses",
    "name",
    "outcome",
    "renewals",
    "restarts",
    "rusage",
    "schema",
    "signal",
    "started_at",
    "token",
    "waited",
];

/// A report file. It has the content of an earlier run first.
struct Report(PathBuf);

impl Report {
    fn of(world: &World) -> Self {
        let path = world.path().join("report.json");
        fs::write(&path, "of an earlier run").expect("a file in the world");
        Self(path)
    }

    /// Returns distlock with `--report`; `args` adds the rest.
    fn run(&self, world: &World) -> Run {
        world.distlock().args(["--report"]).args([&self.0])
    }

    #[track_caller]
    fn read(&self) -> Value {
        parse(&fs::read_to_string(&self.0).expect("a report"))
    }

    /// Asserts that the report agrees with this job and has these values; returns it.
    #[track_caller]
    fn assert(&self, job: &Finished, outcome: &str, command_exit: Option<i32>, signal: Option<i32>) -> Value {
        let report = self.read();
        let exit = job.code().or(job.signal().map(|signal| 128 + signal as i32));
        let reported = (&report["outcome"], &report["exit"], &report["command_exit"], &report["signal"]);
        assert_eq!(
            reported,
            (&json!(outcome), &json!(exit), &json!(command_exit), &json!(signal)),
            "{}",
            job.describe()
        );
        report
    }
}

/// Parses a report, which must have all fields.
#[track_caller]
fn parse(text: &str) -> Value {
    let report: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let mut fields: Vec<_> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS, "{text}");
    assert_eq!(report["schema"], 1);
    report
}

/// Returns the job with these redirections of `sh`.
fn with_descriptors(job: Run, redirections: &str) -> Run {
    job.through("sh", ["-c", &format!("exec \"$@\" {redirections}"), "sh"])
}

#[test]
fn report_contains_times_and_resource_usage() {
    everywhere(|world| {
        let (name, report) = (world.name("x"), Report::of(world));
        let busy = "echo $DISTLOCK_FENCING_TOKEN $DISTLOCK_HELD_BACKEND; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 7";
        // No renewal is due before 20 s.
        let job = report.run(world).args(["--ttl", "60", &name, "sh", "-c", busy]).run().assert_code(7);
        assert_eq!(job.stderr, "", "a report must not cause output");
        let (stdout, elapsed) = (job.stdout.clone(), job.elapsed.as_secs_f64());
        let report = report.assert(&job, "exited", Some(7), None);
        assert_eq!(report["name"], name.as_str());
        assert_eq!(format!("{} {}\n", report["token"], report["backend"].as_str().expect("a backend")), stdout);
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {report}"));
        assert!(
            number(&report["held"]) > 0.0 && number(&report["waited"]) + number(&report["held"]) < elapsed,
            "{report}"
        );
        assert_eq!((&report["renewals"], &report["losses"], &report["restarts"]), (&json!(0), &json!(0), &json!(0)));
        let usage = &report["rusage"];
        assert!(number(&usage["user"]) > 0.0 && number(&usage["system"]) >= 0.0, "{report}");
        assert!(number(&usage["user"]) < number(&report["held"]), "the usage of the command only: {report}");
        assert!(number(&usage["max_rss"]) > 100_000.0, "{report}");
        let time = |field: &str| report[field].as_str().expect("a time").to_owned();
        assert!(time("started_at") < time("ended_at") && time("ended_at").ends_with('Z'), "{report}");
    });
}

#[test]
fn old_report_is_deleted_at_the_start_and_waiting_counts() {
    everywhere(|world| {
        let (name, report) = (world.name("x"), Report::of(world));
        let holder = Holder::of(world, &name);
        let waiter = enqueue(report.run(world), &name, &["true"]);
        assert!(!report.0.exists());
        let waiting_since = Instant::now();
        poll_until("three seconds of waiting", secs(30), || waiting_since.elapsed() > secs(3));
        holder.release();
        let report = report.assert(&waiter.wait().assert_code(0), "exited", Some(0), None);
        let seconds = |field: &str| report[field].as_f64().unwrap_or_else(|| panic!("no {field} in {report}"));
        assert!(seconds("waited") > 3.0 && seconds("held") < seconds("waited"), "{report}");
    });
}

#[test]
fn signals_busy_locks_and_interrupts_have_own_outcomes() {
    everywhere(|world| {
        let (name, report) = (world.name("x"), Report::of(world));
        let died = report.run(world).args([&name, "sh", "-c", "kill -TERM $$"]).run();
        report.assert(&died, "signaled", None, Some(15));
        let died = report.run(world).args([&name, "sh", "-c", "kill -KILL $$"]).run().assert_code(137);
        report.assert(&died, "signaled", None, Some(9));

        let holder = Holder::of(world, &name);
        let busy = report.run(world).args(["--try", "-E", "0", &name, "true"]).run().assert_code(0);
        let content = report.assert(&busy, "busy", None, None);
        assert_eq!((&content["token"], &content["held"]), (&Value::Null, &json!(0.0)));
        let waiter = enqueue(report.run(world), &name, &["true"]);
        waiter.signal(Signal::SIGTERM);
        report.assert(&waiter.wait().assert_code(143), "interrupted", None, Some(15));
        holder.release();
    });
}

#[test]
fn runs_that_never_start_are_reported() {
    let world = World::local();
    let report = Report::of(&world);
    let run = |args: &[&str]| report.run(&world).args(args).run();
    for (args, code, outcome) in [
        (&["--ttl", "soon", "/x", "true"][..], 64, "usage"),
        (&["run", "--leftover", "wait", "--restarts", "2", "/x", "true"], 64, "usage"),
        (&["/x", "no-such-command"], 127, "not-started"),
        (&["/x", "/etc/passwd"], 126, "not-started"),
        (&["-b", "etcd", "-e", "http://127.0.0.1:1", "--connect-timeout", "100ms", "/x", "true"], 69, "unreachable"),
    ] {
        fs::write(&report.0, "of an earlier run").expect("a file in the world");
        let job = run(args).assert_code(code);
        let content = report.assert(&job, outcome, None, None);
        assert_eq!((&content["token"], &content["losses"]), (&Value::Null, &json!(0)), "{content}");
        assert_eq!(content["name"], "/x", "{content}");
        assert!(content["backend"] == "local" || content["backend"] == "etcd", "{content}");
    }
    // A command line that cannot be parsed leaves an old report: `--report` may be misread.
    fs::write(&report.0, "of an earlier run").expect("a file in the world");
    for args in [&["--no-such-option", "/x", "true"][..], &["run", "--wait"], &["/x"]] {
        run(args).assert_code(64);
        assert_eq!(fs::read_to_string(&report.0).expect("the old report"), "of an earlier run", "{args:?}");
    }
    let content = report.assert(&run(&["--no-lock", "/x", "false"]).assert_code(1), "exited", Some(1), None);
    assert_eq!((&content["backend"], &content["name"]), (&Value::Null, &json!("/x")));
    // An option after the command belongs to the command.
    let job = world.distlock().args(["/x", "sh", "-c", "exit 3", "--report", "other.json"]).run().assert_code(3);
    assert!(!world.path().join("other.json").exists(), "{}", job.describe());
}

#[test]
fn denied_access_is_reported() {
    let etcd = Etcd::start(Version::V35);
    etcd.enable_auth();
    let world = World::on(&etcd);
    let report = Report::of(&world);
    report.assert(&report.run(&world).args(["/x", "true"]).run().assert_code(77), "denied", None, None);
}

#[test]
fn losses_restarts_and_renewals_are_counted() {
    on_servers(|world, server| {
        let (name, report) = (world.name("x"), Report::of(world));
        let await_lease = |job: &Running, runs| {
            // On Consul a lock-delay of 15 s comes first, and then a poll of the queue.
            poll_until("the command", secs(60), || job.stdout().lines().count() == runs);
            poll_for("the key", secs(30), || server.entries(&name).into_iter().find_map(|entry| entry.lease))
        };
        let command = "echo $DISTLOCK_FENCING_TOKEN; exec sleep 300";
        let job = report.run(world).args([&name, "sh", "-c", command]).spawn();
        server.end_lease(&await_lease(&job, 1));
        let content = report.assert(&job.wait().assert_code(76), "lost", None, Some(9));
        assert_eq!((&content["losses"], &content["restarts"]), (&json!(1), &json!(0)), "{content}");

        let job =
            report.run(world).args(["--on-lost", "restart", "--restarts", "1", &name, "sh", "-c", command]).spawn();
        server.end_lease(&await_lease(&job, 1));
        server.end_lease(&await_lease(&job, 2));
        let tokens = job.stdout();
        let content = report.assert(&job.wait().assert_code(76), "lost", None, Some(9));
        assert_eq!((&content["losses"], &content["restarts"]), (&json!(2), &json!(1)), "{content}");
        assert_eq!(content["token"].to_string(), tokens.lines().last().unwrap_or_default());

        // The least TTL that both kinds of server grant; a renewal is due every third of it.
        let job = report.run(world).args(["--ttl", "10s", &world.name("y"), "sleep", "4"]).run().assert_code(0);
        let content = report.assert(&job, "exited", Some(0), None);
        assert!(content["renewals"].as_u64().is_some_and(|renewals| (1..=3).contains(&renewals)), "{content}");
    });
}

#[test]
fn broken_lock_is_not_reported_as_lost() {
    let etcd = shared::etcd35();
    let world = World::on(etcd);
    let (name, report) = (world.name("x"), Report::of(&world));
    let job = report
        .run(&world)
        .args([&name, "sh", "-c", "trap 'exit 5' TERM; echo held; while :; do sleep 0.01; done"])
        .spawn();
    poll_until("the command", secs(30), || job.stdout() == "held\n");
    let held = etcd.entries(&name).pop().expect("the holder's key");
    let mut record: Value = serde_json::from_str(&held.value).expect("a record");
    record["stop"] = "ann@host".into();
    etcd.etcdctl(&world, &etcd.url())
        .args(["put", "--ignore-lease", &held.key, &record.to_string()])
        .run()
        .assert_code(0);
    let content = report.assert(&job.wait().assert_code(76), "broken", Some(5), None);
    assert_eq!(content["losses"], 0);
}

#[test]
fn killed_keeper_leaves_a_partial_report() {
    everywhere(|world| {
        let (name, report) = (world.name("x"), Report::of(world));
        let job = report.run(world).args([&name, "sh", "-c", "echo $DISTLOCK_FENCING_TOKEN; exec sleep 300"]).spawn();
        poll_until("the command", secs(30), || job.stdout().ends_with('\n'));
        let token = job.stdout();
        kill(job.keeper(), Signal::SIGKILL).expect("the keeper is alive");
        let content = report.assert(&job.wait().assert_code(76), "lost", None, None);
        assert_eq!(format!("{}\n", content["token"]), token);
        assert_eq!(
            (&content["losses"], &content["renewals"], &content["rusage"]),
            (&json!(1), &Value::Null, &Value::Null)
        );
    });
    let world = World::local();
    let (name, report) = (world.name("x"), Report::of(&world));
    let holder = Holder::of(&world, &name);
    let waiter = enqueue(report.run(&world), &name, &["true"]);
    kill(waiter.keeper(), Signal::SIGKILL).expect("the keeper is alive");
    report.assert(&waiter.wait().assert_code(70), "fault", None, None);
    holder.release();
}

#[test]
fn report_descriptor_is_written_and_not_inherited() {
    let world = World::local();
    let run = |target: &str, redirections: &str| {
        let job = world.distlock().args(["--report", target, "/x", "sh", "-c", "readlink /proc/$$/fd/*; exit 7"]);
        with_descriptors(job, redirections).run()
    };
    let bare = run("fd:5", "3>other 5>report.json").assert_code(7);
    let has = |file: &str| bare.stdout.lines().any(|line| line.ends_with(file));
    assert!(has("/other") && !has("/report.json"), "{}", bare.describe());
    assert_eq!(parse(&fs::read_to_string(world.path().join("report.json")).expect("a report"))["exit"], 7);
    for (target, redirections) in [("fd:9", ""), ("fd:2", ""), ("fd:x", ""), ("fd:3", "3</dev/null"), ("", "")] {
        let refused = run(target, redirections).assert_code(64);
        assert!(
            refused.stderr.starts_with("distlock: error: --report: ") && refused.stdout.is_empty(),
            "{}",
            refused.describe()
        );
    }
    // A usage error is reported to a descriptor too.
    let job = world.distlock().args(["--report", "fd:3", "--ttl", "soon", "/x", "true"]);
    with_descriptors(job, "3>usage.json").run().assert_code(64);
    assert_eq!(parse(&world.wait_for_file("usage.json"))["outcome"], "usage");
}

#[test]
fn report_reader_sees_the_end_despite_leftovers() {
    let world = World::local();
    let job =
        [env!("CARGO_BIN_EXE_distlock"), "-b local -e file://$PWD/locks --leftover leave --report fd:3 /x"].join(" ");
    let line =
        format!("{{ {job} sh -c 'sleep 300 >/dev/null 2>&1 </dev/null & echo ran >&2' 3>&1 >/dev/null; }} | cat");
    let job = world.command("sh").args(["-c", &line]).run().assert_code(0);
    assert_eq!(parse(&job.stdout)["outcome"], "exited", "{}", job.describe());
}

#[test]
fn failed_report_write_is_an_error_but_keeps_exit_code() {
    let world = World::local();
    let assert_failed = |job: Run| {
        let job = job.args(["-q", "/x", "sh", "-c", "exit 7"]).run().assert_code(7);
        assert!(job.stderr.starts_with("distlock: error: cannot write the report\n"), "{}", job.describe());
        assert!(job.stderr.contains("caused by: No space left"), "{}", job.describe());
    };
    let to = |target: &str| world.distlock().args(["--report", target]);
    assert_failed(to("/dev/full"));
    assert_failed(with_descriptors(to("fd:3"), "3>/dev/full"));
    // The reader has closed the pipe.
    let broken =
        format!("{} -b local -e file://$PWD/locks --report fd:3 /x sh -c 'exit 7'", env!("CARGO_BIN_EXE_distlock"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut job = world.command("sh").args(["-c", &format!("{broken} 3>&1 >/dev/null")]).into_command();
    let job =
        start(job.stdout(writer).stderr(Stdio::piped())).and_then(Child::wait_with_output).expect("a shell starts");
    let stderr = String::from_utf8_lossy(&job.stderr);
    assert!(stderr.contains("Broken pipe") && job.status.code() == Some(7), "{:?}: {stderr}", job.status);
    // A file size limit acts like a full disk, and SIGXFSZ must not kill distlock. stderr is a pipe, which has no
    // limit.
    let line = format!("{{ ulimit -f 0; {} 2>&1; }} | cat", broken.replace("fd:3", "limited.json"));
    let job = world.command("sh").args(["-c", &line]).run();
    assert!(job.stdout.contains("caused by: File too large"), "{}", job.describe());
    assert_eq!(
        fs::read_dir(world.path())
            .expect("the world")
            .filter(|entry| {
                entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains("report"))
            })
            .count(),
        0,
        "no temporary file must be left"
    );
}

#[test]
fn full_report_pipe_times_out_after_the_release() {
    let world = World::local();
    let name = world.name("x");
    // Descriptor 3 is a full pipe, open for reading too.
    world.command("mkfifo").args(["full"]).run().assert_code(0);
    let fill = "exec 3<>full; dd if=/dev/zero of=/dev/fd/3 bs=65536 count=1 2>/dev/null; exec \"$@\"";
    let job = world.distlock().args(["--report", "fd:3", &name, "sh", "-c", "echo ran; exit 7"]);
    let job = job.through("sh", ["-c", fill, "sh"]).spawn();
    poll_until("the command", secs(30), || job.stdout() == "ran\n");
    // The lock must be released although the report is not written yet.
    let next = world.distlock().args(["-w", "4s", &name, "true"]).run().assert_code(0);
    println!("the next contender waited {:?}", next.elapsed);
    let job = job.wait().assert_code(7);
    assert!(job.elapsed > secs(5), "the pipe must be given 5 s: {}", job.describe());
    assert!(job.stderr.contains("caused by: timed out after 5s"), "{}", job.describe());
}
