//! Faults of processes, network and server; and timers, which a stopped process misses.

use distlock_core::keeper::{self, Request};
use distlock_core::supervisor;

use super::job::Process;
use super::server::Contender;
use super::{Event, JOB_COUNT, MILLI, SECOND, World};

impl World {
    /// Causes a random fault, and schedules the next one.
    pub(super) fn cause_fault(&mut self) {
        self.schedule_after(SECOND, 12 * SECOND, Event::Fault);
        let index = usize::try_from(self.random.below(JOB_COUNT as u64)).unwrap_or_default();
        match self.random.below(6) {
            0 => {
                let until = self.now + self.random.between(SECOND / 2, 4 * SECOND);
                self.server.fail_over(until);
            }
            1 | 2 => self.partitioned_until[index] = self.now + self.random.between(SECOND / 2, 30 * SECOND),
            3 | 4 => self.stop_victim(index),
            _ => self.kill_victim(index),
        }
    }

    /// Revokes the lease of a contender that was left. Requests are retried until the server answers.
    pub(super) fn revoke(&mut self, contender: Contender) {
        if self.now < self.server.down_until || self.random.percent(20) {
            self.schedule_after(300 * MILLI, SECOND, Event::Revoke(contender));
        } else {
            self.server.end(contender);
        }
    }

    pub(super) fn fire_timer(&mut self, index: usize, process: Process) {
        if self.jobs[index].stopped == Some(process) {
            return;
        }
        // Timers that were replaced fire too, which does no harm.
        match process {
            Process::Keeper => self.keeper_event(index, keeper::Event::Tick),
            Process::Supervisor => self.supervisor_event(index, supervisor::Event::Tick),
        }
    }

    fn victim(&mut self, index: usize) -> Process {
        let process = if self.random.percent(50) { Process::Keeper } else { Process::Supervisor };
        *self.jobs[index].victim.get_or_insert(process)
    }

    fn stop_victim(&mut self, index: usize) {
        let victim = self.victim(index);
        if self.jobs[index].active && self.jobs[index].stopped.is_none() {
            self.jobs[index].stopped = Some(victim);
            self.schedule_after(50 * MILLI, 40 * SECOND, Event::Resume(index, victim));
        }
    }

    pub(super) fn resume(&mut self, index: usize, process: Process) {
        if self.jobs[index].stopped != Some(process) {
            return;
        }
        self.jobs[index].stopped = None;
        match process {
            Process::Keeper => {
                // Deadlines before everything that arrived meanwhile.
                self.keeper_event(index, keeper::Event::Tick);
                for event in std::mem::take(&mut self.jobs[index].pending_keeper_events) {
                    self.keeper_event(index, event);
                }
            }
            Process::Supervisor => {
                let clock = self.jobs[index].clock(self.now);
                // Messages of the keeper before deadlines: they may move them.
                for event in std::mem::take(&mut self.jobs[index].pending_supervisor_events) {
                    let Some(machine) = &mut self.jobs[index].supervisor else { return };
                    for action in machine.on(event, clock) {
                        self.carry_out_supervisor(index, action);
                    }
                }
                self.supervisor_event(index, supervisor::Event::Tick);
            }
        }
    }

    fn kill_victim(&mut self, index: usize) {
        if !self.jobs[index].active {
            return;
        }
        match self.victim(index) {
            Process::Keeper => self.kill_keeper(index),
            Process::Supervisor => {
                let job = &mut self.jobs[index];
                job.supervisor = None;
                job.stopped = job.stopped.filter(|process| *process != Process::Supervisor);
                self.keeper_event(index, keeper::Event::Orphaned);
            }
        }
    }

    pub(super) fn kill_keeper(&mut self, index: usize) {
        let job = &mut self.jobs[index];
        if job.keeper.take().is_some() {
            job.stopped = job.stopped.filter(|process| *process != Process::Keeper);
            job.pending_calls = [0; Request::COUNT];
            let at = job.last_arrival[0].max(self.now);
            self.schedule_at(at, Event::KeeperEnded(index));
        }
    }
}
