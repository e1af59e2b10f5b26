//! Random faults: the supervisor or the keeper is killed, stopped or crashed in each phase of a job, while another
//! contender waits.
//!
//! `DISTLOCK_TEST_RUNS` sets the number of runs (default 200: each scenario at least twice), and `DISTLOCK_TEST_SEED`
//! repeats the runs of a failure.

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

/// Panicking runs do not hold a mutex.
const UNPOISONED: &str = "no thread panics with this mutex";

const PARALLEL_RUNS: usize = 8;
/// Grace of the victim, whose daemon ignores TERM.
const GRACE: Duration = millis(1200);

/// Bound for a release by a running keeper: before a lease that was renewed can expire.
const PROMPT: Duration = secs(9);

/// The process that receives the signal.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    Keeper,
}

/// Phase of the victim's job in which the fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    JustAcquired,
    Running,
    InGrace,
    Releasing,
}

const SIGNALS: [Signal; 3] = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGABRT];
const VICTIMS: [Victim; 2] = [Victim::Supervisor, Victim::Keeper];
const PHASES: [Phase; 5] = [Phase::Waiting, Phase::JustAcquired, Phase::Running, Phase::InGrace, Phase::Releasing];

/// One fault: which signal a process receives, and when.
struct Scenario {
    server: &'static dyn Server,
    signal: Signal,
    victim: Victim,
    phase: Phase,
    /// Time of the fault within the phase, from 0 to 1.
    fraction: f64,
}

impl Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, signal, victim, phase, fraction } = self;
        write!(f, "{} {signal} {victim:?} {phase:?} {fraction:.3}", server.backend())
    }
}

impl Scenario {
    /// Returns whether a running keeper releases the lock before the lease can expire.
    fn is_freed_at_once(&self) -> bool {
        // The keeper of a stopped supervisor holds the lock until the supervisor starts the command.
        let is_stuck =
            matches!(self.victim, Victim::Keeper) || matches!(self.phase, Phase::Waiting | Phase::JustAcquired);
        self.signal != Signal::SIGSTOP || !is_stuck
    }

    fn ttl(&self) -> Duration {
        match self.server.backend() {
            // A renewal may be a third of it old; the rest is more than busy processors need for a release.
            _ if self.is_freed_at_once() => secs(15),
            "consul" => secs(10),
            _ => secs(6),
        }
    }
}

