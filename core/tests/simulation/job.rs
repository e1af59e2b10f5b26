//! One job: its two machines, its command, and what passes between them and the server.

use std::time::Duration;

use super::server::Contender;
use super::{Event, MILLI, Micros, Random, SECOND, World};
use distlock_core::keeper::requests::COUNT;
use distlock_core::keeper::{self, Action};
use distlock_core::messages::{FromKeeper, FromSupervisor, Notice, Step, Verdict};
use distlock_core::outcome::Granted;
use distlock_core::plan::{Leftover, OnLost, Plan};
use distlock_core::supervisor::{self, Group};
use distlock_core::time::Instant;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Keeper,
    Supervisor,
}

/// The command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    None,
    Runs { run: u32, who: Contender, deaf: bool },
    Frozen { run: u32, deaf: bool },
}

impl Command {
    fn run(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Runs { run, .. } | Self::Frozen { run, .. } => Some(run),
        }
    }
}

/// One job, and the next ones in its place.
pub(crate) struct Job {
    pub(super) number: usize,
    pub(super) ttl: Micros,
    /// How fast its clock runs, in parts of ten thousand.
    pub(super) rate: u64,
    pub(super) begun: bool,
    pub(super) keeper: Option<keeper::Machine>,
    pub(super) supervisor: Option<supervisor::Machine>,
    /// Only one of the two may be struck in the life of a job.
    pub(super) victim: Option<Process>,
    pub(super) stopped: Option<Process>,
    /// What a stopped process finds when it goes on.
    pub(super) keepers_news: Vec<keeper::Event>,
    pub(super) supervisors_news: Vec<supervisor::Event>,
    /// The number of the call of each request that is under way.
    pub(super) calls: [u64; COUNT],
    pub(super) call: u64,
    pub(super) who: Contender,
    pub(super) sent: Option<Instant>,
    pub(super) granted: Option<Granted>,
    pub(super) held: bool,
    pub(super) lost: bool,
    pub(super) revoking: bool,
    /// Under which contender the command was last known to hold the lock.
    pub(super) proved: Option<Contender>,
    command: Command,
    pub(super) dying: Option<u32>,
    pub(super) runs: u32,
    /// Nothing that one process sends overtakes what it sent before.
    pub(super) last: [Micros; 2],
}

impl Job {
    pub(crate) fn new(number: usize, ttl: Micros, random: &mut Random, who: Contender) -> Self {
        Self {
            number,
            ttl,
            // Two clocks differ by 1 % at most.
            rate: random.mostly(9_900, 10_100),
            begun: false,
            keeper: None,
            supervisor: None,
            victim: None,
            stopped: None,
            keepers_news: Vec::new(),
            supervisors_news: Vec::new(),
            calls: [0; COUNT],
            call: 0,
            who,
            sent: None,
            granted: None,
            held: false,
            lost: false,
            revoking: false,
            proved: None,
            command: Command::None,
            dying: None,
            runs: 0,
            last: [0; 2],
        }
    }

    /// The contender under which its command runs at this moment.
    pub(crate) fn executes(&self) -> Option<Contender> {
        match self.command {
            Command::Runs { who, .. } => Some(who),
            _ => None,
        }
    }

    pub(crate) fn stand_still(&mut self, run: u32) {
        if let Command::Runs { run: present, deaf, .. } = self.command
            && present == run
        {
            self.command = Command::Frozen { run, deaf };
        }
    }

    /// What its clock shows.
    pub(super) fn local(&self, now: Micros) -> Instant {
        Instant::from_boot(Duration::from_micros(1_000 * SECOND + now * self.rate / 10_000))
    }

