//! The command under the lock: its environment, its exit code, and the lock's keys while it runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Entry, Finished, Holder, Mode, Proxy, World, everywhere, on_servers, secs, write_program};

/// Returns the variables that the command printed with `env`.
fn variables(job: &Finished) -> BTreeMap<&str, &str> {
    job.stdout.lines().filter_map(|line| line.split_once('=')).collect()
}

/// Returns the holder record among the keys of a lock: on etcd the value of the key, on Consul that of `.lockinfo`.
fn record(entries: &[Entry]) -> Option<Value> {
    let json = |entry: &Entry| serde_json::from_str::<Value>(&entry.value).ok();
    entries.iter().filter_map(json).find(|record| record["tool"].is_string())
}

#[test]
fn command_gets_lock_variables_and_its_exit_code_is_kept() {
    everywhere(|world| {
        let name = world.name("jobs/backup");
        let job = world.distlock().args([&name, "sh", "-c", "env; exit 7"]);
        // Variables of an outer lock must be replaced.
        let job = job.env("DISTLOCK_FENCING_TOKEN", "outer").env("DISTLOCK_HANDLE", "outer").run().assert_code(7);
        assert_eq!(job.stderr, "", "cron would mail any output");
        let set = variables(&job);
        let backend = set["DISTLOCK_HELD_BACKEND"];
        let token: u64 = set["DISTLOCK_FENCING_TOKEN"].parse().expect("a decimal token");
        assert!(token > 0);
        assert_eq!(set["DISTLOCK_HELD_NAME"], name);
        let handle: Vec<_> = set["DISTLOCK_HANDLE"].split('.').collect();
        assert_eq!((handle[0], handle[1], handle[2], handle[4]), ("dl1", "r", backend, &*token.to_string()));
        let key = set["DISTLOCK_HELD_KEY"];
        assert!(key.contains("backup"), "{key}");
        match backend {
            "etcd" => assert_eq!((set["ETCD_LOCK_KEY"], set["ETCD_LOCK_REV"]), (key, &*token.to_string())),
            "consul" => assert_eq!(set["CONSUL_LOCK_HELD"], "true"),
            _ => assert!(fs::metadata(key).is_ok_and(|file| file.is_file()), "{key}"),
        }
        assert_eq!(set.contains_key("ETCD_LOCK_KEY"), backend == "etcd");
        assert_eq!(set.contains_key("CONSUL_LOCK_HELD"), backend == "consul");
    });
}

#[test]
fn key_and_record_exist_only_while_the_command_runs() {
    on_servers(|world, server| {
        let name = world.name("jobs/backup");
        let holder = Holder::with(world, world.distlock().args(["-m", "nightly run"]), &name);
        let entries = server.entries(&name);
        let record = record(&entries).expect("a holder record");
        let lease = entries.iter().find_map(|entry| entry.lease.clone()).expect("a key bound to a lease");
        assert!(server.leases().contains(&lease));
        assert!(record["tool"].as_str().is_some_and(|tool| tool.starts_with("distlock/")), "{record}");
        assert_eq!(record["pid"], holder.job.pid().as_raw());
        assert_eq!(record["message"], "nightly run");
        assert_eq!(record["command"], "sh");
        for known in ["host", "user", "since", "id"] {
            assert!(record[known].as_str().is_some_and(|value| !value.is_empty()), "{known} in {record}");
        }
        assert!(!record.to_string().contains("echo"), "arguments may be secret: {record}");
        holder.release();
        assert!(server.entries(&name).is_empty(), "{:?}", server.entries(&name));
        assert!(!server.leases().contains(&lease));
    });
}

#[test]
fn token_grows_over_100_runs() {
    const RUNS: usize = 100;
    everywhere(|world| {
        let name = world.name("counted");
        // Four contenders at a time, so that some runs wait. The tokens are written in the order of holding.
        let contend = "i=0; while [ $i -lt 25 ]; do \
                       \"$@\" -c \"$NAME\" 'echo $DISTLOCK_FENCING_TOKEN >>tokens' || exit; i=$((i+1)); done";
        let distlock = world.distlock().into_command();
        let run = || {
            let argv = [distlock.get_program()].into_iter().chain(distlock.get_args());
            world.command("sh").args(["-c", contend, "contend"]).args(argv).env("NAME", &name).spawn()
        };
        for contender in [run(), run(), run(), run()] {
            contender.wait_within(secs(240)).assert_code(0);
        }
        let tokens = fs::read_to_string(world.path().join("tokens")).expect("tokens");
        let tokens: Vec<u64> = tokens.lines().map(|token| token.parse().expect("a decimal token")).collect();
        assert_eq!(tokens.len(), RUNS);
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    });
}

