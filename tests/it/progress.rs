//! Progress of a wait: a live line on a terminal, lines in the log of a recognised CI, nothing otherwise.

use crate::world::{
    Gate, Holder, Run, Running, Server, Terminal, World, enqueue, everywhere, let_pass, on_servers, poll_until, secs,
    shared,
};

/// Start of a live line.
const START: &str = "\rdistlock: ";
/// End of a live line: erases the rest of the terminal's line.
const CLEAR: &str = "\x1b[K";

/// Returns a shell command line that waits for the lock with further options and prints `ran`.
fn wait_line(world: &World, options: &str, name: &str) -> String {
    let job = world.distlock().into_command();
    let words = std::iter::once(job.get_program()).chain(job.get_args()).map(|word| word.to_string_lossy());
    world.script("wait", &format!("exec {} {options} run {name} -- echo ra''n", words.collect::<Vec<_>>().join(" ")));
    "./wait".to_owned()
}

fn set_columns(terminal: &mut Terminal, columns: u32) {
    terminal.line(&format!("stty cols {columns}"));
    terminal.prompt();
}

#[test]
fn terminal_shows_one_live_line_until_the_wait_ends() {
    everywhere(|world| {
        let name = world.name("x");
        let holder = Holder::with(world, world.distlock().args(["-m", "nightly run"]), &name);
        let mut terminal = Terminal::open(world);
        set_columns(&mut terminal, 200);
        terminal.line(&wait_line(world, "", &name));
        terminal.expect("\n");
        for _ in 0..3 {
            assert_eq!(terminal.expect(START), "", "the line must be redrawn in place");
            let shown = terminal.expect(CLEAR);
            assert!(shown.starts_with("waiting"), "{shown:?}");
            assert!(
                shown.contains("held by ") && shown.contains(&format!(" pid {} (sh)", holder.job.pid())),
                "{shown:?}"
            );
            assert!(shown.contains("s: nightly run") && shown.contains(" for "), "{shown:?}");
        }
        holder.release();
        let rest = terminal.prompt();
        // The line is erased before the command prints anything.
        assert!(rest.ends_with("\r\x1b[Kran\r\n"), "{rest:?}");
    });
}

#[test]
fn live_line_shows_the_position_and_fits_the_terminal() {
    on_servers(|world, _| {
        let name = world.name("x");
        let holder = Holder::with(world, world.distlock().args(["-m", "ロック in a nightly run"]), &name);
        let second = enqueue(world.distlock(), &name, &["true"]);
        let mut terminal = Terminal::open(world);
        set_columns(&mut terminal, 40);
        terminal.line(&wait_line(world, "", &name));
        terminal.expect(START);
        let shown = terminal.expect(CLEAR);
        assert!(shown.starts_with("waiting at position 2: held") && shown.ends_with('…'), "{shown:?}");
        // `distlock: ` takes ten columns, and the last column stays free.
        assert_eq!(shown.chars().count(), 29, "{shown:?}");
        holder.release();
        second.wait().assert_code(0);
        terminal.expect("\r\x1b[Kran");
    });
}

#[test]
fn suspended_wait_does_not_draw() {
    let world = World::local();
    let name = world.name("x");
    let holder = Holder::of(&world, &name);
    let mut terminal = Terminal::open(&world);
    terminal.line(&wait_line(&world, "", &name));
    terminal.expect(CLEAR);
    terminal.send("\x1a");
    assert!(terminal.expect("Stopped").contains("\r\x1b[K"), "the line must be erased first");
    terminal.prompt();
    // In the background nothing is drawn over typed text.
    terminal.line("bg; sleep 2.5; echo slept");
    assert!(!terminal.expect("\nslept").contains("waiting"));
    terminal.prompt();
    terminal.line("fg");
    terminal.expect(START);
    terminal.expect(CLEAR);
    // An error replaces the line.
    terminal.send("\x03");
    assert!(terminal.prompt().contains("\r\x1b[K"));
    terminal.line(&wait_line(&world, "-w 1500ms", &name));
    terminal.expect(START);
    terminal.expect("\r\x1b[Kdistlock: error: ");
    terminal.prompt();
    holder.release();
}

