//! Signals: each reaches the command once, and the command starts with clean masks and dispositions.

use std::fs;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{
    Run, Running, Terminal, World, children, lacks, let_pass, millis, on_servers, once_in, poll_until, secs,
    throughout, within,
};

/// A command that appends the signals it receives to `signals`, and runs until the file `stop` exists.
pub(crate) const NOTES: &str = r#"
for signal in HUP INT QUIT USR1 USR2 TERM WINCH CONT; do trap "echo $signal >>signals" $signal; done
echo ready >ready
while [ ! -e stop ]; do sleep 0.05; done"#;

fn noted_signals(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path().join("signals")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for these signals in the notes; asserts that no others follow within 300 ms.
#[track_caller]
pub(crate) fn assert_noted(world: &World, expected: &[&str]) {
    poll_until(&format!("{expected:?}"), secs(30), || noted_signals(world).len() >= expected.len());
    throughout(millis(300), || assert_eq!(noted_signals(world), expected));
}

fn under_lock(world: &World, options: &[&str], command: &[&str]) -> Run {
    world.distlock().args(options).args([&*world.name("signals"), "--"]).args(command)
}

fn start_and_await_ready(world: &World, run: Run) -> Running {
    let job = run.spawn();
    world.wait_for_file("ready");
    job
}

#[test]
fn every_signal_reaches_the_command_once() {
    let world = &World::local();
    let script = world.script("notes", NOTES);
    let job = start_and_await_ready(world, under_lock(world, &[], &[&script]));
    let mut expected = Vec::new();
    for name in ["USR1", "USR2", "HUP", "WINCH", "CONT", "QUIT", "TERM"] {
        job.signal(format!("SIG{name}").parse().expect("a signal"));
        expected.push(name);
        assert_noted(world, &expected);
    }
}

#[test]
fn int_reaches_the_command_once() {
    let world = &World::local();
    let script = world.script("notes", NOTES);
    let job = start_and_await_ready(world, under_lock(world, &[], &[&script]));
    job.signal(Signal::SIGINT);
    assert_noted(world, &["INT"]);
}

#[test]
fn two_terms_within_a_second_count_as_one() {
    once_in(5, || {
        let world = &World::local();
        let script = world.script("notes", NOTES);
        let mut job = start_and_await_ready(world, under_lock(world, &[], &[&script]));
        let first_sent_at = Instant::now();
        job.signal(Signal::SIGTERM);
        poll_until("the first signal", secs(30), || noted_signals(world).len() == 1);
        job.signal(Signal::SIGTERM);
        // After a second, the signal counts as a second request.
        within("sending both signals", first_sent_at.elapsed(), millis(900))?;
        assert_noted(world, &["TERM"]);
        assert!(job.is_running(), "{}", job.stderr());
        Ok(())
    });
}

#[test]
fn timeout_sends_the_command_one_term() {
    let world = &World::local();
    let script = world.script("notes", NOTES);
    let job = start_and_await_ready(world, under_lock(world, &[], &[&script]).through("timeout", ["-s", "TERM", "3"]));
    // timeout also sends CONT, for stopped commands.
    let terms = || noted_signals(world).iter().filter(|signal| *signal == "TERM").count();
    poll_until("the signal", secs(30), || terms() > 0);
    throughout(millis(300), || assert_eq!(terms(), 1, "{:?}", noted_signals(world)));
    fs::write(world.path().join("stop"), "").expect("a file in the world");
    job.wait().assert_code(124);
}

#[test]
fn cleanup_longer_than_grace_and_ttl_keeps_the_lock() {
    on_servers(|world, server| {
        // The shell kills itself with the signal after its cleanup, as well-behaved programs do.
        let cleanup = r#"trap "echo cleaning >cleaning; sleep 12; echo done >done; trap - TERM; kill -TERM \$\$" TERM
            echo ready >ready; while :; do sleep 0.05; done"#;
        let script = world.script("cleanup", cleanup);
        let mut job = start_and_await_ready(world, under_lock(world, &["-t", "10", "--grace", "1"], &[&script]));
        job.signal(Signal::SIGTERM);
        world.wait_for_file("cleaning");
        let (name, started_at) = (world.name("signals"), Instant::now());
        loop {
            // Read first: the lock may be released between the two reads.
            let held = server.contenders(&name) == 1;
            if world.path().join("done").exists() {
                break;
            }
            assert!(held, "the lock must stay held");
            assert!(job.is_running() && started_at.elapsed() < secs(60));
            thread::sleep(millis(50));
        }
        job.wait().assert_signal(Signal::SIGTERM);
        assert_eq!(server.contenders(&name), 0);
    });
}

#[test]
fn second_term_after_a_second_kills() {
    let world = &World::local();
    let script = world.script("notes", NOTES);
    let job = start_and_await_ready(world, under_lock(world, &["--ttl", "200", "--grace", "60"], &[&script]));
    job.signal(Signal::SIGTERM);
    assert_noted(world, &["TERM"]);
    let_pass("the second within which two signals count as one", secs(2));
    let sent_at = Instant::now();
    job.signal(Signal::SIGTERM);
    job.wait().assert_code(137);
    assert!(sent_at.elapsed() < secs(20), "the command must be killed without the grace");
    assert_eq!(noted_signals(world), ["TERM"]);
}

#[test]
fn stopping_the_command_stops_the_job() {
    let world = &World::local();
    let command = world.script("command", "echo $$ >ready; while ! test -e go; do sleep 0.05; done; exit 7");
    let locks = format!("file://{}/locks", world.path().display());
    world.script("job", &format!("exec {} -b local -e {locks} /x {command}", env!("CARGO_BIN_EXE_distlock")));
    let mut terminal = Terminal::open(world);
    terminal.line("./job");
    let command = world.wait_for_file("ready").trim().parse().map(Pid::from_raw).expect("a pid");
    kill(command, Signal::SIGSTOP).expect("the command runs");
    terminal.expect("Stopped");
    terminal.prompt();
    kill(command, Signal::SIGCONT).expect("the command is stopped");
    fs::write(world.path().join("go"), "").expect("a file in the world");
    poll_until("the exit of the job", secs(30), || children(terminal.pid()).is_empty());
    terminal.line("");
    terminal.expect("Exit 7");
}

#[test]
fn signal_that_kills_the_command_kills_distlock() {
    let world = &World::local();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let kill_itself = format!("kill -{} $$", signal as i32);
        under_lock(world, &[], &["sh", "-c", &kill_itself]).run().assert_signal(signal);
    }
    under_lock(world, &[], &["sh", "-c", "kill -KILL $$"]).run().assert_code(137);
    under_lock(world, &[], &["sh", "-c", "kill -USR1 $$"]).run().assert_code(138);
}

