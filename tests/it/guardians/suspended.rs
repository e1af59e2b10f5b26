//! A suspended job has a stopped supervisor, and some of it may run on.

use std::fs;

use nix::sys::signal::{Signal, kill};

use crate::terminal::open;
use crate::world::{
    Ledger, Server, World, children, descendants, let_pass, millis, name, on_servers, poll_for, poll_until, secs,
    state, throughout,
};

#[test]
fn running_part_of_suspended_job_dies_before_next_holder() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        on_servers(|world, server| keeper_is_hit(world, server, signal));
    }
}

fn keeper_is_hit(world: &World, server: &dyn Server, signal: Signal) {
    let (lock, ledger) = (world.name("terminal"), Ledger::new(world));
    // In a session of its own the terminal's keys do not reach it.
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
    let elsewhere = World::on(server);
    let contender = elsewhere.distlock().args([&*lock, "--"]).args(ledger.command(millis(100))).spawn();
    poll_until("two contenders", secs(30), || server.contenders(&lock) == 2);
    assert_eq!(state(supervisor), Some('T'), "it stays suspended while all is well");

    kill(keeper, signal).expect("the keeper takes a signal");
    contender.wait_within(secs(60)).assert_code(0);
    ledger.assert_exclusive(2);
    poll_until("the end of all of it", secs(10), || descendants(terminal.pid()).is_empty());
}

#[test]
fn suspended_waiter_starts_no_command() {
    let worlds = |world: &World, held: &dyn Fn() -> bool| {
        let lock = world.name("terminal");
        let mut terminal = open(world, "15");
        let holder = crate::world::Holder::of(world, &lock);
        terminal.line("L sh -c 'echo ran >ran; exit 4'");
        poll_until("the waiter", secs(30), || {
            descendants(terminal.pid()).iter().any(|&pid| name(pid) == "lock-keeper")
        });
        terminal.expect("waiting");
        terminal.send("\x1a");
        terminal.expect("Stopped");
        terminal.prompt();
        holder.release();
        poll_until("its turn", secs(10), held);
        throughout(millis(500), || assert!(!world.path().join("ran").exists(), "it is suspended"));
        terminal.line("fg");
        terminal.prompt();
        assert_eq!(fs::read_to_string(world.path().join("ran")).expect("it ran"), "ran\n");
        terminal.line("echo status=$?");
        terminal.expect("status=4");
    };
    on_servers(|world, server| worlds(world, &|| server.contenders(&world.name("terminal")) == 1));
    worlds(&World::local(), &|| true);
}

/// As tools do that slow a process down.
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
        kill(command, Signal::SIGSTOP).expect("the command is there");
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round % 10) * 100));
        kill(command, Signal::SIGCONT).expect("the command is there");
        poll_until("the supervisor to go on", secs(5), || state(supervisor) == Some('S'));
    }
    let_pass("a second in which a late stop would show", secs(1));
    assert_eq!(state(supervisor), Some('S'));
    fs::write(world.path().join("go"), "").expect("a file in the world");
    poll_until("the job's end", secs(10), || children(terminal.pid()).is_empty());
}
