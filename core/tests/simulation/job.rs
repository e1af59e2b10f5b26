//! One job: its processes, its command, its clock.

use std::time::Duration;

use distlock_core::keeper::{self, Request};
use distlock_core::messages::{FromKeeper, Verdict};
use distlock_core::outcome::Granted;
use distlock_core::plan::{Leftover, OnLost, Plan};
use distlock_core::supervisor::{self, Group};
use distlock_core::time::Instant;

use super::server::Contender;
use super::{Event, MILLI, Micros, Random, SECOND, World};

/// A process of distlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Keeper,
    Supervisor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    None,
    Running { run: u32, contender: Contender, ignores_term: bool },
    Frozen { run: u32, ignores_term: bool },
}

impl Command {
    pub(crate) fn run(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Running { run, .. } | Self::Frozen { run, .. } => Some(run),
        }
    }
}

/// One job. When it has ended, a new one starts in its place.
pub(crate) struct Job {
    pub(super) number: usize,
    pub(super) ttl: Micros,
    /// Rate of its clock, in parts of ten thousand of true time.
    clock_rate: u64,
    pub(super) active: bool,
    pub(super) keeper: Option<keeper::Machine>,
    pub(super) supervisor: Option<supervisor::Machine>,
    /// The process that faults hit: the promise covers faults of one process only.
    pub(super) victim: Option<Process>,
    pub(super) stopped: Option<Process>,
    /// Events that a stopped process receives when it continues.
    pub(super) pending_keeper_events: Vec<keeper::Event>,
    pub(super) pending_supervisor_events: Vec<supervisor::Event>,
    /// Number of the pending call of each request; 0 if there is none.
    pub(super) pending_calls: [u64; Request::COUNT],
    pub(super) last_call: u64,
    pub(super) contender: Contender,
    /// When the grant was requested.
    pub(super) sent_at: Option<Instant>,
    pub(super) granted: Option<Granted>,
    pub(super) held: bool,
    pub(super) lost: bool,
    pub(super) release_sent: bool,
    /// Contender under which the command was last proven to hold the lock.
    pub(super) proven_under: Option<Contender>,
    pub(super) command: Command,
    /// Run of the command that KILL was sent to.
    pub(super) killed_run: Option<u32>,
    pub(super) run_count: u32,
    /// Arrival of the last message from each process: the messages of one process arrive in order.
    pub(super) last_arrival: [Micros; 2],
}

impl Job {
    pub(crate) fn new(number: usize, ttl: Micros, random: &mut Random, contender: Contender) -> Self {
        Self {
            number,
            ttl,
            // Two clocks differ by 1 % at most.
            clock_rate: random.mostly(9_900, 10_100),
            active: false,
            keeper: None,
            supervisor: None,
            victim: None,
            stopped: None,
            pending_keeper_events: Vec::new(),
            pending_supervisor_events: Vec::new(),
            pending_calls: [0; Request::COUNT],
            last_call: 0,
            contender,
            sent_at: None,
            granted: None,
            held: false,
            lost: false,
            release_sent: false,
            proven_under: None,
            command: Command::None,
            killed_run: None,
            run_count: 0,
            last_arrival: [0; 2],
        }
    }

    /// Returns the contender under which the command executes now.
    pub(crate) fn executes_under(&self) -> Option<Contender> {
        match self.command {
            Command::Running { contender, .. } => Some(contender),
            _ => None,
        }
    }

    pub(crate) fn freeze_command(&mut self, frozen_run: u32) {
        if let Command::Running { run, ignores_term, .. } = self.command
            && run == frozen_run
        {
            self.command = Command::Frozen { run, ignores_term };
        }
    }

    /// Returns what the job's clock shows at a true time.
    pub(super) fn clock(&self, now: Micros) -> Instant {
        Instant::from_boot(Duration::from_micros(1_000 * SECOND + now * self.clock_rate / 10_000))
    }

    /// Returns the true time at which the job's clock shows `instant`.
    pub(super) fn true_time(&self, instant: Instant) -> Micros {
        let clock = u64::try_from(instant.since_boot().as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let clock = clock.saturating_sub(1_000 * SECOND);
        (clock.min(u64::MAX / 20_000) * 10_000).div_ceil(self.clock_rate)
    }
}

impl World {
    pub(super) fn start_job(&mut self, index: usize) {
        let contender = self.new_contender();
        let on_lost =
            [OnLost::Kill, OnLost::Restart, OnLost::Relock][usize::try_from(self.random.below(3)).unwrap_or(0)];
        let ttl = self.jobs[index].ttl;
        let mut job = Job::new(index, ttl, &mut self.random, contender);
        let clock = job.clock(self.now);
        job.keeper = Some(keeper::Machine::new(plan(ttl, on_lost), clock));
        job.supervisor = Some(supervisor::Machine::new("/x", Group::Own, true, clock));
        job.active = true;
        job.last_arrival = [self.now; 2];
        // Replies to calls of the previous job must not be taken for this one's.
        (job.last_call, job.run_count) = (self.jobs[index].last_call, self.jobs[index].run_count);
        self.jobs[index] = job;
        self.send_to_supervisor(index, FromKeeper::Lease(contender.to_string()));
        self.keeper_event(index, keeper::Event::Tick);
    }

    /// Ends the job, and schedules the next one.
    pub(super) fn end_job(&mut self, job: usize) {
        if std::mem::take(&mut self.jobs[job].active) {
            self.jobs[job].supervisor = None;
            self.schedule_after(10 * MILLI, 3 * SECOND, Event::JobStarts(job));
        }
    }

    pub(super) fn end_command(&mut self, index: usize, run: u32, verdict: Verdict) {
        let job = &mut self.jobs[index];
        let frozen = matches!(job.command, Command::Frozen { .. });
        // A frozen command does not exit, but KILL ends it.
        if job.command.run() != Some(run) || (frozen && matches!(verdict, Verdict::Exited(_))) {
            return;
        }
        job.command = Command::None;
        if job.keeper.is_some() {
            self.keeper_event(index, keeper::Event::Reaped { command: Some(verdict), empty: true });
        } else {
            self.supervisor_event(index, supervisor::Event::TreeEmpty);
        }
    }
}

fn plan(ttl: Micros, on_lost: OnLost) -> Plan {
    Plan {
        name: "/x".into(),
        endpoints_origin: "--endpoints".into(),
        time_zone: || jiff::tz::TimeZone::UTC,
        grace: Duration::from_micros((ttl / 4).min(2 * SECOND)),
        wait: None,
        connect_timeout: Duration::from_secs(10),
        leftover: Leftover::Kill,
        on_lost,
        restarts: None,
    }
}
