//! Output of distlock while it runs a command.

use serde_json::Value;

use crate::world::{Holder, World, enqueue, everywhere, poll_until, secs};

#[test]
fn default_is_quiet_and_verbose_prints_each_step() {
    everywhere(|world| {
        let name = world.name("x");
        let run = |options: &[&str]| world.distlock().args(options).args([&name, "echo", "ran"]).run().assert_code(0);
        assert_eq!(run(&[]).stderr, "");
        assert_eq!(run(&["-q"]).stderr, "");
        let verbose = run(&["-v"]);
        assert_eq!(verbose.stdout, "ran\n", "events go to stderr");
        assert!(verbose.stderr.lines().all(|line| line.starts_with("distlock: ")), "{}", verbose.stderr);
        assert!(verbose.stderr.contains("acquired, token "), "{}", verbose.stderr);
        // The last flag wins.
        assert_eq!(run(&["-v", "-q"]).stderr, "");
        assert_ne!(run(&["-q", "-v"]).stderr, "");
    });
}

#[test]
fn waiter_prints_the_holder() {
    everywhere(|world| {
        let name = world.name("x");
        let holder = Holder::with(world, world.distlock().args(["-m", "nightly run"]), &name);
        let waiter = enqueue(world.distlock(), &name, &["true"]);
        let pid = holder.job.pid();
        poll_until("the holder in the output", secs(30), || {
            let stderr = waiter.stderr();
            stderr.contains(&format!("pid {pid} (sh)")) && stderr.contains("nightly run")
        });
        holder.release();
        waiter.wait().assert_code(0);
    });
}

/// Parses every line as JSON.
#[track_caller]
fn parse_events(stderr: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    stderr.lines().map(parse).collect()
}

#[track_caller]
fn assert_event(event: &Value) {
    assert!(["error", "warning", "info"].iter().any(|level| event["level"] == *level), "{event}");
    for text in ["time", "event", "message"] {
        assert!(event[text].as_str().is_some_and(|text| !text.is_empty()), "{text} in {event}");
    }
}

#[test]
fn json_log_prints_one_event_per_line() {
    everywhere(|world| {
        let name = world.name("x");
        let json = || world.distlock().args(["--log-format", "json"]);
        let job = json().args(["-v", &name, "sh", "-c", "echo $DISTLOCK_FENCING_TOKEN"]).run().assert_code(0);
        let events = parse_events(&job.stderr);
        events.iter().for_each(assert_event);
        let acquired = events.iter().find(|event| event["event"] == "acquired").expect("an event");
        assert_eq!(acquired["token"].to_string(), job.stdout.trim());

        let _holder = Holder::with(world, world.distlock().args(["-m", "two\nlines \"quoted\""]), &name);
        let busy = json().args(["-v", "--try", &name, "true"]).run().assert_code(75);
        let events = parse_events(&busy.stderr);
        events.iter().for_each(assert_event);
        let last = events.last().expect("an event");
        assert_eq!((&last["level"], &last["event"]), (&"error".into(), &"failed".into()));
        assert!(last["message"].as_str().is_some_and(|text| text.contains("two lines \"quoted\"")), "{last}");
    });
}

#[test]
fn json_log_covers_failures() {
    let world = World::at("etcd", "http://127.0.0.1:1");
    let run = |args: &[&str]| world.distlock().args(["--log-format", "json"]).args(args).run();
    for (args, code, cause) in [
        (&["/x", "pg_dump app"][..], 127, None),
        (&["--connect-timeout", "100ms", "/x", "true"], 69, Some("127.0.0.1:1")),
    ] {
        let events = parse_events(&run(args).assert_code(code).stderr);
        events.iter().for_each(assert_event);
        let failure = events.last().expect("an event");
        assert!(failure["hint"].is_string(), "{failure}");
        assert!(cause.is_none_or(|cause| failure["causes"].to_string().contains(cause)), "{failure}");
    }
}
