//! Several jobs and a model of a server in virtual time. The state machines are the real ones. Messages are late or lost,
//! servers fail over, clocks run at different rates, processes are stopped and killed.
//!
//! Invariant: a command runs only while its job holds the lock, and fencing tokens grow from run to run.
//!
//! A seed selects the whole course. `DISTLOCK_TEST_SEED` runs a single seed again.
//!
//! | module | what it holds |
//! |---|---|
//! | `job` | one job: its processes, its command, its clock |
//! | `keeper`, `supervisor` | feed the machines with events and carry out their actions |
//! | `network` | requests to the server and their replies |
//! | `server` | model of a server with one lock |
//! | `faults` | faults of processes, network and server |

mod faults;
mod job;
mod keeper;
mod network;
mod server;
mod supervisor;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use distlock_core::keeper::{Event as KeeperEvent, Request};
use distlock_core::messages::{FromKeeper, FromSupervisor, Verdict};
use distlock_core::signal::Signal;
use distlock_core::time::Instant;

use job::{Job, Process};
use server::{Contender, Server};

/// True time or a duration, in microseconds.
type Micros = u64;

const MILLI: Micros = 1_000;
const SECOND: Micros = 1_000_000;
/// Simulated time per seed.
const DURATION: Micros = 200 * SECOND;
const JOB_COUNT: usize = 4;

