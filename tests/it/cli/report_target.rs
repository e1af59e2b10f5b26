//! Targets of `--report`: no old report is left at a target, no file of the command is touched, and an impossible target is
//! refused before the command runs.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::world::World;

#[test]
fn impossible_target_is_refused_before_the_command_runs() {
    let world = World::local();
    let plain = world.path().join("plain");
    fs::write(&plain, "").expect("a file in the world");
    // /proc/version is a regular file that cannot be removed, and no file can be created in /proc.
    for target in ["no/such/directory.json", "plain/report.json", ".", "/proc/version", "/proc/report.json"] {
        for quiet in [&["-q"][..], &[]] {
            let job = world.distlock().args(quiet).args(["--report", target, "/x", "touch", "ran"]).run();
            let job = job.assert_code(64);
            assert!(job.stderr.starts_with("distlock: error: --report: "), "{}", job.describe());
            assert!(job.stderr.contains("hint: "), "{}", job.describe());
        }
    }
    assert!(!world.path().join("ran").exists());
    // Two mistakes are both reported.
    let job = world.distlock().args(["--report", "/proc/version", "--ttl", "soon", "/x", "true"]).run().assert_code(64);
    assert!(job.stderr.contains("--ttl") && job.stderr.contains("--report"), "{}", job.describe());
}

#[test]
fn file_behind_a_link_is_emptied_then_filled() {
    let world = World::local();
    symlink("real.json", world.path().join("link.json")).expect("a link");
    // The link is dangling first; then the file contains an old report.
    for exit in [3, 4] {
        let line = format!("test ! -s real.json && exit {exit}");
        let job = world.distlock().args(["--report", "link.json", "/x", "sh", "-c", &line]).run().assert_code(exit);
        let text = fs::read_to_string(world.path().join("real.json")).expect("a report");
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", job.describe()));
        assert_eq!(report["exit"], exit);
    }
    assert!(world.path().join("link.json").is_symlink());
    symlink("missing/real.json", world.path().join("nowhere.json")).expect("a link");
    let job = world.distlock().args(["--report", "nowhere.json", "/x", "touch", "ran"]).run().assert_code(64);
    assert!(job.stderr.contains("nowhere.json") && !world.path().join("ran").exists(), "{}", job.describe());
}

#[test]
fn inherited_file_is_refused_and_kept() {
    let world = World::local();
    symlink("/dev/stdout", world.path().join("to-stdout")).expect("a link");
    symlink("/dev/fd/3", world.path().join("to-3")).expect("a link");
    for (target, redirection, hint) in [
        ("to-stdout", ">>file", "--report /dev/stdout"),
        ("/dev/../dev/stdout", ">>file", "--report /dev/stdout"),
        ("file", "2>>file", "--report /dev/stderr"),
        ("to-3", "3>>file", "--report fd:3"),
        ("/dev//fd/3", "3<>file", "--report fd:3"),
        ("file", "3<file", "--report fd:3"),
        ("/dev//stdin", "<file", "as in fd:3"),
        ("/dev/stdin", "<file", "as in fd:3"),
        ("/dev/fd/0", "<file", "as in fd:3"),
    ] {
        fs::write(world.path().join("file"), "kept\n").expect("a file in the world");
        // The message may go to the file.
        let line = format!("\"$@\" {redirection}; code=$?; cat file; exit $code");
        let job = world.distlock().args(["--report", target, "/x", "touch", "ran"]);
        let job = job.through("sh", ["-c", &line, "sh"]).run().assert_code(64);
        assert!(job.stdout.starts_with("kept\n"), "{target}: {}", job.describe());
        assert!((job.stdout.clone() + &job.stderr).contains(hint), "{target}: {}", job.describe());
        assert!(!world.path().join("ran").exists(), "{target}");
    }
}

#[test]
fn inherited_pipe_behind_a_link_is_refused() {
    let world = World::local();
    symlink("/dev/stdout", world.path().join("link")).expect("a link");
    let job = world.distlock().args(["--report", "link", "/x", "touch", "ran"]);
    let job = job.through("sh", ["-c", "{ \"$@\"; echo exit $? >&2; } | cat", "sh"]).run();
    assert!(job.stderr.contains("--report /dev/stdout\n") && job.stderr.ends_with("exit 64\n"), "{}", job.describe());
    assert!(!world.path().join("ran").exists());
}

#[test]
fn standard_streams_are_valid_targets() {
    let world = World::local();
    let run = |target: &str| world.distlock().args(["--report", target, "/x", "sh", "-c", "echo ran; echo ran >&2"]);
    for target in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let job = run(target).run().assert_code(0);
        let report = job.stdout.strip_prefix("ran\n").unwrap_or_else(|| panic!("{}", job.describe()));
        assert_eq!(serde_json::from_str::<Value>(report).expect("a report")["outcome"], "exited");
        assert_eq!(job.stderr, "ran\n");
    }
    let job = run("/dev/stderr").run().assert_code(0);
    assert!(job.stderr.starts_with("ran\n{\"schema\":"), "{}", job.describe());
    // The reader of a pipe gets end of file.
    let piped = run("/dev/stdout").through("sh", ["-c", "\"$@\" | cat", "sh"]).run().assert_code(0);
    assert!(piped.stdout.starts_with("ran\n{\"schema\":"), "{}", piped.describe());
    // The command does not inherit a higher descriptor, as with fd:N.
    let job = world.distlock().args(["--report", "/dev/fd/5", "/x", "sh", "-c", "ls /proc/self/fd"]);
    let job = job.through("sh", ["-c", "exec \"$@\" 5>report.json", "sh"]).run().assert_code(0);
    assert!(!job.stdout.lines().any(|fd| fd == "5"), "{}", job.describe());
    assert!(world.wait_for_file("report.json").starts_with("{\"schema\":"));
    let closed = world.distlock().args(["--report", "/dev/fd/9", "/x", "true"]).run().assert_code(64);
    assert!(closed.stderr.contains("descriptor 9"), "{}", closed.describe());
}
