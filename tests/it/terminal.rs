//! In a terminal, all is as if distlock did not stand before the command.

use std::fs;
use std::time::Instant;

use nix::unistd::Pid;

use crate::world::{
    Server, Terminal, World, children, descendants, is_alive, millis, on_servers, poll_for, poll_until, secs, state,
};

/// What stands before a command: nothing, or distlock. Every scene is played with both.
const PREFIXES: [&str; 2] = ["", "L "];

/// A terminal in which `L COMMAND` runs a command under the lock of this world.
fn open(world: &World, ttl: &str) -> Terminal {
    let lock = world.distlock().args(["-t", ttl, &world.name("terminal"), "--"]).into_command();
    let words = std::iter::once(lock.get_program()).chain(lock.get_args()).map(|word| word.to_string_lossy());
    world.script("L", &format!(r#"exec {} "$@""#, words.collect::<Vec<_>>().join(" ")));
    let mut terminal = Terminal::open(world);
    terminal.line("PATH=$PATH:.");
    terminal.prompt();
    terminal
}

/// Plays a scene without distlock and with it, and asserts that the same is seen.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(scene: impl Fn(&World, &mut Terminal, &str) -> T) {
    let seen = PREFIXES.map(|prefix| {
        let world = World::local();
        let mut terminal = open(&world, "15");
        let seen = scene(&world, &mut terminal, prefix);
        assert_eq!(descendants(terminal.pid()), [], "nothing is left");
        seen
    });
    assert_eq!(seen[0], seen[1], "without distlock and with it");
}

/// The process of this name below the shell: the command itself, below whatever stands before it, once it has this name.
#[track_caller]
fn command(terminal: &Terminal, name: &str) -> Pid {
    let is = |pid: &Pid| crate::world::name(*pid) == name;
    poll_for(name, secs(10), || descendants(terminal.pid()).into_iter().find(is))
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

#[test]
fn ctrl_c_and_ctrl_backslash_end_the_command() {
    for key in ["\x03", "\x1c"] {
        same(|_, terminal, prefix| {
            terminal.line(&format!("{prefix}sleep 100"));
            command(terminal, "sleep");
            terminal.send(key);
            terminal.prompt();
            status(terminal)
        });
    }
}

#[test]
fn ctrl_c_ends_a_wait_for_the_lock() {
    let world = World::local();
    let mut terminal = open(&world, "15");
    let name = world.name("terminal");
    let holder = world.distlock().args([&name, "sleep", "100"]).spawn();
    poll_until("the holder", secs(5), || children(holder.pid()).iter().any(|&keeper| !children(keeper).is_empty()));
    terminal.line("L true");
    command(&terminal, "lock-keeper");
    terminal.send("\x03");
    terminal.prompt();
    assert_eq!(status(&mut terminal), "130");
    // A loop that waits stops as well.
    terminal.line("while :; do L true; done");
    command(&terminal, "lock-keeper");
    terminal.send("\x03");
    terminal.prompt();
    assert_eq!(status(&mut terminal), "130");
}

#[test]
fn a_key_reaches_the_command_once_however_it_takes_it() {
    same(|world, terminal, prefix| {
        world.script(
            "counts",
            r#"trap "echo got INT" INT; trap "echo got QUIT; exit 3" QUIT; echo ready; while :; do sleep 0.1; done"#,
        );
        terminal.line(&format!("{prefix}counts"));
        terminal.expect("ready");
        terminal.send("\x03");
        let before = terminal.expect("got INT");
        terminal.send("\x1c");
        let between = terminal.expect("got QUIT");
        terminal.prompt();
        ((before + &between).contains("got"), status(terminal))
    });
}

#[test]
fn ctrl_z_stops_the_job_and_fg_continues_it() {
    same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}sh -c 'read x; echo got $x; exit 4'"));
        let command = command(terminal, "sh");
        terminal.send("\x1a");
        terminal.expect("Stopped");
        terminal.prompt();
        let stopped = (status(terminal), state(command), jobs(terminal));
        terminal.line("fg");
        poll_until("the job to go on", secs(5), || state(command) == Some('S'));
        terminal.send("word\n");
        terminal.expect("got word");
        terminal.prompt();
        (stopped, status(terminal))
    });
}

