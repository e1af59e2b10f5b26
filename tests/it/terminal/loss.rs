//! Locks that are kept and lost while a job is at a terminal.

use std::time::Instant;

use super::{command, open, status};
use crate::world::{Server, World, descendants, on_servers, poll_for, poll_until, secs, state, throughout};

/// Suspends a job for three TTLs while another contender waits.
fn suspended(world: &World, server: &dyn Server) {
    let name = world.name("terminal");
    let mut terminal = open(world, "10");
    terminal.line("L sh -c 'read x; echo got $x'");
    let command = command(&terminal, "sh");
    let elsewhere = World::on(server);
    let mut waiting = elsewhere.distlock().args([&name, "true"]).spawn();
    poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    throughout(secs(30), || {
        assert_eq!((server.contenders(&name), state(command)), (2, Some('T')));
        assert!(waiting.is_running(), "no other contender got the lock");
    });
    terminal.line("fg");
    poll_until("the job to go on", secs(30), || state(command) == Some('S'));
    terminal.send("word\n");
    terminal.expect("got word");
    terminal.prompt();
    assert_eq!(status(&mut terminal), "0");
    waiting.wait().assert_code(0);
}

#[test]
fn suspended_job_keeps_its_lock() {
    on_servers(suspended);
}

#[test]
fn terminal_modes_are_restored_after_a_kill() {
    on_servers(|world, server| {
        let name = world.name("terminal");
        let mut terminal = open(world, "15");
        world.script("raw", "stty raw -echo; echo ready >ready; exec sleep 1000");
        terminal.line("stty -g >before; L raw; echo $? >code; stty -g >after");
        world.wait_for_file("ready");
        let held = poll_for("the key", secs(30), || server.entries(&name).into_iter().find_map(|entry| entry.lease));
        server.end_lease(&held);
        terminal.prompt();
        let [before, code, after] = ["before", "code", "after"].map(|file| world.wait_for_file(file));
        assert_eq!(code, "76\n");
        assert_eq!(before, after);
    });
}

#[test]
fn stopped_terminal_output_delays_no_kill() {
    on_servers(|world, server| {
        let name = world.name("terminal");
        let mut terminal = open(world, "60");
        world.script("talks", "echo ready >ready; while :; do echo talk; sleep 0.01; done");
        terminal.line("L talks");
        world.wait_for_file("ready");
        let command = command(&terminal, "talks");
        terminal.send("\x13");
        let held = poll_for("the key", secs(30), || server.entries(&name).into_iter().find_map(|entry| entry.lease));
        let lost = Instant::now();
        server.end_lease(&held);
        poll_until("the end of the command", secs(30), || state(command).is_none());
        poll_until("the end of distlock", secs(30), || descendants(terminal.pid()).is_empty());
        assert!(lost.elapsed() < secs(10), "known lost: killed at once");
        terminal.send("\x11");
        terminal.prompt();
    });
}
