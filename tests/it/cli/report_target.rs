//! Where `--report` can go: an old report is never taken for this run's, and a target that takes none is refused first.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::world::World;

#[test]
fn a_target_that_takes_no_report_is_refused_before_anything_runs() {
    let world = World::local();
    let plain = world.path().join("plain");
    fs::write(&plain, "").expect("a file in the world");
    // /proc/version is a plain file that cannot be removed; nothing can be made in /proc.
    for target in ["no/such/directory.json", "plain/report.json", ".", "/proc/version", "/proc/report.json"] {
        for quiet in [&["-q"][..], &[]] {
            let job = world.distlock().args(quiet).args(["--report", target, "/x", "touch", "ran"]).run();
            let job = job.assert_code(64);
            assert!(job.stderr.starts_with("distlock: error: --report: "), "{}", job.describe());
            assert!(job.stderr.contains("hint: "), "{}", job.describe());
        }
    }
    assert!(!world.path().join("ran").exists());
    // Of two things that are wrong, both are told.
    let job = world.distlock().args(["--report", "/proc/version", "--ttl", "soon", "/x", "true"]).run().assert_code(64);
    assert!(job.stderr.contains("--ttl") && job.stderr.contains("--report"), "{}", job.describe());
}

#[test]
fn the_file_behind_a_link_is_replaced() {
    let world = World::local();
    fs::write(world.path().join("real.json"), "of an earlier run").expect("a file in the world");
    symlink("real.json", world.path().join("link.json")).expect("a link");
    for exit in [3, 4] {
        let line = format!("test ! -e real.json && exit {exit}");
        let job = world.distlock().args(["--report", "link.json", "/x", "sh", "-c", &line]).run().assert_code(exit);
        let text = fs::read_to_string(world.path().join("real.json")).expect("a report");
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", job.describe()));
        assert_eq!(report["exit"], exit);
    }
    assert!(world.path().join("link.json").is_symlink());
}

#[test]
fn standard_streams_can_be_named() {
    let world = World::local();
    let run = |target: &str| world.distlock().args(["--report", target, "/x", "sh", "-c", "echo ran; echo ran >&2"]);
    for target in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let job = run(target).run().assert_code(0);
        let told = job.stdout.strip_prefix("ran\n").unwrap_or_else(|| panic!("{}", job.describe()));
        assert_eq!(serde_json::from_str::<Value>(told).expect("a report")["outcome"], "exited");
        assert_eq!(job.stderr, "ran\n");
    }
    let job = run("/dev/stderr").run().assert_code(0);
    assert!(job.stderr.starts_with("ran\n{\"schema\":"), "{}", job.describe());
    // Through a pipe, whose reader sees the end.
    let piped = run("/dev/stdout").through("sh", ["-c", "\"$@\" | cat", "sh"]).run().assert_code(0);
    assert!(piped.stdout.starts_with("ran\n{\"schema\":"), "{}", piped.describe());
    // A higher one is taken away from the command, as fd:N is.
    let job = world.distlock().args(["--report", "/dev/fd/5", "/x", "sh", "-c", "ls /proc/self/fd"]);
    let job = job.through("sh", ["-c", "exec \"$@\" 5>report.json", "sh"]).run().assert_code(0);
    assert!(!job.stdout.lines().any(|fd| fd == "5"), "{}", job.describe());
    assert!(world.wait_for_file("report.json").starts_with("{\"schema\":"));
    let closed = world.distlock().args(["--report", "/dev/fd/9", "/x", "true"]).run().assert_code(64);
    assert!(closed.stderr.contains("descriptor 9"), "{}", closed.describe());
}
