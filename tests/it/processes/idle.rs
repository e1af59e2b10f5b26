//! Idle jobs wake up for renewals only.

use std::time::Duration;
use std::{fs, thread};

use nix::unistd::Pid;

use crate::world::{Proxy, Running, World, millis, poll_until, secs, shared};

/// Returns how often the threads of a process were woken up.
fn wakes(pid: Pid) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs").flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t")?.parse::<u64>().ok())
    };
    status.filter_map(count).sum::<u64>()
}

/// Counters of a job: wakes of supervisor and keeper, and bytes sent and received.
type Activity = ((u64, u64), (u64, u64));

/// Watches the counters that `read` returns for `span`; returns the number of bursts of activity and the last counters.
fn bursts(read: impl Fn() -> Activity, span: Duration) -> (u64, Activity) {
    let (mut last, started_at) = (read(), distlock::now());
    let (mut bursts, mut active_at) = (0, None);
    while distlock::now().since(started_at) < span {
        thread::sleep(millis(50));
        let current = read();
        if current != last {
            // Busy processors can stretch one renewal over several reads.
            bursts += u64::from(active_at.is_none_or(|active_at| distlock::now().since(active_at) > secs(3)));
            active_at = Some(distlock::now());
        }
        last = current;
    }
    (bursts, last)
}

/// Asserts that during `span` both processes of this job wake up only for network traffic, at most `renewals` times;
/// returns a summary.
#[track_caller]
fn assert_idle(job: &Running, proxy: &Proxy, span: Duration, renewals: u64) -> String {
    let (supervisor, keeper) = (job.pid(), job.keeper());
    let read = || ((wakes(supervisor), wakes(keeper)), proxy.bytes());
    poll_until("a second without activity after the start", secs(30), || bursts(read, secs(1)).0 == 0);
    let (start, (bursts, end)) = (read(), bursts(read, span));
    let (supervisor, keeper) = (end.0.0 - start.0.0, end.0.1 - start.0.1);
    let text = format!("{bursts} bursts, {supervisor} wakes of the supervisor, {keeper} of the keeper in {span:?}");
    assert!(bursts <= renewals, "{text}; {renewals} renewals");
    assert!(supervisor <= 2 * renewals && keeper <= 10 * renewals, "{text}; {renewals} renewals");
    text
}

#[test]
fn idle_holder_and_waiter_wake_only_for_renewals() {
    thread::scope(|scope| {
        for server in shared::all() {
            let name = World::new().name("idle");
            let start_job = || {
                let proxy = Proxy::to(server.address());
                let world = World::at(server.backend(), &proxy.url());
                let job = world.distlock().args(["-t", "60", &name, "sleep", "1000"]).spawn();
                (proxy, world, job)
            };
            let holder = start_job();
            poll_until("the holder", secs(30), || server.contenders(&name) == 1);
            let waiter = start_job();
            poll_until("the waiter", secs(30), || server.contenders(&name) == 2);
            for (proxy, world, job) in [holder, waiter] {
                scope.spawn(move || {
                    // A renewal is due every 20 s.
                    println!("{}: {}", server.backend(), assert_idle(&job, &proxy, secs(60), 4));
                    drop((job, world));
                });
            }
        }
    });
}
