//! The end of a job: the verdict, the release of the lock, and the failure messages.

use std::time::Duration;

use super::events::{Action, Request};
use super::state::{Machine, Phase, TerminationReason};
use crate::duration::{show, show_rounded};
use crate::error::{Failure, Kind, LOSS_HINT};
use crate::lease::MAX_RELEASE;
use crate::messages::{FromKeeper, Notice, Verdict};
use crate::outcome::{Outcome, Queue, Trouble};
use crate::plan::Plan;
use crate::time::Instant;

/// Shortest time for a release, even if the hard deadline has passed or no server has answered yet.
const MIN_RELEASE: Duration = Duration::from_secs(1);

impl Machine {
    /// Ends the search for the lock because `--wait`, `--connect-timeout` or the single try is over.
    pub(super) fn end_search(&mut self, now: Instant) {
        let name = &self.plan.name;
        let failure = if let Some(cause) = &self.previous_loss {
            let waited = show_rounded(now.since(self.seeking_since));
            let message = format!("the lock {name} was lost and not acquired again within {waited}");
            let mut failure = Failure::new(Kind::Lost, message).because(cause).hint(LOSS_HINT);
            failure.causes.extend(self.recent_causes());
            failure
        } else if let Some(queue) = &self.queue {
            busy(queue, &self.plan)
        } else {
            self.not_served(now)
        };
        self.release(Verdict::Failed(failure), now);
    }

    /// Returns the failure of a search in which no server granted the lock, or none even answered.
    fn not_served(&self, now: Instant) -> Failure {
        let failed = if self.server_answered { "grant the lock" } else { "be reached" };
        let waited = show_rounded(now.since(self.seeking_since));
        let mut failure = Failure::new(Kind::Unreachable, format!("no server could {failed} within {waited}"));
        failure.causes.extend(self.recent_causes());
        failure.hint(self.recent_hint().unwrap_or_else(|| {
            format!(
                "check the addresses from {} and that the servers run; `distlock doctor` with the same options asks each \
                 of them",
                self.plan.endpoints_origin
            )
        }))
    }

    /// Returns the verdict of a run: a known loss takes precedence over the exit code of the command.
    pub(super) fn run_verdict(&self, command: Verdict) -> Verdict {
        match self.termination.as_ref().map(|termination| &termination.reason) {
            Some(TerminationReason::Lost(cause)) => self.lost_verdict(cause),
            Some(TerminationReason::Broken(by)) => self.broken_verdict(by),
            _ if self.frozen.is_some() => self.lost_verdict("the command exited while the lock was uncertain"),
            _ => command,
        }
    }

    fn lost_verdict(&self, cause: &str) -> Verdict {
        let mut failure = Failure::lost(&self.plan.name, cause);
        failure.causes.extend(self.restarts_exhausted());
        failure.causes.extend(self.recent_causes());
        Verdict::Failed(failure)
    }

    pub(super) fn broken_verdict(&self, by: &str) -> Verdict {
        let consequence = if self.tree_may_run() { "and the command terminated" } else { "before the command ran" };
        let message = format!("the lock {} was broken {consequence}", self.plan.name);
        Verdict::Failed(Failure::new(Kind::Broken, message).because(format!("asked to stop by {by}")))
    }

    /// Releases what the servers may hold for this contender, then finishes. The tree is empty, or never ran.
    pub(super) fn release(&mut self, verdict: Verdict, now: Instant) {
        if matches!(self.phase, Phase::Releasing(_) | Phase::Done) {
            return;
        }
        let verdict = self.with_previous_loss(verdict);
        // A renewal in flight must not restore what is released.
        self.abandon_all();
        // The supervisor must not guard deadlines of a tree that is gone.
        if self.tree_may_run() || matches!(self.phase, Phase::Held { offered: true, .. }) {
            self.send(FromKeeper::Ended(verdict.clone()));
        }
        if !self.may_have_entered {
            return self.finish(verdict);
        }
        self.phase = Phase::Releasing(verdict);
        self.requests.schedule_until(Request::Release, now, self.release_deadline(now));
    }

