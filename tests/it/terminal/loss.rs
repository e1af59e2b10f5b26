//! Kept and lost locks of jobs at a terminal.

use std::time::Instant;

use super::{await_command, exit_code, open};
use crate::world::{Server, World, descendants, on_servers, poll_for, poll_until, secs, state, throughout};

/// Suspends a job for three TTLs while another contender waits.
fn suspend_for_three_ttls(world: &World, server: &dyn Server) {
    let name = world.name("terminal");
    let mut terminal = open(world, "10");
    terminal.line("L sh -c 'read x; echo got $x'");
    let command = await_command(&terminal, "sh");
    let other_host = World::on(server);
    let mut waiter = other_host.distlock().args([&name, "true"]).spawn();
    poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    throughout(secs(30), || {
        assert_eq!((server.contenders(&name), state(command)), (2, Some('T')));
        assert!(waiter.is_running(), "the waiter must not acquire the lock");
    });
    terminal.line("fg");
    poll_until("the command to continue", secs(30), || state(command) == Some('S'));
    terminal.send("word\n");
    terminal.expect("got word");
    terminal.prompt();
    assert_eq!(exit_code(&mut terminal), "0");
    waiter.wait().assert_code(0);
}

#[test]
fn suspended_job_keeps_its_lock() {
    on_servers(suspend_for_three_ttls);
}

#[test]
fn terminal_modes_are_restored_after_a_kill() {
    on_servers(|world, server| {
        let name = world.name("terminal");
        let mut terminal = open(world, "15");
        world.script("raw", "stty raw -echo; echo ready >ready; exec sleep 1000");
        terminal.line("stty -g >before; L raw; echo $? >code; stty -g >after");
        world.wait_for_file("ready");
        let lease =
            poll_for("the held key", secs(30), || server.entries(&name).into_iter().find_map(|entry| entry.lease));
        server.end_lease(&lease);
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
        world.script("writes", "echo ready >ready; while :; do echo text; sleep 0.01; done");
        terminal.line("L writes");
        world.wait_for_file("ready");
        let command = await_command(&terminal, "writes");
        terminal.send("\x13");
        let lease =
            poll_for("the held key", secs(30), || server.entries(&name).into_iter().find_map(|entry| entry.lease));
        let lost_at = Instant::now();
        server.end_lease(&lease);
        poll_until("the death of the command", secs(30), || state(command).is_none());
        poll_until("the exit of distlock", secs(30), || descendants(terminal.pid()).is_empty());
        assert!(lost_at.elapsed() < secs(10), "a known loss must kill immediately");
        terminal.send("\x11");
        terminal.prompt();
    });
}
