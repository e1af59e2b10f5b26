//! `--log-format json`: every line of stderr is an object with the fields that scripts use.

use serde_json::{Value, json};

use crate::world::{Finished, Holder, Run, World, enqueue, poll_for, secs};

#[track_caller]
fn last_event(job: &Finished) -> Value {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    job.stderr.lines().next_back().map_or_else(|| panic!("{}", job.describe()), parse)
}

#[track_caller]
fn assert_failed(job: Run, exit: i32, outcome: &str) {
    let job = job.run().assert_code(exit);
    let event = last_event(&job);
    let fields = (&event["event"], &event["level"], &event["exit"], &event["outcome"]);
    assert_eq!(fields, (&json!("failed"), &json!("error"), &json!(exit), &json!(outcome)), "{}", job.describe());
    assert!(event["message"].is_string() && event["causes"].is_array(), "{event}");
}

#[test]
fn every_failure_event_has_exit_and_outcome() {
    let world = World::local();
    let run = |args: &[&str]| world.distlock().args(["--log-format", "json"]).args(args);
    assert_failed(run(&["--ttl", "soon", "/x", "true"]), 64, "usage");
    assert_failed(run(&["--report", "/no/such/file", "/x", "true"]), 64, "usage");
    assert_failed(run(&["/x", "no-such-command"]), 127, "not-started");
    assert_failed(world.distlock().args(["--log-format=json", "-w", "soon", "/x", "true"]), 64, "usage");
    let by_variable = |args: &[&str]| world.distlock().env("DISTLOCK_LOG_FORMAT", "json").args(args);
    assert_failed(by_variable(&["-w", "soon", "/x", "true"]), 64, "usage");
    // If the command line cannot be parsed, only the variable selects the format.
    assert_failed(by_variable(&["--no-such-option", "/x", "true"]), 64, "usage");
    assert_failed(by_variable(&["/x"]), 64, "usage");
    assert!(run(&["/x"]).run().assert_code(64).stderr.starts_with("distlock: error: "));
    // A standard output that cannot be written to.
    for subcommand in [&["man"][..], &["completions", "bash"], &["-h"]] {
        assert_failed(run(subcommand).through("sh", ["-c", "exec \"$@\" >/dev/full", "sh"]), 70, "fault");
    }
    let _holder = Holder::of(&world, "/x");
    assert_failed(run(&["-n", "-E", "9", "/x", "true"]), 9, "busy");
    // The flag takes precedence over the variable.
    let text =
        world.distlock().env("DISTLOCK_LOG_FORMAT", "json").args(["--log-format", "text", "-w", "x", "/x", "true"]);
    assert!(text.run().assert_code(64).stderr.starts_with("distlock: error: "));
}

#[test]
fn waiting_event_describes_the_holder_as_an_object() {
    let world = World::local();
    let holder = Holder::with(&world, world.distlock().args(["-m", "nightly run"]), "/x");
    let waiter = enqueue(world.distlock().args(["--log-format", "json"]), "/x", &["true"]);
    let event: Value = poll_for("the waiting event", secs(30), || {
        waiter
            .stderr()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(|line: &Value| line["event"] == "waiting")
    });
    let described = &event["holder"];
    assert_eq!((&described["command"], &described["message"]), (&json!("sh"), &json!("nightly run")), "{event}");
    assert_eq!((&described["pid"], &described["url"]), (&json!(holder.job.pid().as_raw()), &Value::Null), "{event}");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("nightly run")), "{event}");
}