#[test]
fn ctrl_z_again_and_again_stops_it_each_time() {
    same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}sleep 100"));
        let command = command(terminal, "sleep");
        for _ in 0..5 {
            terminal.send("\x1a");
            terminal.expect("Stopped");
            terminal.prompt();
            terminal.line("fg");
            poll_until("the job to go on", secs(5), || state(command) == Some('S'));
        }
        terminal.send("\x03");
        terminal.prompt();
        status(terminal)
    });
}

#[test]
fn ctrl_z_and_bg_let_the_job_go_on_in_the_background() {
    same(|world, terminal, prefix| {
        // It forks nothing while it waits: Ctrl-Z between a vfork and its exec stops neither job nor shell.
        world.command("mkfifo").args(["go"]).run().assert_code(0);
        world.script("works", "read x <go; echo worked; exit 5");
        terminal.line(&format!("{prefix}works"));
        let command = command(terminal, "works");
        terminal.send("\x1a");
        terminal.expect("Stopped");
        terminal.prompt();
        terminal.line("bg");
        terminal.prompt();
        poll_until("the job to go on", secs(5), || state(command) == Some('S'));
        let running = jobs(terminal);
        fs::write(world.path().join("go"), "go\n").expect("the job reads");
        terminal.expect("worked");
        terminal.line("wait %1");
        terminal.prompt();
        (running, status(terminal))
    });
}

#[test]
fn a_job_in_the_background_works_and_stops_when_it_reads_the_terminal() {
    same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}sh -c 'echo out; read x; echo got $x' &"));
        terminal.expect("out\r\n");
        let command = command(terminal, "sh");
        let job = children(terminal.pid())[0];
        poll_until("the stop", secs(5), || [command, job].map(state) == [Some('T'); 2]);
        terminal.send("\n");
        let stopped = jobs(terminal);
        terminal.line("fg");
        poll_until("the job to go on", secs(5), || state(command) == Some('S'));
        terminal.send("word\n");
        terminal.expect("got word");
        terminal.prompt();
        (stopped, status(terminal))
    });
}

#[test]
fn ctrl_c_ends_a_loop_typed_and_one_in_a_script() {
    same(|world, terminal, prefix| {
        terminal.line(&format!("for i in 1 2 3; do echo turn=$i; {prefix}sleep 100; done"));
        terminal.expect("\nturn=1");
        command(terminal, "sleep");
        terminal.send("\x03");
        let typed = (terminal.prompt().contains("turn"), status(terminal));
        let script = world.script("loop", &format!("for i in 1 2 3; do echo turn=$i; {prefix}sleep 100; done"));
        let bash = fs::read_to_string(&script).expect("the script").replace("#!/bin/sh", "#!/bin/bash");
        fs::write(script, bash).expect("the script");
        terminal.line("./loop");
        terminal.expect("\nturn=1");
        command(terminal, "sleep");
        terminal.send("\x03");
        (typed, terminal.prompt().contains("turn"), status(terminal))
    });
}

#[test]
fn a_pipeline_reads_the_terminal_at_its_end() {
    same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}seq 3 | {{ echo ask; read x </dev/tty; echo got $x; cat; }}"));
        terminal.expect("ask");
        terminal.send("word\n");
        terminal.expect("got word");
        (terminal.prompt(), status(terminal))
    });
}

#[test]
fn a_pager_pages() {
    if World::new().command("less").args(["--version"]).run().code() != Some(0) {
        return;
    }
    same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}seq 1000 | less"));
        terminal.expect("\n22");
        terminal.send(" ");
        terminal.expect("\n44");
        terminal.send("q");
        terminal.prompt();
        status(terminal)
    });
}

#[test]
fn a_pipeline_ends_when_its_reader_does() {
    same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}yes | head -1"));
        terminal.expect("\ny\r\n");
        terminal.prompt();
        terminal.line(&format!("{prefix}cat | head -1"));
        command(terminal, "cat");
        let head = command(terminal, "head");
        terminal.send("first\n");
        terminal.expect("first\r\nfirst\r\n");
        poll_until("the reader's end", secs(5), || !is_alive(head) || state(head) == Some('Z'));
        // The write that finds no reader.
        terminal.send("second\n");
        terminal.prompt();
        terminal.line("echo ${PIPESTATUS[@]}");
        terminal.prompt();
        status(terminal)
    });
}

