//! Either process killed, stopped or crashed at a random moment, while another contender waits.
//!
//! `DISTLOCK_TEST_RUNS` sets the number of runs (200: each kind at least twice), `DISTLOCK_TEST_SEED` replays a failure.

use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use nix::sys::signal::Signal;

use crate::loss::await_nothing_left;
use crate::world::{Ledger, Mode, Pinned, Proxy, Running, Server, World, is_alive, millis, poll_until, secs, shared};

/// Runs that go on at the same time.
const LANES: usize = 8;
/// From TERM to KILL of a daemon that ignores TERM.
const GRACE: Duration = millis(1200);

/// By when a lock is free that somebody frees: before any lease that was renewed could have run out.
const PROMPT: Duration = secs(9);

#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    Keeper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Waiting,
    JustAcquired,
    Running,
    InGrace,
    Releasing,
}

const SIGNALS: [Signal; 3] = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGABRT];
const VICTIMS: [Victim; 2] = [Victim::Supervisor, Victim::Keeper];
const MOMENTS: [Moment; 5] =
    [Moment::Waiting, Moment::JustAcquired, Moment::Running, Moment::InGrace, Moment::Releasing];

/// What happens in one run.
struct Fate {
    server: &'static dyn Server,
    signal: Signal,
    victim: Victim,
    moment: Moment,
    /// From 0 to 1: when within the moment.
    when: f64,
}

impl Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, signal, victim, moment, when } = self;
        write!(f, "{} {signal} {victim:?} {moment:?} {when:.3}", server.backend())
    }
}

impl Fate {
    /// Whether somebody is left who frees the lock before the lease can run out.
    fn is_freed_at_once(&self) -> bool {
        // A keeper whose supervisor stands still has the lock until somebody is there to start the command.
        let stuck =
            matches!(self.victim, Victim::Keeper) || matches!(self.moment, Moment::Waiting | Moment::JustAcquired);
        self.signal != Signal::SIGSTOP || !stuck
    }

    fn ttl(&self) -> Duration {
        match self.server.backend() {
            // A third of it after the last renewal, the rest is more than busy processors take to free a lock.
            _ if self.is_freed_at_once() => secs(15),
            "consul" => secs(10),
            _ => secs(6),
        }
    }
}

/// Every combination equally often, and in any order.
fn fates(seed: u64, runs: usize) -> Vec<Fate> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fates: Vec<_> = (0..runs)
        .map(|n| Fate {
            server: shared::all()[n % 3],
            signal: SIGNALS[n / 3 % 3],
            victim: VICTIMS[n / 9 % 2],
            moment: MOMENTS[n / 18 % 5],
            when: random.f64(),
        })
        .collect();
    random.shuffle(&mut fates);
    fates
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn faults_at_any_moment_keep_exclusion_and_leave_nothing() {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| u64::from(time.subsec_nanos()));
    let seed = setting("DISTLOCK_TEST_SEED").unwrap_or_else(clock);
    let runs = setting("DISTLOCK_TEST_RUNS").unwrap_or(200).try_into().expect("a number of runs");
    println!("DISTLOCK_TEST_SEED={seed} DISTLOCK_TEST_RUNS={runs}");
    let fates = fates(seed, runs);
    let (next, failed, hits) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(fate) = fates.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (started, outcome) = (Instant::now(), catch_unwind(AssertUnwindSafe(|| suffer(fate))));
                    let told = match outcome {
                        Ok(true) => "ok",
                        Ok(false) => "ok, but too late to hit",
                        Err(_) => "FAILED",
                    };
                    println!("{fate}: {told} after {:.1?}", started.elapsed());
                    match outcome {
                        Ok(hit) => hits.lock().expect("nobody panics with the lock").push((fate.moment, hit)),
                        Err(_) => failed.lock().expect("nobody panics with the lock").push(fate.to_string()),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with the lock");
    assert!(failed.is_empty(), "{} of {runs} runs, DISTLOCK_TEST_SEED={seed}: {failed:#?}", failed.len());
    assert_struck(&hits.into_inner().expect("nobody panics with the lock"));
}

/// Panics unless the blows fell on somebody who was there: nearly all where the moment is long, some where it is short.
fn assert_struck(hits: &[(Moment, bool)]) {
    for moment in MOMENTS {
        let of_moment: Vec<_> = hits.iter().filter(|(of, _)| *of == moment).collect();
        let (struck, all) = (of_moment.iter().filter(|(_, hit)| *hit).count(), of_moment.len());
        println!("{moment:?}: {struck} of {all} blows hit");
        let is_long = matches!(moment, Moment::Waiting | Moment::Running | Moment::InGrace);
        let enough = if is_long { all * 4 / 5 } else { all / 5 };
        assert!(struck >= enough, "{moment:?}: {struck} of {all} blows hit, and {enough} should");
    }
}