#[test]
fn arguments_after_the_command_are_passed_on() {
    let world = World::local();
    fs::write(world.path().join("file"), "").expect("a file");
    let job = world.distlock().args(["/x", "ls", "-l", "file"]).run().assert_code(0);
    assert!(job.stdout.starts_with("-rw"), "{}", job.stdout);
    // None of these words is an option of distlock; the second `--` belongs to the command too.
    let job = world.distlock().args(["x", "--", "printf", "%s,", "-n", "--try", "--", "-b", ""]).run();
    assert_eq!(job.assert_code(0).stdout, "-n,--try,--,-b,,");
}

#[test]
fn shell_option_runs_a_pipeline() {
    let world = World::local();
    let job = world.distlock().args(["-c", "/x", "printf 'b\\na\\n' | sort | tr '\\n' ' '"]).run();
    assert_eq!(job.assert_code(0).stdout, "a b ");
    world.distlock().args(["-c", "x", "--", "exit 3"]).run().assert_code(3);
    let two = world.distlock().args(["-c", "/x", "echo", "a-b"]).run().assert_code(64);
    assert!(two.stderr.contains("hint: put it in quotes: 'echo a-b'"), "{}", two.stderr);
}

#[test]
fn stdin_reaches_the_command() {
    everywhere(|world| {
        let text = "line\n".repeat(20_000);
        let job = world.distlock().args([&world.name("x"), "cat"]).stdin(&text).run().assert_code(0);
        assert_eq!(job.stdout, text);
    });
}

#[test]
fn other_descriptors_reach_the_command() {
    everywhere(|world| {
        let script = r#"exec 3<input 7>output; "$@" sh -c 'cat <&3 >&7'"#;
        fs::write(world.path().join("input"), "text").expect("a file");
        let distlock = world.distlock().into_command();
        let argv = [distlock.get_program()].into_iter().chain(distlock.get_args());
        world.command("sh").args(["-c", script, "sh"]).args(argv).args([world.name("x")]).run().assert_code(0);
        assert_eq!(fs::read_to_string(world.path().join("output")).expect("the output"), "text");
    });
}

#[test]
fn command_starts_as_without_distlock() {
    on_servers(|world, _| {
        let setup = r#"trap "" HUP; umask 027; ulimit -n 300; exec 5</dev/null; exec "$@""#;
        let show = "umask; pwd; ulimit -n; nice; grep '^Sig[BI]' /proc/self/status; ls /proc/self/fd; \
                    echo ${PPID:+parent} $0 $#; exit 76";
        let command = ["sh", "-c", show, "zero", ""];
        let run = |before: &[OsString]| {
            let words = before.iter().cloned().chain(command.map(OsString::from));
            world.command("sh").args(["-c", setup, "sh"]).args(words).run().assert_code(76)
        };
        let distlock = world.distlock().args([world.name("x")]).into_command();
        let before = [distlock.get_program()].into_iter().chain(distlock.get_args()).map(ToOwned::to_owned);
        let (plain, locked) = (run(&[]), run(&before.collect::<Vec<_>>()));
        assert_eq!(locked.stdout, plain.stdout);
        assert_eq!(locked.stderr, "", "76 is the exit code of the command");
    });
}

#[test]
fn closed_streams_become_dev_null() {
    everywhere(|world| {
        let setup = r#"exec <&- >&- 2>&-; exec "$@""#;
        let distlock = world.distlock().args(["-v", &world.name("x")]).into_command();
        let argv = [distlock.get_program()].into_iter().chain(distlock.get_args());
        // Output to a closed descriptor must not reach a file that got its number, such as the lock file.
        let write = ["sh", "-c", "echo out; echo err >&2; readlink /proc/self/fd/[012] >seen; exit 7"];
        world.command("sh").args(["-c", setup, "sh"]).args(argv).args(write).run().assert_code(7);
        let seen = fs::read_to_string(world.path().join("seen")).expect("the list of descriptors");
        assert!(seen.lines().all(|line| line == "/dev/null" || line.ends_with("/seen")), "{seen}");
        world.distlock().args([&world.name("x"), "true"]).run().assert_code(0);
    });
}

