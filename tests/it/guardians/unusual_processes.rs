//! Real-time signals, a blocked `exec`, a process without its main thread, a file size limit.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::compile;
use crate::loss::{Lease, await_held, await_ready};
use crate::world::{
    Holder, Mode, Proxy, Run, Running, Server, World, children, copy_program, enqueue, millis, on_servers, poll_for,
    poll_until, secs, shared, throughout, wait_gone,
};

/// Signals from 34 up have no name.
#[test]
fn death_by_real_time_signal_sets_the_exit_code() {
    on_servers(|world, _| {
        let name = world.name("real-time");
        let kills_itself = ["sh", "-c", "kill -36 $$"];
        world.distlock().args([&*name, "--"]).args(kills_itself).run().assert_code(128 + 36);
        let kills_children = ["sh", "-c", "for n in 1 2 3 4; do (sleep 9 & exec kill -36 $!) & done; wait; exit 7"];
        world.distlock().args([&*name, "--"]).args(kills_children).run().assert_code(7);
    });
}

#[test]
fn real_time_signal_deaths_with_dead_keeper_leave_no_orphan() {
    on_servers(|world, server| {
        let name = world.name("real-time");
        let family = r"setsid -f sleep 300; for n in 1 2 3 4; do setsid -f sh -c 'echo $$ >>pids; exec sleep 300'; done
            until [ $(wc -l <pids) -eq 4 ]; do sleep 0.01; done; echo ready; sleep 300";
        let job = world.distlock().args([&*name, "sh", "-c", family]).spawn();
        await_ready(&job);
        let keeper = job.keeper();
        kill(keeper, Signal::SIGSTOP).expect("the keeper takes a signal");
        for pid in fs::read_to_string(world.path().join("pids")).expect("the pids").lines() {
            world.command("sh").args(["-c", &format!("kill -36 {pid}")]).run().assert_code(0);
        }
        // The supervisor has to reap the orphans.
        kill(keeper, Signal::SIGKILL).expect("the keeper takes a signal");
        job.wait_within(secs(30)).assert_code(76);
        assert_eq!(world.processes(), []);
        assert_eq!(server.contenders(&name), 0);
    });
}

/// Program that holds a lease on a file: an `exec` of the file blocks until the lease ends.
const FILE_LEASE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) {
    int fd = open(words[1], O_RDWR);
    signal(SIGIO, SIG_IGN);
    if (count != 2 || fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) != 0) { perror("lease"); return 1; }
    puts("leased");
    fflush(stdout);
    pause();
}
"#;

const LEASE: Lease = Lease { ttl: secs(10), grace: secs(1) };

/// A job that holds the lock while the `exec` of its command blocks, as on a disk that does not respond.
struct BlockedJob {
    job: Running,
    keeper: Pid,
    /// The forked child that will execute the command's program.
    child: Pid,
    /// Process that blocks the `exec` until it exits.
    blocker: Running,
}

/// Starts a job whose program can be looked up, but not executed.
fn start_blocked(world: &World, name: &str, sleep_seconds: &str) -> BlockedJob {
    let program = world.path().join(format!("sleep-{sleep_seconds}"));
    copy_program("/bin/sleep", &program);
    let program = program.display().to_string();
    let holder = Holder::of(world, name);
    let job = enqueue(world.distlock().args(LEASE.options()), name, &[&program, sleep_seconds]);
    let blocker = world.command(world.path().join("lease")).args([&program]).spawn();
    poll_until("the lease on the file", secs(30), || blocker.stdout() == "leased\n");
    holder.release();
    let keeper = job.keeper();
    let child = poll_for("the forked child", secs(30), || children(keeper).pop());
    BlockedJob { job, keeper, child, blocker }
}

