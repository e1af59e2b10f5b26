//! A signal that ends the wait is reported, unless it came from the keyboard.

use nix::sys::signal::Signal;

use crate::world::{Holder, Terminal, World, enqueue};

#[test]
fn signal_during_the_wait_is_reported() {
    let world = World::local();
    let name = world.name("x");
    let _holder = Holder::of(&world, &name);
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let waiter = enqueue(world.distlock(), &name, &["true"]);
        waiter.signal(signal);
        let job = waiter.wait().assert_code(code);
        let line = format!("distlock: error: interrupted by {signal} while waiting for {name}\n");
        assert!(job.stderr.ends_with(&line), "{}", job.describe());
        let waiter = enqueue(world.distlock().args(["--log-format", "json"]), &name, &["true"]);
        waiter.signal(signal);
        let job = waiter.wait().assert_code(code);
        assert!(job.stderr.lines().last().is_some_and(|line| line.contains("\"failed\"")), "{}", job.describe());
    }
}

#[test]
fn ctrl_c_during_the_wait_prints_no_error() {
    let world = World::local();
    let name = world.name("x");
    let _holder = Holder::of(&world, &name);
    let distlock = format!("{} -b local -e file://$PWD/locks", env!("CARGO_BIN_EXE_distlock"));
    let mut terminal = Terminal::open(&world);
    terminal.line(&format!("{distlock} {name} true"));
    terminal.expect("waiting");
    terminal.send("\x03");
    let shown = terminal.prompt();
    assert!(!shown.contains("error"), "{shown}");
    terminal.line(&format!("timeout 1 {distlock} -q {name} true; echo status $?"));
    let shown = terminal.expect("status 124");
    assert!(!shown.contains("error"), "{shown}");
}