/// Returns the masks of pending, blocked, ignored and caught signals in a /proc/PID/status, without the two internal
/// signals of the C library.
pub(crate) fn dispositions(status: &str) -> Vec<u64> {
    const INTERNAL: u64 = 0b11 << 31;
    let masks = ["SigPnd:\t", "SigBlk:\t", "SigIgn:\t", "SigCgt:\t"];
    let mask = |name| status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(name)?, 16).ok());
    masks.into_iter().map(|name| mask(name).expect("a mask") & !INTERNAL).collect()
}

#[test]
fn command_starts_with_clean_masks_and_dispositions() {
    let world = &World::local();
    let status = ["cat", "/proc/self/status"];
    let inherited = ["--block-signal", "--ignore-signal=PIPE,CHLD,TERM,USR1,TSTP,TTOU,RTMIN+3"];
    let run = under_lock(world, &[], &status).through("env", inherited);
    assert_eq!(dispositions(&run.run().assert_code(0).stdout), [0; 4]);
}

#[test]
fn signals_ignored_by_nohup_stay_ignored() {
    let world = &World::local();
    let run = under_lock(world, &[], &["sh", "-c", "cat /proc/self/status; echo ready >ready; sleep 1"]);
    let job = run.through("nohup", [""; 0]).spawn();
    world.wait_for_file("ready");
    job.signal(Signal::SIGHUP);
    let job = job.wait().assert_code(0);
    assert_eq!(dispositions(&job.stdout)[2], 1, "only HUP must be ignored");
}

#[test]
fn works_as_session_leader() {
    let world = &World::local();
    let run = under_lock(world, &[], &["sh", "-c", "echo out; exit 7"]);
    let job = run.through("setsid", ["-w"]).run().assert_code(7);
    assert_eq!(job.stdout, "out\n");
}

#[test]
fn works_in_the_environment_of_cron() {
    let world = &World::local();
    let run = under_lock(world, &[], &["sh", "-c", "echo out; exit 7"]);
    let cron = ["-i", "HOME=/", "LOGNAME=root", "PATH=/usr/bin:/bin", "SHELL=/bin/sh"];
    let job = run.through("env", cron).run().assert_code(7);
    assert_eq!((&*job.stdout, &*job.stderr), ("out\n", ""));
}

/// Returns the command line as the first process of a pid namespace; none if the machine does not allow that.
fn as_pid_1(world: &World, run: Run) -> Option<Run> {
    let namespace = ["--pid", "--fork", "--mount-proc"];
    let allowed = world.command("unshare").args(namespace).args(["true"]).run().code() == Some(0);
    if !allowed {
        lacks("permission to create a pid namespace");
    }
    allowed.then(|| run.through("unshare", namespace))
}

#[test]
fn pid_1_reaps_orphans() {
    let world = &World::local();
    let orphans = r#"for i in 1 2 3; do setsid -f sh -c "sleep 0.1 & exit"; done; sleep 0.5
        grep -l "^State:.Z" /proc/[0-9]*/status; echo $PPID; exit 7"#;
    let Some(run) = as_pid_1(world, under_lock(world, &[], &["sh", "-c", orphans])) else { return };
    let job = run.run().assert_code(7);
    assert_eq!(job.stdout, "2\n", "the parent of the command must be the keeper");
}

#[test]
fn missing_proc_of_its_namespace_exits_70() {
    let world = &World::local();
    let Some(_) = as_pid_1(world, under_lock(world, &[], &["true"])) else { return };
    for prepare in ["true", "mount -t tmpfs none /proc"] {
        let script = format!(r#"{prepare} && exec "$@""#);
        let run = under_lock(world, &[], &["touch", "ran"]).through("sh", ["-c", &script, "sh"]);
        let job = run.through("unshare", ["--mount", "--pid", "--fork"]).run().assert_code(70);
        assert!(job.stderr.contains("/proc is not mounted"), "{}", job.describe());
        assert!(!world.path().join("ran").exists());
    }
}

#[test]
fn pid_1_exits_with_128_plus_signal() {
    let world = &World::local();
    let script = world.script("sleeper", "echo ready >ready; exec sleep 1000");
    let Some(run) = as_pid_1(world, under_lock(world, &[], &[&script])) else { return };
    let job = start_and_await_ready(world, run);
    kill(children(job.pid())[0], Signal::SIGTERM).expect("distlock runs");
    job.wait().assert_code(143);
}