#[test]
fn deadlines_and_signals_work_while_exec_blocks() {
    on_servers(|world, server| {
        compile(world, "lease", FILE_LEASE);
        let name = world.name("slow");

        // The lock is renewed meanwhile, and the child dies with the supervisor.
        let BlockedJob { job, keeper, child, blocker: _blocker } = start_blocked(world, &name, "301");
        let held = await_held(server, &name);
        // Consul may keep a session for twice its TTL without renewals.
        let ttls = if server.backend() == "consul" { 2 } else { 1 };
        throughout(LEASE.ttl * ttls + secs(1), || {
            assert_eq!(await_held(server, &name).lease, held.lease, "the lock must stay held");
            assert_eq!(children(keeper), [child]);
        });
        job.signal(Signal::SIGKILL);
        wait_gone(child, secs(2));
        poll_until("the release of the lock", secs(5), || server.contenders(&name) == 0);
        job.wait_within(secs(5)).assert_signal(Signal::SIGKILL);

        // A signal before the `exec` kills the child.
        let BlockedJob { job, blocker: _blocker, .. } = start_blocked(world, &name, "302");
        job.signal(Signal::SIGTERM);
        job.wait_within(secs(10)).assert_signal(Signal::SIGTERM);

        // When the `exec` succeeds, the command runs and its exit code is returned.
        let BlockedJob { job, blocker, .. } = start_blocked(world, &name, "0.2");
        blocker.signal(Signal::SIGKILL);
        job.wait_within(secs(30)).assert_code(0);
    });
}

/// Program whose main thread exits while another thread writes the time to the file `pulse`.
const HEADLESS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static void *pulse(void *file) {
    for (;;) {
        struct timespec now;
        FILE *out = fopen(file, "a");
        clock_gettime(CLOCK_BOOTTIME, &now);
        fprintf(out, "%ld.%09ld\n", (long)now.tv_sec, now.tv_nsec);
        fclose(out);
        usleep(10000);
    }
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, pulse, "pulse");
    pthread_exit(NULL);
}
"#;

/// `/proc` shows such a process as a zombie, although its other threads run.
#[test]
fn process_without_main_thread_is_frozen_and_terminated() {
    let server = shared::etcd35();
    let (world, proxy) = (World::new(), Proxy::to(server.address()));
    let headless = compile(&world, "headless", HEADLESS);
    let name = world.name("headless");
    let etcd = ["-b", "etcd", "-e", &proxy.url(), "-t", "6", "--grace", "1s"];
    let options = ["--on-lost", "relock", &name, "sh", "-c", r#""$0" & sleep 300"#, &headless];
    let mut job = world.distlock().args(etcd).args(options).spawn();
    let last_beat = || {
        let pulse = fs::read_to_string(world.path().join("pulse")).ok()?;
        pulse.lines().last().map(str::to_owned)
    };
    poll_until("a pulse", secs(30), || last_beat().is_some());
    proxy.set(Mode::Freeze);
    poll_until("the frozen command", secs(30), || job.stderr().contains("frozen"));
    let beat = last_beat();
    throughout(millis(300), || assert_eq!(last_beat(), beat, "all threads must be frozen"));
    assert!(job.is_running());
    // No other client held the lock, so the process continues; it dies with the job.
    proxy.set(Mode::Pass);
    poll_until("another beat", secs(30), || last_beat() != beat);
    job.signal(Signal::SIGTERM);
    job.wait_within(secs(30)).assert_signal(Signal::SIGTERM);
    assert_eq!(world.processes(), []);
}

#[test]
fn file_size_limit_kills_no_process() {
    on_servers(|world, _| {
        let limited = |run: Run| run.through("sh", ["-c", r#"ulimit -f 0; exec "$@""#, "sh"]);
        let run = world.distlock().args(["-v", &world.name("limit"), "true"]);
        // stderr is a file that accepts no bytes.
        limited(run).run().assert_code(0);
    });
    let world = World::local();
    let run = world.distlock().args(["-v", &world.name("limit"), "true"]);
    let job = run.through("sh", ["-c", r#"(ulimit -f 0; exec "$@" 2>&1) | cat"#, "sh"]).run();
    assert!(job.stdout.contains("distlock: error: ") && job.stdout.contains("large"), "{}", job.describe());
}