    /// When its clock will show this.
    fn true_time(&self, at: Instant) -> Micros {
        let local = u64::try_from(at.since_boot().as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let local = local.saturating_sub(1_000 * SECOND);
        (local.min(u64::MAX / 20_000) * 10_000).div_ceil(self.rate)
    }
}

impl World {
    pub(super) fn begin(&mut self, n: usize) {
        let who = self.new_contender();
        let on_lost =
            [OnLost::Kill, OnLost::Restart, OnLost::Relock][usize::try_from(self.random.below(3)).unwrap_or(0)];
        let ttl = self.jobs[n].ttl;
        let (now, mut job) = (self.now, Job::new(n, ttl, &mut self.random, who));
        let local = job.local(now);
        let plan = plan(ttl, on_lost);
        job.keeper = Some(keeper::Machine::new(plan, local));
        job.supervisor = Some(supervisor::Machine::new("/x", Group::Own, true, local));
        job.begun = true;
        job.last = [now; 2];
        // Answers to calls of the job before are not taken for its own.
        (job.call, job.runs) = (self.jobs[n].call, self.jobs[n].runs);
        self.jobs[n] = job;
        self.post(n, FromKeeper::Lease(who.to_string()));
        self.keeper(n, keeper::Event::Tick);
    }

    // ---- the keeper ------------------------------------------------------------------------------------------------

    /// Gives the keeper an event, or leaves it for when it goes on.
    pub(super) fn keeper(&mut self, n: usize, event: keeper::Event) {
        if self.jobs[n].stopped == Some(Process::Keeper) {
            self.jobs[n].keepers_news.push(event);
            return;
        }
        let mut next = std::collections::VecDeque::from([event]);
        while let Some(event) = next.pop_front() {
            let local = self.jobs[n].local(self.now);
            let Some(machine) = &mut self.jobs[n].keeper else { return };
            for action in machine.on(event, local) {
                next.extend(self.perform(n, action));
            }
        }
        let job = &self.jobs[n];
        if let Some(wake) = job.keeper.as_ref().and_then(keeper::Machine::wake) {
            let at = job.true_time(wake).max(self.now + 1);
            self.at(at, Event::Tick(n, Process::Keeper));
        }
    }

    fn perform(&mut self, n: usize, action: Action) -> Option<keeper::Event> {
        let now = self.now;
        match action {
            Action::Begin(request) => self.call(n, request),
            Action::Abandon(request) => self.jobs[n].calls[request as usize] = 0,
            Action::NextEndpoint(request) => return Some(keeper::Event::Silent(request, "server".into())),
            Action::Tell(message) => {
                if matches!(message, FromKeeper::Notice(Notice::Relock(Step::Thawed))) {
                    self.thawed += 1;
                }
                self.post(n, message);
            }
            Action::Start => {
                let (who, deaf) = (self.jobs[n].who, self.random.percent(50));
                self.jobs[n].runs += 1;
                let run = self.jobs[n].runs;
                self.jobs[n].command = Command::Runs { run, who, deaf };
                self.jobs[n].proved = Some(who);
                self.started += 1;
                self.tokens.extend(self.server.token(who));
                self.after(100 * MILLI, 40 * SECOND, Event::Exit(n, run));
                return Some(keeper::Event::Started);
            }
            Action::EndTree => {
                if let Command::Runs { run, deaf: false, .. } = self.jobs[n].command {
                    self.after(MILLI, 3 * SECOND, Event::Exit(n, run));
                }
            }
            Action::KillTree { .. } => self.kill_command(n),
            Action::Freeze => match self.jobs[n].command {
                Command::Runs { run, .. } => self.after(0, 5 * MILLI, Event::Stop(n, run)),
                _ => return Some(keeper::Event::Frozen),
            },
            Action::Thaw => {
                if let Command::Frozen { run, deaf } = self.jobs[n].command {
                    let who = self.jobs[n].who;
                    self.jobs[n].command = Command::Runs { run, who, deaf };
                }
            }
            Action::AbandonContender => self.forsake(n),
            Action::SignalCommand(_) | Action::ReportLeftovers => {}
            Action::Finish(verdict) => {
                let lost = matches!(&verdict, Verdict::Failed(f) if f.kind == distlock_core::error::Kind::Lost);
                self.lost += usize::from(lost);
                self.post(n, FromKeeper::Done { verdict, lingers: false });
                self.jobs[n].keeper = None;
                let at = self.jobs[n].last[0].max(now);
                self.at(at, Event::KeeperEnded(n));
            }
        }
        None
    }

