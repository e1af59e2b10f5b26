//! The command: when it may start, what reaches it, and when and why it is ended.

use super::{Action, Machine, Phase, Reason, Stop};
use crate::signal::Signal;

use crate::error::Failure;
use crate::keeper::requests::Request;
use crate::lease::{Deadlines, Lease};
use crate::messages::{FromKeeper, Notice, Verdict};
use crate::plan::Leftover;
use crate::time::Instant;

impl Machine {
    /// Starts the command once the lock is held, with time left, and the supervisor knows the deadlines.
    pub(super) fn start_if_ready(&mut self, now: Instant) {
        let Phase::Held { offered, acknowledged } = self.phase else { return };
        // Without a lease there is no deadline, and still the command waits for the supervisor: that may be stopped.
        let deadlines = self.lease.as_ref().map_or(Deadlines::NEVER, Lease::deadlines);
        if self.lease.as_ref().is_some_and(|lease| !lease.may_start(now)) {
            if self.calls.idle(Request::Renew) {
                self.calls.schedule(Request::Renew, now);
            }
        } else if !offered {
            self.phase = Phase::Held { offered: true, acknowledged };
            self.offer = Some(deadlines);
            self.tell(FromKeeper::Deadlines(deadlines));
        } else if acknowledged {
            self.start();
        }
    }

    pub(super) fn start(&mut self) {
        // What was lost is had again.
        self.loss = None;
        self.phase = Phase::Starting;
        self.actions.push(Action::Start);
    }

    /// An acknowledgement of an offer that is void by now (the lock was lost and had again since) counts for nothing.
    pub(super) fn acknowledged(&mut self, deadlines: Deadlines, now: Instant) {
        if self.offer.is_none_or(|offer| deadlines.kill < offer.kill) {
            return;
        }
        if let Phase::Held { offered: true, acknowledged } = &mut self.phase {
            *acknowledged = true;
            self.start_if_ready(now);
        } else {
            self.thaw(now);
        }
    }

    /// The command got this signal without us. Where there is no command, it is meant for the wait: for the lock, or for
    /// leftovers.
    pub(super) fn group_signal(&mut self, signal: Signal, now: Instant) {
        self.signaled |= signal.ends_a_command();
        if self.seeking() || matches!(self.phase, Phase::Clearing(_)) {
            self.signal(signal, now);
        } else if self.phase == Phase::Starting {
            // It may not have been in the group yet; if it was, the two are one to it until its program runs.
            self.actions.push(Action::SignalCommand(signal));
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, now: Instant) {
        let ends = signal.ends_a_command();
        self.signaled |= ends;
        if self.seeking() {
            if ends {
                let failure = Failure::interrupted(signal, format_args!("while waiting for {}", self.plan.name));
                self.conclude(Verdict::Failed(failure), now);
            }
        } else if matches!(self.phase, Phase::Clearing(_)) {
            if ends {
                // The command is gone; whoever waits for what it left does not want to any more.
                self.end(Reason::Leftover, now + self.plan.grace, now);
            }
        } else if self.frozen.is_some() && signal == Signal::SIGCONT {
            // What is frozen must not go on before the lock is sure.
        } else if self.alive() {
            self.actions.push(Action::SignalCommand(signal));
        }
    }

    /// Its program could not be executed; why it was to be ended meanwhile weighs more. Its process ends by itself.
    pub(super) fn not_started(&mut self, failure: Failure) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Clearing(Verdict::Failed(failure));
        }
    }

    pub(super) fn kill(&mut self, now: Instant) {
        if self.alive() {
            self.end(Reason::Killed, now, now);
        } else if let Phase::Releasing(verdict) = &self.phase {
            let verdict = verdict.clone();
            self.finish(verdict);
        }
    }

    pub(super) fn on_orphaned(&mut self, now: Instant) {
        self.orphaned = true;
        if self.alive() {
            self.end(Reason::Orphaned, now, now);
        } else if self.seeking() {
            self.conclude(Verdict::Failed(Failure::fault("the supervisor died")), now);
        }
    }

    /// Ends the tree: softly where there is time until `kill_at`. Of several reasons the weightiest is told, and the
    /// earliest moment counts.
    pub(super) fn end(&mut self, reason: Reason, kill_at: Instant, now: Instant) {
        // A soft signal would wake what is frozen.
        let kill_at = if self.frozen.is_some() { now } else { kill_at };
        let news = self.stop.as_ref().is_none_or(|stop| reason.weight() > stop.reason.weight());
        if let (true, Reason::Lost(cause) | Reason::Broken(cause)) = (news, &reason) {
            self.notice(Notice::Ending(cause.clone()));
        }
        if let Some(stop) = &mut self.stop {
            stop.kill_at = stop.kill_at.min(kill_at);
            stop.next_pass = stop.next_pass.min(kill_at);
            if news {
                stop.reason = reason;
            }
        } else {
            if now < kill_at {
                self.actions.push(Action::EndTree);
            }
            self.stop = Some(Stop { reason, kill_at, next_pass: kill_at });
        }
        self.check_stop(now);
    }

    pub(super) fn reaped(&mut self, command: Option<Verdict>, empty: bool, now: Instant) {
        if let (Some(verdict), Phase::Starting | Phase::Running) = (command, &self.phase) {
            self.notice(Notice::Note(told(&verdict)));
            self.phase = Phase::Clearing(verdict);
            let left = !empty && self.stop.is_none();
            match self.plan.leftover {
                Leftover::Kill if left => {
                    self.notice(Notice::Note("ending what the command left behind".into()));
                    self.end(Reason::Leftover, now + self.plan.grace, now);
                }
                Leftover::Wait if left => {
                    self.notice(Notice::Note("waiting for what the command left behind".into()));
                }
                Leftover::Leave if left => {
                    self.actions.push(Action::ReportLeftovers);
                    return self.cleared(now);
                }
                _ => {}
            }
        }
        if empty {
            self.cleared(now);
        }
    }

    /// Nothing is left of the command, or nothing that is to be waited for.
    fn cleared(&mut self, now: Instant) {
        let Phase::Clearing(verdict) = &self.phase else { return };
        let verdict = verdict.clone();
        match self.stop.as_ref().map(|stop| &stop.reason) {
            Some(Reason::Lost(cause)) if self.restarts() => self.restart(cause.clone(), now),
            _ => self.conclude(self.judged(verdict), now),
        }
    }

    /// A loss weighs more than whatever the command returned.
    pub(super) fn judged(&self, verdict: Verdict) -> Verdict {
        match self.stop.as_ref().map(|stop| &stop.reason) {
            Some(Reason::Lost(cause)) => self.lost(cause),
            Some(Reason::Broken(by)) => self.broken(by),
            _ if self.frozen.is_some() => self.lost("the command ended while the lock was uncertain"),
            _ => verdict,
        }
    }

    pub(super) fn lost(&self, cause: &str) -> Verdict {
        let mut failure = Failure::lost(&self.plan.name, cause);
        failure.causes.extend(self.used_up());
        failure.causes.extend(self.causes.iter().cloned());
        Verdict::Failed(failure)
    }
}

/// How the command ended, for those who want each step told.
fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Exited(code) => format!("the command ended with exit code {code}"),
        Verdict::Signaled(signal) => format!("the command was killed by {signal}"),
        Verdict::Failed(failure) => format!("the command ended: {failure}"),
    }
}