/// Seeded source of all random decisions.
pub struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.u64(low..high)
    }

    /// Returns `worst` in most cases, otherwise a value from `worst` to `best`.
    fn mostly(&mut self, worst: u64, best: u64) -> u64 {
        if self.percent(60) { worst } else { self.between(worst, best) }
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Scheduled event. Jobs are named by their index.
#[derive(Debug)]
enum Event {
    JobStarts(usize),
    /// A timer of a process fires.
    Timer(usize, Process),
    /// A request arrives at the server.
    Request {
        job: usize,
        call: u64,
        request: Request,
        contender: Contender,
    },
    /// A reply arrives at the keeper.
    Reply {
        job: usize,
        call: u64,
        reply: KeeperEvent,
    },
    /// A pending wait or watch learns of a change.
    Change {
        job: usize,
        call: u64,
        request: Request,
    },
    MessageToSupervisor(usize, FromKeeper),
    MessageToKeeper(usize, FromSupervisor),
    /// The keeper's process has ended.
    KeeperEnded(usize),
    /// The command of this run exits by itself or because of TERM.
    CommandExits(usize, u32),
    /// The command of this run dies of KILL.
    CommandDies(usize, u32),
    /// The command of this run is stopped.
    CommandFreezes(usize, u32),
    /// The lease of an abandoned contender is revoked.
    Revoke(Contender),
    /// A stopped process continues.
    Resume(usize, Process),
    /// A random fault occurs.
    Fault,
}

/// What a run of the simulation counted.
#[derive(Default)]
struct Statistics {
    started: usize,
    lost: usize,
    thawed: usize,
}

struct World {
    now: Micros,
    random: Random,
    server: Server,
    jobs: Vec<Job>,
    /// Times of the scheduled events, with their numbers.
    schedule: BinaryHeap<Reverse<(Micros, u64)>>,
    /// Scheduled events by number.
    events: HashMap<u64, Event>,
    event_count: u64,
    contender_count: Contender,
    /// No packets pass between this job and the server until then.
    partitioned_until: Vec<Micros>,
    /// When each renewal was sent, on its keeper's clock. The keys are job and call.
    renewals: HashMap<(usize, u64), Instant>,
    /// Waits and watches whose change is scheduled. The keys are job and call.
    notified: HashSet<(usize, u64)>,
    /// Fencing tokens of the runs, in order.
    tokens: Vec<u64>,
    statistics: Statistics,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(fastrand::Rng::with_seed(seed));
        let ttl = random.between(4, 20) * SECOND;
        let jobs = (0..JOB_COUNT).map(|number| Job::new(number, ttl, &mut random, 0)).collect();
        let mut world = Self {
            now: 0,
            server: Server::new(ttl),
            jobs,
            schedule: BinaryHeap::new(),
            events: HashMap::new(),
            event_count: 0,
            contender_count: 0,
            partitioned_until: vec![0; JOB_COUNT],
            renewals: HashMap::new(),
            notified: HashSet::new(),
            tokens: Vec::new(),
            statistics: Statistics::default(),
            random,
        };
        for job in 0..JOB_COUNT {
            let start_at = world.random.below(5 * SECOND);
            world.schedule_at(start_at, Event::JobStarts(job));
        }
        world.schedule_at(2 * SECOND, Event::Fault);
        world
    }

    fn schedule_at(&mut self, at: Micros, event: Event) {
        self.event_count += 1;
        self.schedule.push(Reverse((at.max(self.now), self.event_count)));
        self.events.insert(self.event_count, event);
    }

    /// Schedules an event after a random time from `low` up to `high`.
    fn schedule_after(&mut self, low: Micros, high: Micros, event: Event) {
        let at = self.now + self.random.between(low, high);
        self.schedule_at(at, event);
    }

    fn new_contender(&mut self) -> Contender {
        self.contender_count += 1;
        self.contender_count
    }

    fn run(&mut self) {
        while let Some(Reverse((at, number))) = self.schedule.pop()
            && at < DURATION
        {
            self.now = at;
            let Some(event) = self.events.remove(&number) else { continue };
            self.server.expire(self.now);
            self.assert_running_commands_hold_the_lock();
            self.handle(event);
            self.notify_waits_and_watches();
            self.assert_running_commands_hold_the_lock();
        }
    }

    fn assert_running_commands_hold_the_lock(&self) {
        for job in &self.jobs {
            if let Some(contender) = job.executes_under() {
                let (now, number) = (self.now, job.number);
                assert_eq!(self.server.holder(), Some(contender), "at {now} µs job {number} runs without its lock");
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::JobStarts(job) => self.start_job(job),
            Event::Timer(job, process) => self.fire_timer(job, process),
            Event::Request { job, call, request, contender } => self.serve(job, call, request, contender),
            Event::Reply { job, call, reply } => self.receive_reply(job, call, reply),
            Event::Change { job, call, request } => self.receive_change(job, call, request),
            Event::MessageToSupervisor(job, message) => self.receive_from_keeper(job, message),
            Event::MessageToKeeper(job, message) => self.receive_from_supervisor(job, &message),
            Event::KeeperEnded(job) => self.keeper_ended(job),
            Event::CommandExits(job, run) => self.end_command(job, run, Verdict::Exited(0)),
            Event::CommandDies(job, run) => self.end_command(job, run, Verdict::Signaled(Signal::SIGKILL)),
            Event::CommandFreezes(job, run) => self.jobs[job].freeze_command(run),
            Event::Revoke(contender) => self.revoke(contender),
            Event::Resume(job, process) => self.resume(job, process),
            Event::Fault => self.cause_fault(),
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("DISTLOCK_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..300,
    }
}

#[test]
fn running_commands_hold_their_lock() {
    let mut total = Statistics::default();
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            assert!(world.tokens.is_sorted_by(|a, b| a < b), "tokens in the order of the runs: {:?}", world.tokens);
            world.statistics
        });
        let statistics = outcome.unwrap_or_else(|_| panic!("run this seed again with DISTLOCK_TEST_SEED={seed}"));
        total.started += statistics.started;
        total.lost += statistics.lost;
        total.thawed += statistics.thawed;
    }
    let Statistics { started, lost, thawed } = total;
    println!("{started} runs, {lost} of them lost, {thawed} thawed");
    // The seeds must cover losses and relocks.
    assert!(seeds().count() == 1 || (started > 2_000 && lost > 200 && thawed > 30), "{started} {lost} {thawed}");
}
