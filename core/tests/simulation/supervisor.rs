//! Feeds a job's supervisor with events and carries out its actions.

use distlock_core::messages::FromKeeper;
use distlock_core::supervisor::{self, Action};

use super::job::{Command, Process};
use super::{Event, MILLI, World};

impl World {
    /// Passes an event to the supervisor, or keeps it until a stopped supervisor continues.
    pub(super) fn supervisor_event(&mut self, index: usize, event: supervisor::Event) {
        if self.jobs[index].stopped == Some(Process::Supervisor) {
            self.jobs[index].pending_supervisor_events.push(event);
            return;
        }
        let clock = self.jobs[index].clock(self.now);
        let Some(machine) = &mut self.jobs[index].supervisor else { return };
        let mut actions = machine.on(event, clock);
        actions.extend(machine.on(supervisor::Event::Tick, clock));
        for action in actions {
            self.carry_out_supervisor(index, action);
        }
        let job = &self.jobs[index];
        if let Some(wake) = job.supervisor.as_ref().and_then(supervisor::Machine::wake) {
            let at = job.true_time(wake).max(self.now + 1);
            self.schedule_at(at, Event::Timer(index, Process::Supervisor));
        }
    }

    pub(super) fn carry_out_supervisor(&mut self, index: usize, action: Action) {
        match action {
            Action::Send(message) => {
                let at = self.jobs[index].last_arrival[1].max(self.now + self.random.below(MILLI));
                self.jobs[index].last_arrival[1] = at;
                self.schedule_at(at, Event::MessageToKeeper(index, message));
            }
            Action::KillTree => self.kill_command(index),
            Action::KillAll => {
                self.kill_command(index);
                self.kill_keeper(index);
            }
            Action::KillKeeper => self.kill_keeper(index),
            Action::Release => {
                let contender = self.jobs[index].contender;
                self.schedule_at(self.now, Event::Revoke(contender));
            }
            Action::Finish(_) => {
                assert_eq!(self.jobs[index].command, Command::None, "distlock exits before its command");
                self.end_job(index);
            }
            _ => {}
        }
    }

    pub(super) fn receive_from_keeper(&mut self, index: usize, message: FromKeeper) {
        self.supervisor_event(index, supervisor::Event::Message(message));
    }

    pub(super) fn keeper_ended(&mut self, index: usize) {
        if self.jobs[index].supervisor.is_none() {
            return self.end_job(index);
        }
        self.supervisor_event(index, supervisor::Event::LinkClosed);
        self.supervisor_event(index, supervisor::Event::KeeperExited);
        if self.jobs[index].command == Command::None {
            self.supervisor_event(index, supervisor::Event::TreeEmpty);
        }
    }
}