/// One run: a holder, the one that is hit, and a contender, in this order. Whether the blow fell on somebody.
fn suffer(fate: &Fate) -> bool {
    let proxy = Proxy::to(fate.server.address());
    let [first, world, last] =
        [fate.server.url(), proxy.url(), fate.server.url()].map(|endpoint| World::at(fate.server.backend(), &endpoint));
    let (name, ledger) = (world.name("fate"), Ledger::new(&world));
    let (ttl, grace) = (format!("{}s", fate.ttl().as_secs()), format!("{}ms", GRACE.as_millis()));
    let spawn = |world: &World, command: &[String]| {
        let lock = ["-t", &ttl, "--grace", &grace, &name, "--"];
        world.distlock().args(lock).args(command).spawn()
    };
    let queue = |length| poll_until("the queue", secs(60), || fate.server.contenders(&name) == length);

    let told = first.path().join("go");
    let mut holder = spawn(&first, &ledger.command_until(&told));
    poll_until("the holder", secs(60), || ledger.holds().len() == 1);
    let unlucky = spawn(&world, &doomed(fate.moment, &ledger));
    queue(2);
    let contender = spawn(&last, &ledger.command(millis(50)));
    queue(3);
    let pid = match fate.victim {
        Victim::Supervisor => unlucky.pid(),
        Victim::Keeper => unlucky.keeper(),
    };
    let victim = Pinned::of(pid);
    let leases: Vec<_> = fate.server.entries(&name).into_iter().filter_map(|entry| entry.lease).collect();
    let go = || fs::write(&told, "").expect("a file in the world");
    if !matches!(fate.moment, Moment::Waiting) {
        go();
    }
    await_moment(fate, &mut holder, &ledger, &proxy);
    // It may have ended by now, if the moment was late.
    let hit = is_alive(pid) && victim.signal(fate.signal);
    go();
    holder.wait().assert_code(0);
    settle(fate, &victim, unlucky, contender);

    let holders = ledger.holds().len();
    assert!((2..=3).contains(&holders), "{:#?}", ledger.holds());
    ledger.assert_exclusive(holders);
    // Consul may let a session live for twice its TTL.
    let bound = if fate.is_freed_at_once() { PROMPT } else { fate.ttl() * 2 + secs(5) };
    await_nothing_left(fate.server, &name, &leases, bound);
    for world in [first, world, last] {
        poll_until("the end of all processes", secs(30), || world.processes().is_empty());
    }
    hit
}

/// What the one that is hit runs.
fn doomed(moment: Moment, ledger: &Ledger) -> Vec<String> {
    match moment {
        Moment::Waiting | Moment::JustAcquired | Moment::Running => ledger.command(millis(900)),
        Moment::InGrace => {
            let leave = r#"trap "" TERM; setsid -f "$@"; touch gone"#;
            let shell = ["sh", "-c", leave, "sh"].map(str::to_owned);
            shell.into_iter().chain(ledger.command(secs(60))).collect()
        }
        Moment::Releasing => ledger.command(millis(100)),
    }
}

/// Waits for the moment at which the blow falls.
fn await_moment(fate: &Fate, holder: &mut Running, ledger: &Ledger, proxy: &Proxy) {
    let second = || poll_until("the second holder", secs(60), || ledger.holds().len() == 2);
    let window = match fate.moment {
        Moment::Waiting => millis(500),
        Moment::JustAcquired => {
            poll_until("the end of the holder", secs(60), || !holder.is_running());
            millis(60)
        }
        Moment::Running => {
            second();
            millis(500)
        }
        Moment::InGrace => {
            second();
            GRACE * 4 / 5
        }
        Moment::Releasing => {
            second();
            // Stretches what would take a millisecond.
            proxy.set(Mode::Delay(millis(30)));
            millis(250)
        }
    };
    thread::sleep(window.mul_f64(fate.when));
}

/// Sees all to their ends; whoever was stopped is thawed when all that can be has been.
fn settle(fate: &Fate, victim: &Pinned, unlucky: Running, mut contender: Running) {
    let (began, ttl) = (Instant::now(), fate.ttl());
    let last = match fate.victim {
        _ if fate.is_freed_at_once() => PROMPT,
        Victim::Supervisor => {
            poll_until("the expiry of a lease that is not renewed", ttl * 2, || began.elapsed() > ttl * 3 / 2);
            victim.signal(Signal::SIGCONT);
            ttl * 3
        }
        // Consul may let a session live for twice its TTL, and keeps its lock closed for the lock-delay.
        Victim::Keeper if fate.server.backend() == "consul" => ttl * 3 + secs(5),
        // The keeper of a release that was stopped is given 6 s.
        Victim::Keeper => ttl + secs(9),
    };
    poll_until("the contender's turn", last, || !contender.is_running());
    contender.wait().assert_code(0);
    victim.signal(Signal::SIGCONT);
    unlucky.wait_within(ttl * 3 + secs(10));
}