    // ---- the command -----------------------------------------------------------------------------------------------

    fn kill_command(&mut self, n: usize) {
        let run = self.jobs[n].command.run();
        // Who was killed dies no sooner for being killed again.
        if let Some(run) = run.filter(|_| run != self.jobs[n].dying) {
            self.jobs[n].dying = Some(run);
            let long = 490 * MILLI - self.random.mostly(0, 490 * MILLI);
            self.after(long, long + 1, Event::Die(n, run));
        }
    }

    pub(super) fn command_ends(&mut self, n: usize, run: u32, how: Verdict) {
        let frozen = matches!(self.jobs[n].command, Command::Frozen { .. });
        // What stands still does nothing, but KILL ends it.
        if self.jobs[n].command.run() != Some(run) || (frozen && matches!(how, Verdict::Exited(_))) {
            return;
        }
        self.jobs[n].command = Command::None;
        if self.jobs[n].keeper.is_some() {
            self.keeper(n, keeper::Event::Reaped { command: Some(how), empty: true });
        } else {
            self.supervisor(n, supervisor::Event::Empty);
        }
    }

    // ---- the supervisor --------------------------------------------------------------------------------------------

    fn supervisor(&mut self, n: usize, event: supervisor::Event) {
        if self.jobs[n].stopped == Some(Process::Supervisor) {
            self.jobs[n].supervisors_news.push(event);
            return;
        }
        let local = self.jobs[n].local(self.now);
        let Some(machine) = &mut self.jobs[n].supervisor else { return };
        let mut actions = machine.on(event, local);
        actions.extend(machine.on(supervisor::Event::Tick, local));
        for action in actions {
            self.guard(n, action);
        }
        let job = &self.jobs[n];
        if let Some(wake) = job.supervisor.as_ref().and_then(supervisor::Machine::wake) {
            let at = job.true_time(wake).max(self.now + 1);
            self.at(at, Event::Tick(n, Process::Supervisor));
        }
    }

    fn guard(&mut self, n: usize, action: supervisor::Action) {
        match action {
            supervisor::Action::Post(message) => {
                let at = self.jobs[n].last[1].max(self.now + self.random.below(MILLI));
                self.jobs[n].last[1] = at;
                self.at(at, Event::ToKeeper(n, message));
            }
            supervisor::Action::KillTree => self.kill_command(n),
            supervisor::Action::KillAll => {
                self.kill_command(n);
                self.keeper_dies(n);
            }
            supervisor::Action::KillKeeper => self.keeper_dies(n),
            supervisor::Action::Release => {
                let who = self.jobs[n].who;
                self.at(self.now, Event::Revoke(who));
            }
            supervisor::Action::Finish(_) => {
                assert_eq!(self.jobs[n].command, Command::None, "distlock ends before its command");
                self.over(n);
            }
            _ => {}
        }
    }

    /// The job is over, and another comes in its place.
    fn over(&mut self, n: usize) {
        if std::mem::take(&mut self.jobs[n].begun) {
            self.jobs[n].supervisor = None;
            self.after(10 * MILLI, 3 * SECOND, Event::Begin(n));
        }
    }

    pub(super) fn post(&mut self, n: usize, message: FromKeeper) {
        let at = self.jobs[n].last[0].max(self.now + self.random.below(MILLI));
        self.jobs[n].last[0] = at;
        self.at(at, Event::ToSupervisor(n, message));
    }

    pub(super) fn message(&mut self, n: usize, message: FromKeeper) {
        self.supervisor(n, supervisor::Event::Message(message));
    }