    /// Turns a failure to acquire the lock again after a loss into a loss.
    fn with_previous_loss(&self, verdict: Verdict) -> Verdict {
        match (&self.previous_loss, verdict) {
            (Some(cause), Verdict::Failed(failure)) if failure.kind != Kind::Lost => {
                let mut lost = Failure::lost(&self.plan.name, cause).because(failure.message);
                lost.causes.extend(failure.causes);
                Verdict::Failed(Failure { hint: failure.hint.or(lost.hint), ..lost })
            }
            (_, verdict) => verdict,
        }
    }

    /// Returns when retries of a release that starts now end. If no server has ever answered, a short attempt remains,
    /// because a server may have handled a request without answering.
    fn release_deadline(&self, now: Instant) -> Instant {
        let hard = self.lease.as_ref().map_or(now + MAX_RELEASE, |lease| lease.deadlines().hard);
        let longest = if self.server_answered { MAX_RELEASE } else { MIN_RELEASE };
        hard.min(now + longest).max(now + MIN_RELEASE)
    }

    pub(super) fn release_retries_until(&self, now: Instant) -> Instant {
        self.requests.retry_until(Request::Release).unwrap_or(now + MAX_RELEASE)
    }

    /// Finishes with a verdict that takes the release into account (rule 8), or retries the release.
    pub(super) fn released(&mut self, outcome: Outcome<()>, now: Instant) {
        self.requests.answered(Request::Release);
        let Phase::Releasing(verdict) = &self.phase else { return };
        let verdict = verdict.clone();
        match outcome {
            Err(Trouble::Uncertain { cause, .. }) if self.server_answered && now < self.release_retries_until(now) => {
                self.remember_cause(cause, None);
                self.requests.retry(Request::Release, now);
            }
            Err(Trouble::Lost(cause)) if matches!(verdict, Verdict::Exited(_) | Verdict::Signaled(_)) => {
                let message = format!("the lock {} was lost before the command exited", self.plan.name);
                self.finish(Verdict::Failed(Failure::new(Kind::Lost, message).because(cause).hint(LOSS_HINT)));
            }
            Err(Trouble::Uncertain { .. }) if is_loss(&verdict) => {
                // The keeper stays to end the lease, so that no waiter waits for it to expire.
                self.actions.push(Action::AbandonContender);
                self.finish(verdict);
            }
            Err(Trouble::Uncertain { cause, .. }) => {
                self.notice(Notice::Note(format!("the lock was not released, its lease expires by itself: {cause}")));
                self.finish(verdict);
            }
            Err(Trouble::Fatal(failure)) => {
                self.notice(Notice::Note(format!("the lock was not released: {failure}")));
                self.finish(verdict);
            }
            Ok(()) => {
                // A token of zero means that the lock was never held.
                if self.token > 0 {
                    self.notice(Notice::Note("the lock is released".into()));
                }
                self.finish(verdict);
            }
            Err(_) => self.finish(verdict),
        }
    }

    pub(super) fn finish(&mut self, verdict: Verdict) {
        self.abandon_all();
        self.phase = Phase::Done;
        self.actions.push(Action::Finish(verdict));
    }
}

fn is_loss(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Failed(Failure { kind: Kind::Lost | Kind::Broken, .. }))
}

/// Returns the failure of a wait that ended in the queue.
fn busy(queue: &Queue, plan: &Plan) -> Failure {
    let within = match plan.wait {
        Some(wait) if !wait.is_zero() => format!(" within {}", show(wait)),
        _ => String::new(),
    };
    let obstacle = match &queue.holder {
        _ if queue.lock_delay => "the lock-delay of an ended session is not over".to_owned(),
        Some(holder) => format!("held by {}", holder.details(&(plan.time_zone)())),
        None => "held by another client".to_owned(),
    };
    let failure = Failure::new(Kind::Busy, format!("{} not acquired{within}: {obstacle}", plan.name));
    if queue.lock_delay { failure.hint("the lock-delay ends by itself; wait longer with --wait") } else { failure }
}
