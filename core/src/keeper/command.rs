//! The command: when it starts, which signals it gets, when and why its process tree is terminated.

use super::events::{Action, Request};
use super::state::{Machine, Phase, Termination, TerminationReason};
use crate::error::Failure;
use crate::lease::{Deadlines, Lease};
use crate::messages::{FromKeeper, Notice, Verdict};
use crate::plan::Leftover;
use crate::signal::Signal;
use crate::time::Instant;

impl Machine {
    /// Starts the command if the lock is held, the lease allows a start (rule 3) and the supervisor has acknowledged
    /// the deadlines (rule 5). Otherwise takes the next step towards that.
    pub(super) fn start_if_ready(&mut self, now: Instant) {
        let Phase::Held { offered, acknowledged } = self.phase else { return };
        // Even without a lease the command waits for the supervisor, which may be stopped.
        let deadlines = self.lease.as_ref().map_or(Deadlines::NEVER, Lease::deadlines);
        if self.lease.as_ref().is_some_and(|lease| !lease.may_start(now)) {
            if self.requests.idle(Request::Renew) {
                self.requests.schedule(Request::Renew, now);
            }
        } else if !offered {
            self.phase = Phase::Held { offered: true, acknowledged };
            self.offered_deadlines = Some(deadlines);
            self.send(FromKeeper::Deadlines(deadlines));
        } else if acknowledged {
            self.previous_loss = None;
            self.phase = Phase::Starting;
            self.actions.push(Action::Start);
        }
    }

    /// Ignores an acknowledgement of deadlines that are void because the lock was lost and acquired again since.
    pub(super) fn acknowledged(&mut self, deadlines: Deadlines, now: Instant) {
        if self.offered_deadlines.is_none_or(|offered| deadlines.kill < offered.kill) {
            return;
        }
        if let Phase::Held { offered: true, acknowledged } = &mut self.phase {
            *acknowledged = true;
            self.start_if_ready(now);
        } else {
            self.thaw(now);
        }
    }

    /// Handles a signal that the command got directly. Without a command it ends the wait for the lock or for
    /// leftovers.
    pub(super) fn group_signal(&mut self, signal: Signal, now: Instant) {
        self.asked_to_end |= signal.ends_a_command();
        if self.seeking() || matches!(self.phase, Phase::Clearing(_)) {
            self.signal(signal, now);
        } else if self.phase == Phase::Starting {
            // The forked process may have joined the group too late. If it did not, the second signal merges with the
            // first, because both are pending until the program runs.
            self.actions.push(Action::SignalCommand(signal));
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, now: Instant) {
        let ends = signal.ends_a_command();
        self.asked_to_end |= ends;
        if self.seeking() {
            if ends {
                let failure = Failure::interrupted(signal, format_args!("while waiting for {}", self.plan.name));
                self.release(Verdict::Failed(failure), now);
            }
        } else if matches!(self.phase, Phase::Clearing(_)) {
            if ends {
                self.terminate_tree(TerminationReason::Leftover, now + self.plan.grace, now);
            }
        } else if self.frozen.is_some() && signal == Signal::SIGCONT {
            // A frozen tree must not continue before the lock is confirmed.
        } else if self.tree_may_run() {
            self.actions.push(Action::SignalCommand(signal));
        }
    }

    pub(super) fn not_started(&mut self, failure: Failure) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Clearing(Verdict::Failed(failure));
        }
    }

    pub(super) fn kill(&mut self, now: Instant) {
        if self.tree_may_run() {
            self.terminate_tree(TerminationReason::Killed, now, now);
        } else if let Phase::Releasing(verdict) = &self.phase {
            let verdict = verdict.clone();
            self.finish(verdict);
        }
    }

    pub(super) fn supervisor_died(&mut self, now: Instant) {
        self.orphaned = true;
        if self.tree_may_run() {
            self.terminate_tree(TerminationReason::Orphaned, now, now);
        } else if self.seeking() {
            self.release(Verdict::Failed(Failure::fault("the supervisor died")), now);
        }
    }

    /// Terminates the process tree: the soft signal now, KILL at `kill_at`. Of several stops the reason with the
    /// highest precedence and the earliest KILL apply.
    pub(super) fn terminate_tree(&mut self, reason: TerminationReason, kill_at: Instant, now: Instant) {
        // The soft signal would continue a frozen tree.
        let kill_at = if self.frozen.is_some() { now } else { kill_at };
        let takes_precedence =
            self.termination.as_ref().is_none_or(|termination| reason.precedence() > termination.reason.precedence());
        if let (true, TerminationReason::Lost(cause) | TerminationReason::Broken(cause)) = (takes_precedence, &reason) {
            self.notice(Notice::Ending(cause.clone()));
        }
        if let Some(termination) = &mut self.termination {
            termination.kill_at = termination.kill_at.min(kill_at);
            termination.next_kill = termination.next_kill.min(kill_at);
            if takes_precedence {
                termination.reason = reason;
            }
        } else {
            if now < kill_at {
                self.actions.push(Action::TerminateTree);
            }
            self.termination = Some(Termination { reason, kill_at, next_kill: kill_at });
        }
        self.check_termination(now);
    }

    pub(super) fn reaped(&mut self, command: Option<Verdict>, tree_empty: bool, now: Instant) {
        if let (Some(verdict), Phase::Starting | Phase::Running) = (command, &self.phase) {
            self.notice(Notice::Note(describe_exit(&verdict)));
            self.phase = Phase::Clearing(verdict);
            let leftovers = !tree_empty && self.termination.is_none();
            match self.plan.leftover {
                Leftover::Kill if leftovers => {
                    self.notice(Notice::Note("terminating processes that outlived the command".into()));
                    self.terminate_tree(TerminationReason::Leftover, now + self.plan.grace, now);
                }
                Leftover::Wait if leftovers => {
                    self.notice(Notice::Note("waiting for processes that outlived the command".into()));
                }
                Leftover::Leave if leftovers => {
                    self.actions.push(Action::ReportLeftovers);
                    return self.tree_cleared(now);
                }
                _ => {}
            }
        }
        if tree_empty {
            self.tree_cleared(now);
        }
    }

    /// Ends the run, or starts another one after a loss. The tree is empty, or its leftovers may run without the lock.
    fn tree_cleared(&mut self, now: Instant) {
        let Phase::Clearing(verdict) = &self.phase else { return };
        let verdict = verdict.clone();
        match self.termination.as_ref().map(|termination| &termination.reason) {
            Some(TerminationReason::Lost(cause)) if self.restart_allowed() => self.restart(cause.clone(), now),
            _ => self.release(self.run_verdict(verdict), now),
        }
    }
}

fn describe_exit(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Exited(code) => format!("the command exited with code {code}"),
        Verdict::Signaled(signal) => format!("the command was killed by {signal}"),
        Verdict::Failed(failure) => format!("the command failed: {failure}"),
    }
}