#[test]
fn an_editor_draws_and_quits() {
    let Some(editor) = ["vi", "nano"].into_iter().find(|editor| has(editor)) else { return };
    same(|world, terminal, prefix| {
        fs::write(world.path().join("text"), "drawn\n").expect("a file in the world");
        terminal.line(&format!("{prefix}{editor} text"));
        terminal.expect("drawn");
        terminal.send(if editor == "vi" { "Oadded\x1b:wq\n" } else { "added\n\x0f\n\x18" });
        terminal.prompt();
        assert_eq!(fs::read_to_string(world.path().join("text")).expect("the file"), "added\ndrawn\n");
        status(terminal)
    });
}

fn has(program: &str) -> bool {
    World::new().command("sh").args(["-c", &format!("command -v {program}")]).run().code() == Some(0)
}

/// Suspends a job for three TTLs while another contender waits.
fn suspended(world: &World, server: &dyn Server) {
    let ttl = if server.backend() == "consul" { 10 } else { 3 };
    let name = world.name("terminal");
    let mut terminal = open(world, &ttl.to_string());
    terminal.line("L sh -c 'read x; echo got $x'");
    let command = command(&terminal, "sh");
    let elsewhere = World::on(server);
    let mut waiting = elsewhere.distlock().args([&name, "true"]).spawn();
    poll_until("two contenders", secs(10), || server.contenders(&name) == 2);
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    let began = Instant::now();
    while began.elapsed() < secs(3 * ttl) {
        assert_eq!((server.contenders(&name), state(command)), (2, Some('T')));
        assert!(waiting.is_running(), "nobody else got the lock");
        std::thread::sleep(millis(100));
    }
    terminal.line("fg");
    poll_until("the job to go on", secs(5), || state(command) == Some('S'));
    terminal.send("word\n");
    terminal.expect("got word");
    terminal.prompt();
    assert_eq!(status(&mut terminal), "0");
    waiting.wait_within(secs(5)).assert_code(0);
}

#[test]
fn a_suspended_job_keeps_its_lock() {
    on_servers(suspended);
}

#[test]
fn the_modes_of_the_terminal_are_restored_when_the_command_is_killed() {
    on_servers(|world, server| {
        let name = world.name("terminal");
        let mut terminal = open(world, "15");
        world.script("raw", "stty raw -echo; echo ready >ready; exec sleep 1000");
        terminal.line("stty -g >before; L raw; echo $? >code; stty -g >after");
        world.wait_for_file("ready");
        let held = poll_for("the key", secs(5), || server.entries(&name).into_iter().find_map(|entry| entry.lease));
        server.end_lease(&held);
        terminal.prompt();
        let [before, code, after] = ["before", "code", "after"].map(|file| world.wait_for_file(file));
        assert_eq!(code, "76\n");
        assert_eq!(before, after);
    });
}

#[test]
fn a_terminal_that_was_stopped_delays_no_deadline() {
    on_servers(|world, server| {
        let name = world.name("terminal");
        let mut terminal = open(world, "15");
        world.script("talks", "echo ready >ready; while :; do echo talk; sleep 0.01; done");
        terminal.line("L talks");
        world.wait_for_file("ready");
        let command = command(&terminal, "talks");
        terminal.send("\x13");
        let held = poll_for("the key", secs(5), || server.entries(&name).into_iter().find_map(|entry| entry.lease));
        let lost = Instant::now();
        server.end_lease(&held);
        poll_until("the end of the command", secs(5), || state(command).is_none());
        poll_until("the end of distlock", secs(5), || descendants(terminal.pid()).is_empty());
        assert!(lost.elapsed() < secs(3), "known lost: killed at once");
        terminal.send("\x11");
        terminal.prompt();
    });
}

#[test]
fn a_signal_to_the_whole_job_reaches_the_command_once() {
    same(|world, terminal, prefix| {
        let trap = r#"trap "echo got >>got" TERM; touch ready; until [ -e go ]; do sleep 0.05; done"#;
        world.script("counts", trap);
        terminal.line(&format!("{prefix}counts &"));
        terminal.prompt();
        poll_until("the trap", secs(5), || world.path().join("ready").exists());
        terminal.line("kill -TERM %1");
        terminal.prompt();
        world.wait_for_file("got");
        let until = Instant::now();
        poll_until("a duplicate's time", secs(2), || until.elapsed() > millis(500));
        fs::write(world.path().join("go"), "").expect("a file in the world");
        terminal.line("wait");
        terminal.prompt();
        fs::read_to_string(world.path().join("got")).expect("the file")
    });
}
