//! Feeds a job's keeper with events and carries out its actions.

use std::collections::VecDeque;

use distlock_core::error::Kind;
use distlock_core::keeper::{self, Action};
use distlock_core::messages::{FromKeeper, FromSupervisor, Notice, Step, Verdict};

use super::job::{Command, Process};
use super::{Event, MILLI, SECOND, World};

impl World {
    /// Passes an event to the keeper, or keeps it until a stopped keeper continues.
    pub(super) fn keeper_event(&mut self, index: usize, event: keeper::Event) {
        if self.jobs[index].stopped == Some(Process::Keeper) {
            self.jobs[index].pending_keeper_events.push(event);
            return;
        }
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let clock = self.jobs[index].clock(self.now);
            let Some(machine) = &mut self.jobs[index].keeper else { return };
            for action in machine.on(event, clock) {
                events.extend(self.carry_out(index, action));
            }
        }
        let job = &self.jobs[index];
        if let Some(wake) = job.keeper.as_ref().and_then(keeper::Machine::wake) {
            let at = job.true_time(wake).max(self.now + 1);
            self.schedule_at(at, Event::Timer(index, Process::Keeper));
        }
    }

    /// Carries out an action; returns the event that follows immediately.
    fn carry_out(&mut self, index: usize, action: Action) -> Option<keeper::Event> {
        match action {
            Action::Begin(request) => self.send_request(index, request),
            Action::Abandon(request) => self.jobs[index].pending_calls[request as usize] = 0,
            Action::NextEndpoint(request) => return Some(keeper::Event::TimedOut(request, "server".into())),
            Action::Send(message) => {
                if matches!(message, FromKeeper::Notice(Notice::Relock(Step::Thawed))) {
                    self.statistics.thawed += 1;
                }
                self.send_to_supervisor(index, message);
            }
            Action::Start => return Some(self.start_command(index)),
            Action::TerminateTree => {
                if let Command::Running { run, ignores_term: false, .. } = self.jobs[index].command {
                    self.schedule_after(MILLI, 3 * SECOND, Event::CommandExits(index, run));
                }
            }
            Action::KillTree { .. } => self.kill_command(index),
            Action::Freeze => match self.jobs[index].command {
                Command::Running { run, .. } => {
                    self.schedule_after(0, 5 * MILLI, Event::CommandFreezes(index, run));
                }
                _ => return Some(keeper::Event::Frozen),
            },
            Action::Thaw => {
                if let Command::Frozen { run, ignores_term } = self.jobs[index].command {
                    let contender = self.jobs[index].contender;
                    self.jobs[index].command = Command::Running { run, contender, ignores_term };
                }
            }
            Action::AbandonContender => self.abandon_contender(index),
            Action::SignalCommand(_) | Action::ReportLeftovers => {}
            Action::Finish(verdict) => self.finish_keeper(index, verdict),
        }
        None
    }

    fn start_command(&mut self, index: usize) -> keeper::Event {
        let (contender, ignores_term) = (self.jobs[index].contender, self.random.percent(50));
        let job = &mut self.jobs[index];
        job.run_count += 1;
        let run = job.run_count;
        job.command = Command::Running { run, contender, ignores_term };
        job.proven_under = Some(contender);
        self.statistics.started += 1;
        self.tokens.extend(self.server.token(contender));
        self.schedule_after(100 * MILLI, 40 * SECOND, Event::CommandExits(index, run));
        keeper::Event::Started
    }

    fn finish_keeper(&mut self, index: usize, verdict: Verdict) {
        let lost = matches!(&verdict, Verdict::Failed(failure) if failure.kind == Kind::Lost);
        self.statistics.lost += usize::from(lost);
        self.send_to_supervisor(index, FromKeeper::Done { verdict, lingers: false });
        self.jobs[index].keeper = None;
        let at = self.jobs[index].last_arrival[0].max(self.now);
        self.schedule_at(at, Event::KeeperEnded(index));
    }

    pub(super) fn kill_command(&mut self, index: usize) {
        let run = self.jobs[index].command.run();
        // A second KILL does not make a command die sooner.
        if let Some(run) = run.filter(|_| run != self.jobs[index].killed_run) {
            self.jobs[index].killed_run = Some(run);
            // In most cases almost the whole kill budget.
            let delay = 490 * MILLI - self.random.mostly(0, 490 * MILLI);
            self.schedule_after(delay, delay + 1, Event::CommandDies(index, run));
        }
    }

    pub(super) fn send_to_supervisor(&mut self, index: usize, message: FromKeeper) {
        let at = self.jobs[index].last_arrival[0].max(self.now + self.random.below(MILLI));
        self.jobs[index].last_arrival[0] = at;
        self.schedule_at(at, Event::MessageToSupervisor(index, message));
    }

    pub(super) fn receive_from_supervisor(&mut self, index: usize, message: &FromSupervisor) {
        let event = match message {
            FromSupervisor::Acknowledged(deadlines) => keeper::Event::Acknowledged(*deadlines),
            FromSupervisor::Signal(signal) => keeper::Event::Signal(*signal),
            FromSupervisor::GroupSignal(signal) => keeper::Event::GroupSignal(*signal),
            FromSupervisor::Kill => keeper::Event::Kill,
        };
        self.keeper_event(index, event);
    }
}