/// Returns every combination equally often, in random order.
fn scenarios(seed: u64, runs: usize) -> Vec<Scenario> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scenarios: Vec<_> = (0..runs)
        .map(|n| Scenario {
            server: shared::all()[n % 3],
            signal: SIGNALS[n / 3 % 3],
            victim: VICTIMS[n / 9 % 2],
            phase: PHASES[n / 18 % 5],
            fraction: random.f64(),
        })
        .collect();
    random.shuffle(&mut scenarios);
    scenarios
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
    let scenarios = scenarios(seed, runs);
    let (next, failed, injections) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..PARALLEL_RUNS {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (started, outcome) =
                        (Instant::now(), catch_unwind(AssertUnwindSafe(|| run_scenario(scenario))));
                    let summary = match outcome {
                        Ok(true) => "ok",
                        Ok(false) => "ok, but the victim had exited",
                        Err(_) => "FAILED",
                    };
                    println!("{scenario}: {summary} after {:.1?}", started.elapsed());
                    match outcome {
                        Ok(injected) => injections.lock().expect(UNPOISONED).push((scenario.phase, injected)),
                        Err(_) => failed.lock().expect(UNPOISONED).push(scenario.to_string()),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect(UNPOISONED);
    assert!(failed.is_empty(), "{} of {runs} runs, DISTLOCK_TEST_SEED={seed}: {failed:#?}", failed.len());
    assert_injected(&injections.into_inner().expect(UNPOISONED));
}

/// Panics unless enough victims were still running: most in long phases, some in short ones.
fn assert_injected(injections: &[(Phase, bool)]) {
    for phase in PHASES {
        let of_phase: Vec<_> = injections.iter().filter(|(of, _)| *of == phase).collect();
        let (injected, all) = (of_phase.iter().filter(|(_, injected)| *injected).count(), of_phase.len());
        println!("{phase:?}: {injected} of {all} faults injected");
        let is_long = matches!(phase, Phase::Waiting | Phase::Running | Phase::InGrace);
        let enough = if is_long { all * 4 / 5 } else { all / 5 };
        assert!(injected >= enough, "{phase:?}: {injected} of {all} faults injected, expected {enough} or more");
    }
}

/// Runs a holder, the victim's job and a contender, queued in this order; returns whether the victim was still running.
fn run_scenario(scenario: &Scenario) -> bool {
    let proxy = Proxy::to(scenario.server.address());
    let [first, world, last] = [scenario.server.url(), proxy.url(), scenario.server.url()]
        .map(|endpoint| World::at(scenario.server.backend(), &endpoint));
    let (name, ledger) = (world.name("fault"), Ledger::new(&world));
    let (ttl, grace) = (format!("{}s", scenario.ttl().as_secs()), format!("{}ms", GRACE.as_millis()));
    let spawn = |world: &World, command: &[String]| {
        let lock = ["-t", &ttl, "--grace", &grace, &name, "--"];
        world.distlock().args(lock).args(command).spawn()
    };
    let await_contenders =
        |count| poll_until("the contenders in the queue", secs(60), || scenario.server.contenders(&name) == count);

    let go_file = first.path().join("go");
    let mut holder = spawn(&first, &ledger.command_until(&go_file));
    poll_until("the holder", secs(60), || ledger.holds().len() == 1);
    let victim_job = spawn(&world, &victim_command(scenario.phase, &ledger));
    await_contenders(2);
    let contender = spawn(&last, &ledger.command(millis(50)));
    await_contenders(3);
    let pid = match scenario.victim {
        Victim::Supervisor => victim_job.pid(),
        Victim::Keeper => victim_job.keeper(),
    };
    let victim = Pinned::of(pid);
    let leases: Vec<_> = scenario.server.entries(&name).into_iter().filter_map(|entry| entry.lease).collect();
    let end_holder = || fs::write(&go_file, "").expect("a file in the world");
    if !matches!(scenario.phase, Phase::Waiting) {
        end_holder();
    }
    await_fault_time(scenario, &mut holder, &ledger, &proxy);
    // The victim may have exited already, late in a short phase.
    let injected = is_alive(pid) && victim.signal(scenario.signal);
    end_holder();
    holder.wait().assert_code(0);
    await_exits(scenario, &victim, victim_job, contender);

    let holders = ledger.holds().len();
    assert!((2..=3).contains(&holders), "{:#?}", ledger.holds());
    ledger.assert_exclusive(holders);
    // On Consul a session expires after up to two TTLs.
    let bound = if scenario.is_freed_at_once() { PROMPT } else { scenario.ttl() * 2 + secs(5) };
    await_nothing_left(scenario.server, &name, &leases, bound);
    for world in [first, world, last] {
        poll_until("the exit of all processes", secs(30), || world.processes().is_empty());
    }
    injected
}

/// Returns the command of the victim's job.
fn victim_command(phase: Phase, ledger: &Ledger) -> Vec<String> {
    match phase {
        Phase::Waiting | Phase::JustAcquired | Phase::Running => ledger.command(millis(900)),
        Phase::InGrace => {
            let daemonize = r#"trap "" TERM; setsid -f "$@"; touch gone"#;
            let shell = ["sh", "-c", daemonize, "sh"].map(str::to_owned);
            shell.into_iter().chain(ledger.command(secs(60))).collect()
        }
        Phase::Releasing => ledger.command(millis(100)),
    }
}

/// Waits until the fault is due.
fn await_fault_time(scenario: &Scenario, holder: &mut Running, ledger: &Ledger, proxy: &Proxy) {
    let await_second_holder = || poll_until("the second holder", secs(60), || ledger.holds().len() == 2);
    let window = match scenario.phase {
        Phase::Waiting => millis(500),
        Phase::JustAcquired => {
            poll_until("the exit of the holder", secs(60), || !holder.is_running());
            millis(60)
        }
        Phase::Running => {
            await_second_holder();
            millis(500)
        }
        Phase::InGrace => {
            await_second_holder();
            GRACE * 4 / 5
        }
        Phase::Releasing => {
            await_second_holder();
            // Slows down the release, which would take a millisecond.
            proxy.set(Mode::Delay(millis(30)));
            millis(250)
        }
    };
    thread::sleep(window.mul_f64(scenario.fraction));
}

/// Waits until both jobs have exited. A stopped victim is continued as late as the scenario allows.
fn await_exits(scenario: &Scenario, victim: &Pinned, victim_job: Running, mut contender: Running) {
    let (faulted_at, ttl) = (Instant::now(), scenario.ttl());
    let bound = match scenario.victim {
        _ if scenario.is_freed_at_once() => PROMPT,
        Victim::Supervisor => {
            poll_until("the expiry of a lease that is not renewed", ttl * 2, || faulted_at.elapsed() > ttl * 3 / 2);
            victim.signal(Signal::SIGCONT);
            ttl * 3
        }
        // On Consul a session expires after up to two TTLs, and then the lock-delay passes.
        Victim::Keeper if scenario.server.backend() == "consul" => ttl * 3 + secs(5),
        // A keeper that is stopped during the release is killed after 6 s.
        Victim::Keeper => ttl + secs(9),
    };
    poll_until("the exit of the contender", bound, || !contender.is_running());
    contender.wait().assert_code(0);
    victim.signal(Signal::SIGCONT);
    victim_job.wait_within(ttl * 3 + secs(10));
}
