//! The messages of the keeper, and its death.

use super::events::Action;
use super::state::{KEEPER_EXIT_BUDGET, KeeperState, Kill, Machine, Phase};
use crate::error::Failure;
use crate::lease::{Deadlines, MAX_RELEASE};
use crate::messages::{FromKeeper, FromSupervisor, Notice, Process, Step, Verdict};
use crate::time::Instant;

impl Machine {
    pub(super) fn message(&mut self, message: FromKeeper, now: Instant) {
        self.last_message_at = now;
        match message {
            FromKeeper::Lease(_) => self.lease_exists = true,
            FromKeeper::Deadlines(deadlines) => self.guard(deadlines),
            FromKeeper::Stopped(signal) => self.command_stopped(signal),
            FromKeeper::Continued => self.command_continued(),
            FromKeeper::Killing | FromKeeper::Account(_) => {}
            FromKeeper::Notice(notice) => self.keeper_notice(notice),
            FromKeeper::Ended(verdict) => {
                self.tree_ended(verdict);
                self.keeper_exit_deadline = Some(now + MAX_RELEASE + KEEPER_EXIT_BUDGET);
            }
            FromKeeper::Done { verdict, lingers } => {
                self.tree_ended(verdict);
                (self.lock_released, self.keeper_lingers) = (true, lingers);
                self.keeper_exit_deadline = Some(if lingers { now } else { now + KEEPER_EXIT_BUDGET });
            }
        }
    }

    fn tree_ended(&mut self, verdict: Verdict) {
        self.phase = Phase::Ended;
        self.kill = None;
        self.verdict = Some(verdict);
    }

    fn guard(&mut self, deadlines: Deadlines) {
        self.deadlines = Some(deadlines);
        if matches!(self.phase, Phase::Waiting | Phase::Frozen) {
            self.phase = Phase::Armed;
            self.keeper_exit_deadline = None;
        }
        if self.phase == Phase::Armed {
            // The supervisor kills at the deadline from here on, so the command may start (rule 5).
            self.actions.push(Action::Send(FromSupervisor::Acknowledged(deadlines)));
        }
    }

    fn keeper_notice(&mut self, notice: Notice) {
        match &notice {
            Notice::Rejoining(_) => (self.phase, self.deadlines) = (Phase::Waiting, None),
            Notice::Restarting(_) => {
                self.phase = Phase::Waiting;
                (self.deadlines, self.kill, self.keeper_exit_deadline) = (None, None, None);
            }
            Notice::Started => {
                self.phase = Phase::Running;
                self.command_continued();
                if !self.may_restart {
                    self.actions.push(Action::CloseStreams);
                }
            }
            Notice::Relock(Step::Frozen) => (self.phase, self.deadlines, self.kill) = (Phase::Frozen, None, None),
            Notice::Relock(Step::Thawed) => self.phase = Phase::Running,
            Notice::Stuck(processes) => return self.show_stuck(processes.clone()),
            _ => {}
        }
        self.show(notice);
    }

    /// Shows a list of stuck processes once, although the keeper repeats it to show that it is alive.
    fn show_stuck(&mut self, processes: Vec<Process>) {
        if processes != self.stuck {
            self.stuck.clone_from(&processes);
            if !processes.is_empty() {
                self.show(Notice::Stuck(processes));
            }
        }
    }

    pub(super) fn handle_keeper_exit(&mut self, now: Instant) {
        (self.keeper, self.keeper_exit_deadline) = (KeeperState::Exited, None);
        if self.lock_released {
            return self.finish();
        }
        match self.phase {
            Phase::Ended => return self.release_and_finish(),
            Phase::Waiting => {
                let fault = "the keeper process died while waiting for the lock";
                self.verdict.get_or_insert_with(|| Verdict::Failed(Failure::fault(fault)));
            }
            Phase::Armed | Phase::Running | Phase::Frozen if self.keeper_unresponsive => {}
            Phase::Armed | Phase::Running | Phase::Frozen => {
                self.show(Notice::KeeperLost("the keeper process died".into()));
                self.verdict = Some(self.lost_verdict("the keeper process died"));
            }
        }
        // Also in Waiting, as a precaution: whatever is below this process must not outlive its guardian.
        self.kill = Some(Kill { since: now, next: now });
    }

    /// Handles an empty tree. While the keeper lives, it is a child itself, so nothing is known.
    pub(super) fn tree_empty(&mut self) {
        if self.keeper_exited() && self.kill.take().is_some() {
            self.phase = Phase::Ended;
            self.release_and_finish();
        }
    }
}
