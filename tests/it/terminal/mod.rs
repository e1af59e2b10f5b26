//! Terminals: a command behaves under distlock as it does without.

mod keys;
mod loss;
mod pipes;

use std::fmt::Debug;

use nix::unistd::Pid;

use crate::world::{Terminal, World, descendants, on_servers, poll_for, secs};

/// Prefixes of a command: nothing, or distlock. Every scenario runs with both.
const PREFIXES: [&str; 2] = ["", "L "];

/// Opens a terminal in which `L COMMAND` runs a command under the lock `terminal` of this world.
pub(crate) fn open(world: &World, ttl: &str) -> Terminal {
    let lock = world.distlock().args(["-t", ttl, &world.name("terminal"), "--"]).into_command();
    let words = std::iter::once(lock.get_program()).chain(lock.get_args()).map(|word| word.to_string_lossy());
    world.script("L", &format!(r#"exec {} "$@""#, words.collect::<Vec<_>>().join(" ")));
    let mut terminal = Terminal::open(world);
    terminal.line("PATH=$PATH:.");
    terminal.prompt();
    terminal
}

/// Runs a scenario without and with distlock on the embedded backend, and asserts that the observations are equal.
#[track_caller]
fn assert_same<T: PartialEq + Debug>(scenario: impl Fn(&World, &mut Terminal, &str) -> T) {
    compare(World::local, scenario).unwrap_or_else(|difference| panic!("{difference}"));
}

/// Runs a scenario without and with distlock; returns an error if the observations differ.
fn compare<T: PartialEq + Debug>(
    world: impl Fn() -> World,
    scenario: impl Fn(&World, &mut Terminal, &str) -> T,
) -> Result<(), String> {
    let observations = PREFIXES.map(|prefix| {
        let world = world();
        let mut terminal = open(&world, "15");
        let observed = scenario(&world, &mut terminal, prefix);
        assert_eq!(descendants(terminal.pid()), [], "no process may be left");
        observed
    });
    let [without, with] = &observations;
    if without == with { Ok(()) } else { Err(format!("without distlock {without:?}, with distlock {with:?}")) }
}

/// Waits for the descendant of the shell with this name, which a command has only after its `exec`.
#[track_caller]
fn await_command(terminal: &Terminal, name: &str) -> Pid {
    let has_name = |pid: &Pid| crate::world::name(*pid) == name;
    poll_for(name, secs(30), || descendants(terminal.pid()).into_iter().find(has_name))
}

/// Returns `$?` of the shell.
#[track_caller]
fn exit_code(terminal: &mut Terminal) -> String {
    terminal.line("echo status=$?");
    terminal.expect("\nstatus=");
    terminal.prompt().trim().to_owned()
}

/// Returns the states of the shell's jobs.
#[track_caller]
fn job_states(terminal: &mut Terminal) -> Vec<String> {
    terminal.line("jobs");
    let shown = terminal.prompt();
    let states = ["Stopped", "Running", "Done", "Exit"];
    let state = |line: &str| states.into_iter().find(|state| line.contains(state)).map(str::to_owned);
    shown.lines().filter_map(state).collect()
}

/// The handling of terminals does not depend on the backend, so a few scenarios suffice.
#[test]
fn terminal_scenarios_match_on_all_servers() {
    on_servers(|_, server| {
        let assert_equal = |outcome: Result<(), String>| outcome.unwrap_or_else(|difference| panic!("{difference}"));
        let world = || World::on(server);
        assert_equal(compare(world, |_, terminal, prefix| keys::run_until_key(terminal, prefix, "\x03")));
        assert_equal(compare(world, keys::stop_and_continue));
        assert_equal(compare(world, pipes::read_in_last_command));
    });
}

/// Returns whether the PATH contains this program.
fn has(program: &str) -> bool {
    World::new().command("sh").args(["-c", &format!("command -v {program}")]).run().code() == Some(0)
}