#[test]
fn command_inherits_no_descriptor_of_distlock() {
    everywhere(|world| {
        // The lock file of the local backend is the exception: the command holds it too, as with flock(1).
        let list = "for fd in /proc/self/fd/*; do readlink $fd || :; done";
        let job = world.distlock().args(["-c", &world.name("x"), list]).run().assert_code(0);
        let own = |line: &&str| line.starts_with("socket:") || line.starts_with("anon_inode:");
        assert_eq!(job.stdout.lines().find(own), None, "{}", job.stdout);
    });
}

#[test]
fn unusable_command_exits_126_or_127_before_connecting() {
    // No server listens at this address: connecting would exit 69, or wait.
    let world = World::at("etcd", "http://127.0.0.1:1");
    fs::write(world.path().join("text"), "echo no").expect("a file");
    fs::set_permissions(world.path().join("text"), fs::Permissions::from_mode(0o644)).expect("its mode");
    let run = |command: &str| world.distlock().args(["/x", command]).run();
    for (command, code, message) in [
        ("no-such-command", 127, "command not found: no-such-command\n"),
        ("./no/such/file", 127, "command not found: ./no/such/file\n"),
        ("pg_dump app", 127, "hint: the command is one word with spaces: use -c"),
        ("./text", 126, "hint: make it executable: chmod +x ./text"),
        ("/tmp", 126, "it is a directory"),
    ] {
        let job = run(command).assert_code(code);
        assert!(job.stderr.starts_with("distlock: error: ") && job.stderr.contains(message), "{}", job.stderr);
    }
}

#[test]
fn failed_exec_exits_126_or_127_and_leaves_no_key() {
    on_servers(|world, server| {
        let program = world.path().join("program");
        write_program(&program, b"#!/no/such/interpreter\n");
        let name = world.name("x");
        let job = world.distlock().args([&name, "./program"]).run();
        assert!(matches!(job.code(), Some(126 | 127)), "as in shells: {}", job.describe());
        assert!(job.stderr.starts_with("distlock: error: "), "{}", job.stderr);
        assert!(server.entries(&name).is_empty());
    });
}

#[test]
fn killed_command_exits_128_plus_signal() {
    everywhere(|world| {
        for (signal, code) in [("KILL", 137), ("USR1", 138), ("SEGV", 139), ("ALRM", 142)] {
            let job = world.distlock().args(["-c", &world.name("x"), &format!("kill -{signal} $$")]).run();
            assert_eq!(job.assert_code(code).stderr, "", "{signal}");
        }
    });
}

#[test]
fn int_term_hup_and_quit_of_the_command_kill_distlock() {
    everywhere(|world| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            let kill = format!("kill -{} $$", signal.as_str().trim_start_matches("SIG"));
            let job = world.distlock().args(["-c", &world.name("x"), &kill]).run();
            assert_eq!(job.assert_signal(signal).stderr, "");
        }
    });
}

#[test]
fn dead_or_silent_first_endpoint_is_skipped() {
    on_servers(|world, server| {
        let silent = Proxy::to(server.address());
        silent.set(Mode::Swallow);
        let name = world.name("x");
        for first in ["http://127.0.0.1:1", &silent.url()] {
            let world = World::at(server.backend(), &format!("{first},{}", server.url()));
            let job = world.distlock().args([&name, "true"]).spawn();
            let job = job.wait_within(secs(30)).assert_code(0);
            assert_eq!(job.stderr, "");
            assert!(server.entries(&name).is_empty());
        }
    });
}

#[test]
fn no_lock_runs_the_command_with_a_warning() {
    // No server listens at this address.
    let world = World::at("etcd", "http://127.0.0.1:1");
    let run = || world.distlock().args(["--no-lock", "/x", "sh", "-c", "env; exit 7"]);
    let job = run().run().assert_code(7);
    assert!(job.stderr.starts_with("distlock: warning: running without a lock"), "{}", job.stderr);
    assert!(!job.stdout.contains("DISTLOCK_"), "no lock is held: {}", job.stdout);
    let quiet = run().env("DISTLOCK_QUIET", "1").run().assert_code(7);
    assert_eq!(quiet.stderr, "");
    // No variable sets --no-lock: a variable would silently remove the lock from other command lines.
    let locked = world.distlock().args(["--connect-timeout", "100ms", "/x", "true"]).env("DISTLOCK_NO_LOCK", "1").run();
    locked.assert_code(69);
}
