//! Effects of keys and signals on a job.

use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::unistd::Pid;

use super::{assert_same, await_command, compare, exit_code, job_states, open};
use crate::signals::{NOTES, assert_noted};
use crate::world::{Terminal, World, children, millis, once_in, poll_until, secs, state, write_program};

/// Continues the stopped job in the foreground, and types the line that its command reads.
#[track_caller]
fn answer_in_foreground(terminal: &mut Terminal, command: Pid) {
    terminal.line("fg");
    poll_until("the job to continue", secs(30), || state(command) == Some('S'));
    terminal.send("word\n");
    terminal.expect("got word");
    terminal.prompt();
}

#[test]
fn ctrl_c_and_ctrl_backslash_end_the_command() {
    for key in ["\x03", "\x1c"] {
        assert_same(|_, terminal, prefix| run_until_key(terminal, prefix, key));
    }
}

/// Runs a command until this key kills it.
pub(super) fn run_until_key(terminal: &mut Terminal, prefix: &str, key: &str) -> String {
    terminal.line(&format!("{prefix}sleep 100"));
    await_command(terminal, "sleep");
    terminal.send(key);
    terminal.prompt();
    exit_code(terminal)
}

#[test]
fn ctrl_c_ends_a_wait_for_the_lock() {
    let world = World::local();
    let mut terminal = open(&world, "15");
    let name = world.name("terminal");
    let holder = world.distlock().args([&name, "sleep", "100"]).spawn();
    poll_until("the holder", secs(30), || !children(holder.keeper()).is_empty());
    terminal.line("L true");
    // The live line reports the wait.
    terminal.expect("waiting");
    terminal.send("\x03");
    terminal.prompt();
    assert_eq!(exit_code(&mut terminal), "130");
    // A loop of waiting jobs stops too.
    terminal.line("while :; do L true; done");
    terminal.expect("waiting");
    terminal.send("\x03");
    terminal.prompt();
    assert_eq!(exit_code(&mut terminal), "130");
}

#[test]
fn key_signal_reaches_the_command_once() {
    assert_same(|world, terminal, prefix| {
        world.script("note-signals", NOTES);
        terminal.line(&format!("{prefix}note-signals"));
        world.wait_for_file("ready");
        terminal.send("\x03");
        assert_noted(world, &["INT"]);
        terminal.send("\x1c");
        assert_noted(world, &["INT", "QUIT"]);
        fs::write(world.path().join("stop"), "").expect("a file in the world");
        terminal.prompt();
        exit_code(terminal)
    });
}

#[test]
fn ctrl_z_stops_the_job_and_fg_continues_it() {
    assert_same(stop_and_continue);
}

/// Stops a job with Ctrl-Z and continues it in the foreground.
pub(super) fn stop_and_continue(
    _: &World,
    terminal: &mut Terminal,
    prefix: &str,
) -> impl PartialEq + std::fmt::Debug + use<> {
    terminal.line(&format!("{prefix}sh -c 'read x; echo got $x; exit 4'"));
    let command = await_command(terminal, "sh");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    let stopped = (exit_code(terminal), state(command), job_states(terminal));
    answer_in_foreground(terminal, command);
    (stopped, exit_code(terminal))
}

#[test]
fn repeated_ctrl_z_stops_the_job_each_time() {
    assert_same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}sleep 100"));
        let command = await_command(terminal, "sleep");
        for _ in 0..5 {
            terminal.send("\x1a");
            terminal.expect("Stopped");
            terminal.prompt();
            terminal.line("fg");
            poll_until("the job to continue", secs(30), || state(command) == Some('S'));
        }
        terminal.send("\x03");
        terminal.prompt();
        exit_code(terminal)
    });
}

#[test]
fn bg_continues_a_stopped_job_in_the_background() {
    assert_same(|world, terminal, prefix| {
        // The command must not fork while it waits: Ctrl-Z between a vfork and its exec stops neither job nor shell.
        world.command("mkfifo").args(["go"]).run().assert_code(0);
        world.script("works", "read x <go; echo worked; exit 5");
        terminal.line(&format!("{prefix}works"));
        let command = await_command(terminal, "works");
        terminal.send("\x1a");
        terminal.expect("Stopped");
        terminal.prompt();
        terminal.line("bg");
        terminal.prompt();
        poll_until("the job to continue", secs(30), || state(command) == Some('S'));
        let running = job_states(terminal);
        fs::write(world.path().join("go"), "go\n").expect("the job reads");
        terminal.expect("worked");
        terminal.line("wait %1");
        terminal.prompt();
        (running, exit_code(terminal))
    });
}

#[test]
fn background_job_stops_when_it_reads_the_terminal() {
    assert_same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}sh -c 'echo out; read x; echo got $x' &"));
        terminal.expect("out\r\n");
        let command = await_command(terminal, "sh");
        let job = children(terminal.pid())[0];
        poll_until("the job to stop", secs(30), || [command, job].map(state) == [Some('T'); 2]);
        terminal.send("\n");
        let stopped = job_states(terminal);
        answer_in_foreground(terminal, command);
        (stopped, exit_code(terminal))
    });
}

#[test]
fn ctrl_c_ends_typed_and_scripted_loops() {
    assert_same(|world, terminal, prefix| {
        terminal.line(&format!("for i in 1 2 3; do echo turn=$i; {prefix}sleep 100; done"));
        terminal.expect("\nturn=1");
        await_command(terminal, "sleep");
        terminal.send("\x03");
        let typed = (terminal.prompt().contains("turn"), exit_code(terminal));
        let script = world.script("loop", &format!("for i in 1 2 3; do echo turn=$i; {prefix}sleep 100; done"));
        let bash = fs::read_to_string(&script).expect("the script").replace("#!/bin/sh", "#!/bin/bash");
        write_program(Path::new(&script), bash.as_bytes());
        terminal.line("./loop");
        terminal.expect("\nturn=1");
        await_command(terminal, "sleep");
        terminal.send("\x03");
        (typed, terminal.prompt().contains("turn"), exit_code(terminal))
    });
}

#[test]
fn signal_to_the_process_group_reaches_command_once() {
    // Without a free processor the witness may report too late.
    once_in(3, || {
        compare(World::local, |world, terminal, prefix| {
            let trap = r#"trap "echo got >>got" TERM; touch ready; until [ -e go ]; do sleep 0.05; done"#;
            world.script("note-signals", trap);
            terminal.line(&format!("{prefix}note-signals &"));
            terminal.prompt();
            poll_until("the command to set its trap", secs(30), || world.path().join("ready").exists());
            terminal.line("kill -TERM %1");
            terminal.prompt();
            world.wait_for_file("got");
            let received_at = Instant::now();
            poll_until("the time for a duplicate", secs(30), || received_at.elapsed() > millis(500));
            fs::write(world.path().join("go"), "").expect("a file in the world");
            terminal.line("wait");
            terminal.prompt();
            fs::read_to_string(world.path().join("got")).expect("the file")
        })
    });
}
