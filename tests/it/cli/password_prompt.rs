//! The password prompt: however it ends, the terminal's modes are restored and `--report` is written.

use std::fs;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::world::{Terminal, World, name, poll_until, secs};

const PROMPT: &str = "Password of joe on etcd: ";

/// Returns the command line of a job that asks for joe's password, for `sh`.
fn job(options: &str) -> String {
    let distlock = env!("CARGO_BIN_EXE_distlock");
    format!("{distlock} -b etcd -e http://127.0.0.1:1 --connect-timeout 100ms --user joe {options} /x true")
}

/// Starts a script that survives Ctrl-C and prints the job's exit code and the terminal's modes. An interactive shell
/// would restore the terminal by itself.
fn script(world: &World, options: &str) -> Terminal {
    let text =
        format!("trap : INT TERM\n{}\necho status=$?\nstty -a | tr ' ' '\\n' >modes\necho finished", job(options));
    world.script("script", &text);
    let mut terminal = Terminal::open(world);
    terminal.line("./script");
    terminal.expect(PROMPT);
    terminal
}

#[track_caller]
fn assert_restored(world: &World) {
    let modes = fs::read_to_string(world.path().join("modes")).expect("the terminal's modes");
    for mode in ["echo", "icanon", "isig"] {
        assert!(modes.lines().any(|line| line == mode), "{mode} in {modes}");
    }
}

#[track_caller]
fn assert_interrupted(world: &World, signal: i32) {
    let report = fs::read_to_string(world.path().join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let fields = (&report["outcome"], &report["exit"], &report["signal"]);
    assert_eq!(fields, (&"interrupted".into(), &(128 + signal).into(), &signal.into()), "{report}");
}

#[test]
fn ctrl_c_at_the_prompt_restores_the_terminal() {
    let world = World::new();
    let mut terminal = script(&world, "--report report.json");
    terminal.send_hidden("half-typed\x03");
    let shown = terminal.expect("status=130");
    terminal.expect("finished");
    assert!(!shown.contains("error") && !shown.contains("half-typed"), "{shown}");
    assert_restored(&world);
    assert_interrupted(&world, 2);
}

#[test]
fn sigterm_at_the_prompt_restores_the_terminal() {
    let world = World::new();
    let mut terminal = script(&world, "--report report.json");
    terminal.send_hidden("half-typed");
    let pid = world.processes().into_iter().find(|pid| name(*pid) == "distlock").expect("the job");
    kill(pid, Signal::SIGTERM).expect("the job is alive");
    let shown = terminal.expect("status=143");
    assert!(shown.contains("distlock: error: interrupted by SIGTERM while asking for a password"), "{shown}");
    terminal.expect("finished");
    // The shell must not receive and show the typed characters.
    let shown = terminal.prompt();
    assert!(!shown.contains("half-typed"), "{shown}");
    assert_restored(&world);
    assert_interrupted(&world, 15);
}

#[test]
fn ctrl_d_at_the_prompt_is_a_usage_error() {
    let world = World::new();
    let mut terminal = script(&world, "");
    terminal.send_hidden("\x04");
    let shown = terminal.expect("status=64");
    assert!(shown.contains("none was typed") && shown.contains("--password-file"), "{shown}");
    terminal.expect("finished");
    assert_restored(&world);
}

#[test]
fn fg_repeats_the_password_prompt() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.line(&format!("{}; echo status=$?", job("")));
    terminal.expect(PROMPT);
    terminal.send_hidden("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    // In the background the job stops again: it must not read input that is meant for other programs.
    terminal.line("bg");
    terminal.line("until jobs -s | grep -q distlock; do :; done; echo stopped");
    terminal.expect("stopped");
    terminal.line("fg");
    terminal.expect(PROMPT);
    terminal.send_hidden("secret\n");
    let shown = terminal.expect("no server could be reached");
    assert!(!shown.contains("secret"), "{shown}");
    terminal.prompt();
}

#[test]
fn background_job_dies_of_sigterm_before_its_prompt() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.line(&format!("{} &", job("--report report.json")));
    terminal.line("until jobs -s | grep -q distlock; do :; done; kill %1");
    terminal.expect("interrupted by SIGTERM while asking for a password");
    poll_until("the report", secs(30), || world.path().join("report.json").exists());
    assert_interrupted(&world, 15);
}
