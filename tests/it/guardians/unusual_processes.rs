//! Processes that end, start or live in ways of which a guardian may not have heard.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::program;
use crate::loss::{Lease, await_held, await_ready};
use crate::world::{
    Holder, Running, Server, World, children, copy_program, enqueue, millis, on_servers, poll_for, poll_until, secs,
    shared, throughout, wait_gone,
};

/// A number from 34 up has no name.
#[test]
fn death_by_real_time_signal_sets_the_exit_code() {
    on_servers(|world, _| {
        let name = world.name("real-time");
        let of_itself = ["sh", "-c", "kill -36 $$"];
        world.distlock().args([&*name, "--"]).args(of_itself).run().assert_code(128 + 36);
        let of_others = ["sh", "-c", "for n in 1 2 3 4; do (sleep 9 & exec kill -36 $!) & done; wait; exit 7"];
        world.distlock().args([&*name, "--"]).args(of_others).run().assert_code(7);
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
        // Their ends are the supervisor's to learn of.
        kill(keeper, Signal::SIGKILL).expect("the keeper takes a signal");
        job.wait_within(secs(30)).assert_code(76);
        assert_eq!(world.processes(), []);
        assert_eq!(server.contenders(&name), 0);
    });
}

/// Holds a lease on a file: whatever executes the file waits until the lease ends.
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

/// A job that finds its program on a disk which does not answer once it holds the lock; its keeper, and what is to become
/// the command. The disk answered before, when the program was looked up.
fn stalled(world: &World, name: &str, seconds: &str) -> (Running, Pid, Pid, Running) {
    let slow = world.path().join(format!("slow-{seconds}"));
    copy_program("/bin/sleep", &slow);
    let slow = slow.display().to_string();
    let holder = Holder::of(world, name);
    let job = enqueue(world.distlock().args(LEASE.options()), name, &[&slow, seconds]);
    let disk = world.command(world.path().join("lease")).args([&slow]).spawn();
    poll_until("the lease", secs(30), || disk.stdout() == "leased\n");
    holder.release();
    let keeper = job.keeper();
    let command = poll_for("what is to be the command", secs(30), || children(keeper).pop());
    (job, keeper, command, disk)
}

/// On a slow disk the command's program is not executed at once. Until then there is no command, but what is to become one.
#[test]
fn deadlines_and_signals_work_while_exec_blocks() {
    on_servers(|world, server| {
        program(world, "lease", FILE_LEASE);
        let name = world.name("slow");

        // Renewed all the while, and killed with the supervisor.
        let (job, keeper, command, _disk) = stalled(world, &name, "301");
        let held = await_held(server, &name);
        // Consul may let a session live for twice its TTL without a renewal.
        let ttls = if server.backend() == "consul" { 2 } else { 1 };
        throughout(LEASE.ttl * ttls + secs(1), || {
            assert_eq!(await_held(server, &name).lease, held.lease, "the lock is held");
            assert_eq!(children(keeper), [command]);
        });
        job.signal(Signal::SIGKILL);
        wait_gone(command, secs(2));
        poll_until("the lock's release", secs(5), || server.contenders(&name) == 0);
        job.wait_within(secs(5)).assert_signal(Signal::SIGKILL);

        // A signal that comes before the command runs ends it.
        let (job, _, _, _disk) = stalled(world, &name, "302");
        job.signal(Signal::SIGTERM);
        job.wait_within(secs(10)).assert_signal(Signal::SIGTERM);

        // The disk answers: the command runs, and its own end is told.
        let (job, _, _, disk) = stalled(world, &name, "0.2");
        disk.signal(Signal::SIGKILL);
        job.wait_within(secs(30)).assert_code(0);
    });
}

/// Ends its first thread; another writes down that it runs.
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

/// Such a process looks like a zombie, and is none.
#[test]
fn process_without_main_thread_is_frozen_and_terminated() {
    let server = shared::etcd35();
    let (world, proxy) = (World::new(), crate::world::Proxy::to(server.address()));
    let headless = program(&world, "headless", HEADLESS);
    let name = world.name("headless");
    let etcd = ["-b", "etcd", "-e", &proxy.url(), "-t", "6", "--grace", "1s"];
    let (mut job, last) = (
        world
            .distlock()
            .args(etcd)
            .args(["--on-lost", "relock", &name, "sh", "-c", r#""$0" & sleep 300"#, &headless])
            .spawn(),
        || {
            fs::read_to_string(world.path().join("pulse"))
                .ok()
                .and_then(|pulse| pulse.lines().last().map(str::to_owned))
        },
    );
    poll_until("a pulse", secs(30), || last().is_some());
    proxy.set(crate::world::Mode::Freeze);
    poll_until("the frozen command", secs(30), || job.stderr().contains("frozen"));
    let beat = last();
    throughout(millis(300), || assert_eq!(last(), beat, "all of it stands still"));
    assert!(job.is_running());
    // Nobody else had the lock, so it goes on; and ends with the job.
    proxy.set(crate::world::Mode::Pass);
    poll_until("another beat", secs(30), || last() != beat);
    job.signal(Signal::SIGTERM);
    job.wait_within(secs(30)).assert_signal(Signal::SIGTERM);
    assert_eq!(world.processes(), []);
}

#[test]
fn file_size_limit_kills_no_process() {
    on_servers(|world, _| {
        let limited = |run: crate::world::Run| run.through("sh", ["-c", r#"ulimit -f 0; exec "$@""#, "sh"]);
        let run = world.distlock().args(["-v", &world.name("limit"), "true"]);
        // What is said goes to a file that takes nothing.
        limited(run).run().assert_code(0);
    });
    let world = World::local();
    let run = world.distlock().args(["-v", &world.name("limit"), "true"]);
    let job = run.through("sh", ["-c", r#"(ulimit -f 0; exec "$@" 2>&1) | cat"#, "sh"]).run();
    assert!(job.stdout.contains("distlock: error: ") && job.stdout.contains("large"), "{}", job.describe());
}
