//! Suspended jobs: the supervisor is stopped while some of its descendants may still run.

use std::fs;

use nix::sys::signal::{Signal, kill};

use crate::terminal::open;
use crate::world::{
    Holder, Ledger, Server, World, children, descendants, let_pass, millis, name, on_servers, poll_for, poll_until,
    secs, state, throughout,
};

#[test]
fn running_part_of_suspended_job_dies_before_next_holder() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        on_servers(|world, server| signal_keeper_of_suspended_job(world, server, signal));
    }
}

fn signal_keeper_of_suspended_job(world: &World, server: &dyn Server, signal: Signal) {
    let (lock, ledger) = (world.name("terminal"), Ledger::new(world));
    // In a session of its own the ledger's process gets no signals from the terminal's keys.
    world.script("family", r#"setsid "$@" & exec sleep 300"#);
    let mut terminal = open(world, "10");
    terminal.line(&format!("L family {}", ledger.command(secs(300)).join(" ")));
    poll_until("the command", secs(30), || ledger.holds().len() == 1);
    let supervisor = poll_for("distlock", secs(5), || {
        children(terminal.pid()).into_iter().find(|pid| name(*pid).starts_with("distlock"))
    });
    let keeper =
        poll_for("the keeper", secs(5), || children(supervisor).into_iter().find(|pid| name(*pid) == "lock-keeper"));
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    assert_eq!(state(supervisor), Some('T'));
    let other_host = World::on(server);
    let contender = other_host.distlock().args([&*lock, "--"]).args(ledger.command(millis(100))).spawn();
    poll_until("two contenders", secs(30), || server.contenders(&lock) == 2);
    assert_eq!(state(supervisor), Some('T'), "the supervisor must stay suspended without a fault");

    kill(keeper, signal).expect("the keeper takes a signal");
    contender.wait_within(secs(60)).assert_code(0);
    ledger.assert_exclusive(2);
    poll_until("the death of the whole process tree", secs(10), || descendants(terminal.pid()).is_empty());
}

#[test]
fn suspended_waiter_starts_no_command() {
    let run_scenario = |world: &World, is_held: &dyn Fn() -> bool| {
        let lock = world.name("terminal");
        let mut terminal = open(world, "15");
        let holder = Holder::of(world, &lock);
        terminal.line("L sh -c 'echo ran >ran; exit 4'");
        poll_until("the waiter", secs(30), || {
            descendants(terminal.pid()).iter().any(|&pid| name(pid) == "lock-keeper")
        });
        terminal.expect("waiting");
        terminal.send("\x1a");
        terminal.expect("Stopped");
        terminal.prompt();
        holder.release();
        poll_until("the waiter to acquire the lock", secs(10), is_held);
        throughout(millis(500), || {
            assert!(!world.path().join("ran").exists(), "a suspended waiter must not start its command");
        });
        terminal.line("fg");
        terminal.prompt();
        assert_eq!(fs::read_to_string(world.path().join("ran")).expect("the command ran"), "ran\n");
        terminal.line("echo status=$?");
        terminal.expect("status=4");
    };
    on_servers(|world, server| run_scenario(world, &|| server.contenders(&world.name("terminal")) == 1));
    run_scenario(&World::local(), &|| true);
}

/// Tools like `cpulimit` do this to slow a process down.
#[test]
fn repeated_stop_and_continue_leaves_no_stopped_job() {
    let world = World::local();
    world.script("job", "echo $$ >ready; while ! test -e go; do sleep 0.05; done; exit 7");
    let mut terminal = open(&world, "15");
    terminal.line("L job &");
    terminal.prompt();
    let command = nix::unistd::Pid::from_raw(world.wait_for_file("ready").trim().parse().expect("a pid"));
    let supervisor = poll_for("distlock", secs(5), || children(terminal.pid()).pop());
    for round in 0..150_u32 {
        kill(command, Signal::SIGSTOP).expect("the command exists");
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round % 10) * 100));
        kill(command, Signal::SIGCONT).expect("the command exists");
        poll_until("the supervisor to continue", secs(5), || state(supervisor) == Some('S'));
    }
    let_pass("the time for a late stop", secs(1));
    assert_eq!(state(supervisor), Some('S'));
    fs::write(world.path().join("go"), "").expect("a file in the world");
    poll_until("the job to exit", secs(10), || children(terminal.pid()).is_empty());
}
