//! Terminals in which distlock is not an ordinary job of a shell.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::world::{Run, Terminal, World, children, descendants, is_alive, lacks, name, poll_for, poll_until, secs};

fn shell_line(run: Run) -> String {
    let command = run.into_command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// The kernel signals a hangup only to the session leader, as distlock is after `ssh -t host distlock …`.
#[test]
fn hangup_kills_the_command_of_a_session_leader() {
    let world = World::local();
    let job = shell_line(world.distlock().args([&*world.name("leader"), "--", "sleep", "300"]));
    world.script("job", &format!("exec {job}"));
    let mut terminal = Terminal::open(&world);
    let leader = terminal.pid();
    terminal.line("exec ./job");
    let keeper = poll_for("the keeper", secs(20), || children(leader).into_iter().find(|p| name(*p) == "lock-keeper"));
    let command = poll_for("the command", secs(20), || children(keeper).into_iter().find(|p| name(*p) == "sleep"));
    let status = terminal.hang_up();
    assert_eq!(status.signal(), Some(Signal::SIGHUP as i32), "distlock must die of the command's signal");
    assert!(!is_alive(command));
    poll_until("the death of all processes", secs(10), || world.processes().is_empty());
}

/// The process group of such a process has no id in the namespace.
#[test]
fn pid_1_of_a_namespace_gives_terminal_to_command() {
    let world = World::local();
    let namespace = ["--pid", "--fork", "--mount-proc"];
    if world.command("unshare").args(namespace).args(["true"]).run().code() != Some(0) {
        return lacks("the permission to unshare");
    }
    let job = |command: &[&str]| {
        shell_line(world.distlock().args([&*world.name("pid-1"), "--"]).args(command).through("unshare", namespace))
    };
    world.script("reads", &job(&["sh", "-c", "read x; echo got $x; exit 3"]));
    world.script("sleeps", &job(&["sh", "-c", "echo up; exec sleep 300"]));
    let mut terminal = Terminal::open(&world);
    terminal.line("./reads");
    poll_until("the command", secs(20), || descendants(terminal.pid()).iter().any(|p| name(*p) == "lock-keeper"));
    terminal.send("word\n");
    terminal.expect("got word");
    terminal.prompt();
    terminal.line("echo status=$?");
    terminal.expect("status=3");
    terminal.line("./sleeps");
    terminal.expect("up");
    terminal.send("\x03");
    terminal.prompt();
    terminal.line("echo status=$?");
    terminal.expect("status=130");
}

/// `pkill -f` and `pidof` compare the command line; `killall` compares the process name.
#[test]
fn kill_by_name_hits_only_the_supervisor() {
    let world = World::local();
    let lock = world.name("by-name");
    world.script("job", &shell_line(world.distlock().args([&*lock, "--", "sh", "-c", "echo up; exec sleep 300"])));
    let mut terminal = Terminal::open(&world);
    terminal.line("exec ./job");
    terminal.expect("up");
    let command_line = |pid: Pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("the process runs");
        line.trim_end_matches('\0').replace('\0', " ")
    };
    let processes = || descendants(terminal.pid()).into_iter().chain([terminal.pid()]);
    for guardian in ["lock-keeper", "lock-witness"] {
        let found: Vec<_> = processes().filter(|pid| name(*pid) == guardian).map(command_line).collect();
        assert_eq!(found, [guardian]);
    }
    let with_the_lock: Vec<_> = processes().filter(|pid| command_line(*pid).contains(&lock)).collect();
    assert_eq!(with_the_lock.len(), 1, "only the supervisor shows its arguments: {with_the_lock:?}");
}