    pub(super) fn order(&mut self, n: usize, message: &FromSupervisor) {
        let event = match message {
            FromSupervisor::Acknowledged(deadlines) => keeper::Event::Acknowledged(*deadlines),
            FromSupervisor::Signal(signal) => keeper::Event::Signal(*signal),
            FromSupervisor::GroupSignal(signal) => keeper::Event::GroupSignal(*signal),
            FromSupervisor::Kill => keeper::Event::Kill,
        };
        self.keeper(n, event);
    }

    pub(super) fn keeper_ended(&mut self, n: usize) {
        if self.jobs[n].supervisor.is_none() {
            return self.over(n);
        }
        self.supervisor(n, supervisor::Event::LinkClosed);
        self.supervisor(n, supervisor::Event::KeeperEnded);
        if self.jobs[n].command == Command::None {
            self.supervisor(n, supervisor::Event::Empty);
        }
    }

    // ---- what befalls them -----------------------------------------------------------------------------------------

    pub(super) fn tick(&mut self, n: usize, process: Process) {
        // Alarms that were set anew ring all the same, and do no harm.
        match process {
            Process::Keeper if self.jobs[n].stopped != Some(process) => self.keeper(n, keeper::Event::Tick),
            Process::Supervisor if self.jobs[n].stopped != Some(process) => {
                self.supervisor(n, supervisor::Event::Tick);
            }
            _ => {}
        }
    }

    /// The process that is to be struck in the life of this job.
    fn victim(&mut self, n: usize) -> Process {
        let coin = if self.random.percent(50) { Process::Keeper } else { Process::Supervisor };
        *self.jobs[n].victim.get_or_insert(coin)
    }

    pub(super) fn pause(&mut self, n: usize) {
        let victim = self.victim(n);
        if self.jobs[n].begun && self.jobs[n].stopped.is_none() {
            self.jobs[n].stopped = Some(victim);
            self.after(50 * MILLI, 40 * SECOND, Event::Resume(n, victim));
        }
    }

    pub(super) fn resume(&mut self, n: usize, process: Process) {
        if self.jobs[n].stopped != Some(process) {
            return;
        }
        self.jobs[n].stopped = None;
        match process {
            // Time goes before news.
            Process::Keeper => {
                self.keeper(n, keeper::Event::Tick);
                for event in std::mem::take(&mut self.jobs[n].keepers_news) {
                    self.keeper(n, event);
                }
            }
            Process::Supervisor => {
                let local = self.jobs[n].local(self.now);
                // News of the keeper are read before the deadline counts.
                for event in std::mem::take(&mut self.jobs[n].supervisors_news) {
                    let Some(machine) = &mut self.jobs[n].supervisor else { return };
                    for action in machine.on(event, local) {
                        self.guard(n, action);
                    }
                }
                self.supervisor(n, supervisor::Event::Tick);
            }
        }
    }

    pub(super) fn kill(&mut self, n: usize) {
        if !self.jobs[n].begun {
            return;
        }
        match self.victim(n) {
            Process::Keeper => self.keeper_dies(n),
            Process::Supervisor => {
                self.jobs[n].supervisor = None;
                if self.jobs[n].stopped == Some(Process::Supervisor) {
                    self.jobs[n].stopped = None;
                }
                self.keeper(n, keeper::Event::Orphaned);
            }
        }
    }

    fn keeper_dies(&mut self, n: usize) {
        if self.jobs[n].keeper.take().is_some() {
            if self.jobs[n].stopped == Some(Process::Keeper) {
                self.jobs[n].stopped = None;
            }
            self.jobs[n].calls = [0; COUNT];
            let at = self.jobs[n].last[0].max(self.now);
            self.at(at, Event::KeeperEnded(n));
        }
    }
}

fn plan(ttl: Micros, on_lost: OnLost) -> Plan {
    Plan {
        name: "/x".into(),
        endpoints_source: "--endpoints".into(),
        time_zone: jiff::tz::TimeZone::UTC,
        grace: Duration::from_micros((ttl / 4).min(2 * SECOND)),
        wait: None,
        connect_timeout: Duration::from_secs(10),
        leftover: Leftover::Kill,
        on_lost,
        restarts: None,
    }
}