#[test]
fn quiet_json_and_dumb_terminals_show_no_live_line() {
    let server = shared::etcd35();
    let world = World::on(server);
    let name = world.name("x");
    for (before, options) in [("", "-q"), ("", "--log-format json"), ("TERM=dumb ", ""), ("GITLAB_CI=1 ", "-q")] {
        let holder = Holder::of(&world, &name);
        let mut terminal = Terminal::open(&world);
        terminal.line(&format!("{before}{}; echo over", wait_line(&world, options, &name)));
        poll_until("a waiter", secs(30), || server.contenders(&name) == 2);
        let_pass("twice the interval of redrawing", secs(2));
        holder.release();
        let shown = terminal.expect("over\r\n");
        assert!(shown.ends_with("ran\r\n") && !shown.contains("waiting") && !shown.contains(CLEAR), "{shown:?}");
    }
}

/// Adds the variables of a recognised CI.
fn in_ci(job: Run) -> Run {
    job.env("GITLAB_CI", "true").env("CI_PROJECT_PATH", "group/app").env("CI_JOB_NAME", "deploy").env("CI_JOB_ID", "7")
}

#[test]
fn ci_log_shows_the_wait_and_each_new_holder() {
    on_servers(|world, _| {
        let name = world.name("x");
        let holder = Holder::of(world, &name);
        let gate = Gate::new(world);
        let next = world.distlock().args(["-m", "the next"]);
        let next = enqueue(next, &name, &["sh", "-c", &format!("read -r x <{}", gate.path().display())]);
        // A new holder is noticed within a third of the TTL.
        let wait = |job: Run| job.args(["--ttl", "10s", &name, "true"]).spawn();
        let await_line = |job: &Running, lines: usize| {
            poll_until("a line", secs(30), || job.stderr().lines().count() == lines);
            job.stderr().lines().last().unwrap_or_default().to_owned()
        };
        let logged = wait(in_ci(world.distlock()));
        let first = await_line(&logged, 1);
        let pid = holder.job.pid();
        assert!(first.starts_with("distlock: waiting at position 2: held by "), "{first}");
        assert!(first.contains(&format!("pid {pid} (sh) for ")), "{first}");
        let silent = [wait(world.distlock()), wait(in_ci(world.distlock()).args(["-q"]))];
        holder.release();
        let second = await_line(&logged, 2);
        assert!(second.contains(": the next") && second.contains(" (after "), "{second}");
        gate.open();
        next.wait().assert_code(0);
        let logged = logged.wait().assert_code(0);
        assert_eq!(logged.stderr.lines().count(), 2, "{}", logged.describe());
        for job in silent {
            assert_eq!(job.wait().assert_code(0).stderr, "");
        }
    });
}

#[test]
fn local_waiter_reports_a_new_holder() {
    let world = World::local();
    let name = world.name("x");
    let holder = Holder::of(&world, &name);
    let gate = Gate::new(&world);
    let hold = ["sh", "-c", r#"read -r x <"$1""#, "hold"];
    let wait = || in_ci(world.distlock()).args([&*name]).args(hold).args([gate.path()]).spawn();
    let waiters = [wait(), wait()];
    poll_until("two waiters", secs(30), || waiters.iter().all(|job| job.stderr().lines().count() == 1));
    holder.release();
    // The remaining waiter names the CI job of the other one, which holds the lock until the gate opens.
    let reports = || waiters.iter().filter(|job| job.stderr().contains("group/app deploy #7")).count();
    poll_until("a report of the new holder", secs(30), || reports() == 1);
    gate.open();
    gate.open();
    for job in waiters {
        job.wait().assert_code(0);
    }
}

#[test]
fn ci_log_in_json_has_the_fields_of_verbose_events() {
    let world = World::on(shared::etcd35());
    let name = world.name("x");
    let holder = Holder::of(&world, &name);
    let job = in_ci(world.distlock()).args(["--log-format", "json", "-w", "1s", &name, "true"]).run().assert_code(75);
    let event: serde_json::Value = serde_json::from_str(job.stderr.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&event["event"], &event["ahead"]), (&"waiting".into(), &1.into()));
    assert!(event["holder"]["command"] == "sh", "{event}");
    holder.release();
}
