//! In a terminal, all is as if distlock did not stand before the command.

mod keys;
mod loss;
mod pipes;

use std::fmt::Debug;

use nix::unistd::Pid;

use crate::world::{Terminal, World, descendants, on_servers, poll_for, secs};

/// What stands before a command: nothing, or distlock. Every scene is played with both.
const PREFIXES: [&str; 2] = ["", "L "];

/// A terminal in which `L COMMAND` runs a command under the lock of this world.
pub(crate) fn open(world: &World, ttl: &str) -> Terminal {
    let lock = world.distlock().args(["-t", ttl, &world.name("terminal"), "--"]).into_command();
    let words = std::iter::once(lock.get_program()).chain(lock.get_args()).map(|word| word.to_string_lossy());
    world.script("L", &format!(r#"exec {} "$@""#, words.collect::<Vec<_>>().join(" ")));
    let mut terminal = Terminal::open(world);
    terminal.line("PATH=$PATH:.");
    terminal.prompt();
    terminal
}

/// Plays a scene without distlock and with it, on this host, and asserts that the same is seen.
#[track_caller]
fn same<T: PartialEq + Debug>(scene: impl Fn(&World, &mut Terminal, &str) -> T) {
    compare(World::local, scene).unwrap_or_else(|difference| panic!("{difference}"));
}

/// The same in any kind of world; an error tells what differs.
fn compare<T: PartialEq + Debug>(
    world: impl Fn() -> World,
    scene: impl Fn(&World, &mut Terminal, &str) -> T,
) -> Result<(), String> {
    let seen = PREFIXES.map(|prefix| {
        let world = world();
        let mut terminal = open(&world, "15");
        let seen = scene(&world, &mut terminal, prefix);
        assert_eq!(descendants(terminal.pid()), [], "nothing is left");
        seen
    });
    let [without, with] = &seen;
    if without == with { Ok(()) } else { Err(format!("without distlock {without:?}, and with it {with:?}")) }
}

/// The process of this name below the shell: the command itself, below whatever stands before it, once it has this name.
#[track_caller]
fn command(terminal: &Terminal, name: &str) -> Pid {
    let is = |pid: &Pid| crate::world::name(*pid) == name;
    poll_for(name, secs(30), || descendants(terminal.pid()).into_iter().find(is))
}

/// What `$?` is at the prompt.
#[track_caller]
fn status(terminal: &mut Terminal) -> String {
    terminal.line("echo status=$?");
    terminal.expect("\nstatus=");
    terminal.prompt().trim().to_owned()
}

/// The jobs of the shell, by their states.
#[track_caller]
fn jobs(terminal: &mut Terminal) -> Vec<String> {
    terminal.line("jobs");
    let shown = terminal.prompt();
    let states = ["Stopped", "Running", "Done", "Exit"];
    let state = |line: &str| states.into_iter().find(|state| line.contains(state)).map(str::to_owned);
    shown.lines().filter_map(state).collect()
}

/// A terminal has the same to do with distlock whatever the backend: a few scenes tell.
#[test]
fn terminal_scenarios_match_on_all_servers() {
    on_servers(|_, server| {
        let played = |outcome: Result<(), String>| outcome.unwrap_or_else(|difference| panic!("{difference}"));
        let world = || World::on(server);
        played(compare(world, |_, terminal, prefix| keys::ended_by(terminal, prefix, "\x03")));
        played(compare(world, keys::stopped_and_continued));
        played(compare(world, pipes::read_at_the_end));
    });
}

/// Whether there is a program of this name.
fn has(program: &str) -> bool {
    World::new().command("sh").args(["-c", &format!("command -v {program}")]).run().code() == Some(0)
}
