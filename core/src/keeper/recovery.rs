//! `--on-lost restart` and `--on-lost relock`: how a job continues after a loss.
//!
//! Restart enters the queue again once the process tree is empty. Relock stops the tree instead of killing it (rule 9);
//! it continues only if a renewal of its lease is confirmed after all, or if the lock was acquired again and no other
//! client can have held it in between.

use std::time::Duration;

use super::events::{Action, Request};
use super::state::{FreezeStage, Frozen, Machine, Phase, TerminationReason};
use crate::duration::show;
use crate::lease::{KILL_BUDGET, KILL_INTERVAL, Lease};
use crate::messages::{FromKeeper, Notice, Step};
use crate::outcome::{Outcome, Position, Queue, Trouble};
use crate::plan::OnLost;
use crate::time::Instant;

/// Shortest time for which a tree stays frozen before it is killed, even with `--try`.
const MIN_FROZEN: Duration = Duration::from_secs(3);
/// Time limit for stopping a tree whose lock is known to be lost: as much as is budgeted for killing it.
const FREEZE_BUDGET: Duration = KILL_BUDGET;

/// `--on-lost restart`
impl Machine {
    /// Returns whether another run follows a loss. After a signal that asks the command to end, none does.
    pub(super) fn restart_allowed(&self) -> bool {
        let left = self.plan.restarts.is_none_or(|max| self.restarts.count < max);
        self.plan.on_lost == OnLost::Restart && left && !self.orphaned && !self.asked_to_end
    }

    /// Returns the cause to add to a loss after the last run that `--restarts` allows.
    pub(super) fn restarts_exhausted(&self) -> Option<String> {
        let count = self.plan.restarts.filter(|max| *max > 0 && self.restarts.count >= *max)?;
        Some(format!("lost again after {count} restart{}", if count == 1 { "" } else { "s" }))
    }

    /// Abandons the contender and enters the queue as a new one. The process tree is empty.
    pub(super) fn restart(&mut self, cause: String, now: Instant) {
        self.abandon_all();
        self.actions.push(Action::AbandonContender);
        self.notice(Notice::Restarting(cause.clone()));
        let pause = self.restarts.next_pause(now);
        if !pause.is_zero() {
            let text = format!("the lock was held only briefly; the restart follows after {}", show(pause));
            self.notice(Notice::Note(text));
        }
        self.phase = Phase::Seeking;
        (self.lease, self.termination, self.queue, self.may_have_entered) = (None, None, None, false);
        // The pause is not part of the wait.
        (self.previous_loss, self.seeking_since) = (Some(cause), now + pause);
        self.requests.schedule(Request::Enter, now + pause);
    }
}

/// `--on-lost relock`
impl Machine {
    /// Returns whether a loss or the soft deadline freezes the tree instead of terminating it.
    pub(super) fn relock_allowed(&self) -> bool {
        self.plan.on_lost == OnLost::Relock && self.termination.is_none() && !self.orphaned
    }

    pub(super) fn freeze(&mut self, cause: String, kill_at: Instant, now: Instant) {
        if self.frozen.is_none() {
            self.frozen = Some(Frozen {
                since: now,
                kill_at,
                next_stop: now,
                stage: FreezeStage::Stopping,
                reacquiring: false,
                last_run_token: self.token,
                cause,
            });
            self.check_frozen(now);
        }
    }

    /// Returns when [`Machine::check_frozen`] is due.
    pub(super) fn wake_frozen(&self) -> Option<Instant> {
        let frozen = self.frozen.as_ref()?;
        let wait_over = self.plan.wait.map(|wait| frozen.since + wait.max(MIN_FROZEN));
        let next = match frozen.stage {
            FreezeStage::Stopping => Some(frozen.next_stop),
            FreezeStage::Stopped => None,
            FreezeStage::Offered => self.lease.as_ref().map(|lease| lease.deadlines().soft),
        };
        wait_over.into_iter().chain(next).min()
    }

    pub(super) fn check_frozen(&mut self, now: Instant) {
        let wait = self.plan.wait;
        let Some(frozen) = &mut self.frozen else { return };
        let wait_over = wait.is_some_and(|wait| now >= frozen.since + wait.max(MIN_FROZEN));
        let stopping = frozen.stage == FreezeStage::Stopping;
        if self.termination.is_none() && (wait_over || (stopping && now >= frozen.kill_at)) {
            let cause = frozen.cause.clone();
            return self.terminate_tree(TerminationReason::Lost(cause), now, now);
        }
        if stopping && now >= frozen.next_stop {
            frozen.next_stop = now + KILL_INTERVAL;
            self.actions.push(Action::Freeze);
        }
        let soft = self.lease.as_ref().map(|lease| lease.deadlines().soft);
        if frozen.stage == FreezeStage::Offered && soft.is_some_and(|soft| now >= soft) {
            self.void_deadlines();
        }
    }

    /// Marks the tree as stopped and tells the supervisor that no deadline applies, not even one that was offered.
    fn void_deadlines(&mut self) {
        if let Some(frozen) = &mut self.frozen {
            frozen.stage = FreezeStage::Stopped;
            self.notice(Notice::Relock(Step::Frozen));
        }
    }

    pub(super) fn tree_stopped(&mut self, now: Instant) {
        if self.frozen.as_ref().is_some_and(|frozen| frozen.stage == FreezeStage::Stopping) {
            self.void_deadlines();
            // A renewal may have been confirmed meanwhile.
            self.offer_thaw(now);
        }
    }

    /// Sends the deadlines under which the tree may continue, if the lock is confirmed and the lease allows a start.
    /// Each renewal sends new ones, so that a supervisor that was stopped acknowledges the newest.
    pub(super) fn offer_thaw(&mut self, now: Instant) {
        let startable = self.lease.as_ref().filter(|lease| lease.may_start(now)).map(Lease::deadlines);
        if let (Some(frozen), Some(deadlines)) = (&mut self.frozen, startable)
            && frozen.stage != FreezeStage::Stopping
            && !frozen.reacquiring
        {
            frozen.stage = FreezeStage::Offered;
            self.offered_deadlines = Some(deadlines);
            self.send(FromKeeper::Deadlines(deadlines));
        }
    }

    /// Continues the tree, now that the supervisor has acknowledged the deadlines.
    pub(super) fn thaw(&mut self, now: Instant) {
        let startable = self.lease.as_ref().is_some_and(|lease| lease.may_start(now));
        let offered = self.frozen.as_ref().is_some_and(|frozen| frozen.stage == FreezeStage::Offered);
        if startable && self.termination.is_none() && offered {
            self.frozen = None;
            self.actions.push(Action::Thaw);
            self.notice(Notice::Relock(Step::Thawed));
        }
    }

    /// Freezes the tree and acquires the lock again as a new contender, because the lease is lost.
    pub(super) fn reacquire(&mut self, cause: String, now: Instant) {
        self.abandon_all();
        self.lease = None;
        let kill_at = now + FREEZE_BUDGET;
        self.freeze(cause, kill_at, now);
        if let Some(frozen) = &mut self.frozen {
            frozen.kill_at = frozen.kill_at.min(kill_at);
            frozen.reacquiring = true;
            if frozen.stage == FreezeStage::Offered {
                self.void_deadlines();
            }
        }
        self.notice(Notice::Relock(Step::Uncertain("the lease is lost; acquiring the lock again".into())));
        self.requests.schedule(Request::Enter, now);
    }

    /// Kills the tree if another contender is ahead: that one holds the lock, or will.
    pub(super) fn relock_position_received(&mut self, position: &Position, now: Instant) {
        match position {
            Position::Held { token, .. } => {
                self.token = *token;
                self.requests.schedule(Request::VerifyContinuity, now);
                self.requests.schedule(Request::Watch, now);
            }
            // The lock is free and no contender is ahead: this one is next.
            Position::Queued(Queue { lock_delay: true, .. } | Queue { ahead: Some(0), holder: None, .. }) => {
                self.requests.schedule(Request::Wait, now);
            }
            Position::Queued(_) => {
                let cause = "another client holds the lock or is ahead in the queue";
                self.terminate_tree(TerminationReason::Lost(cause.into()), now, now);
            }
        }
    }

    pub(super) fn continuity_verified(&mut self, outcome: Outcome<bool>, now: Instant) {
        // Once the tree is being terminated, no proof brings it back.
        if !self.requests.answered(Request::VerifyContinuity) || self.termination.is_some() {
            return;
        }
        match outcome {
            Ok(true) => {
                self.requests.succeeded(Request::VerifyContinuity);
                let token = self.token;
                if let Some(frozen) = &mut self.frozen {
                    (frozen.reacquiring, frozen.last_run_token) = (false, token);
                }
                self.notice(Notice::Relock(Step::Relocked { token }));
                self.offer_thaw(now);
            }
            Ok(false) => {
                let cause = "another client may have held the lock in between";
                self.terminate_tree(TerminationReason::Lost(cause.into()), now, now);
            }
            Err(trouble @ Trouble::Uncertain { .. }) => self.relock_failed(Request::VerifyContinuity, trouble, now),
            Err(trouble) => self.terminate_tree(TerminationReason::Lost(trouble.into_cause()), now, now),
        }
    }

    /// Handles a request that failed while the lock is acquired again.
    pub(super) fn relock_failed(&mut self, request: Request, trouble: Trouble, now: Instant) {
        match trouble {
            Trouble::Uncertain { cause, hint, .. } => {
                self.remember_cause(cause, hint);
                self.requests.retry(request, now);
            }
            Trouble::Lost(_) => {
                self.lease = None;
                self.requests.retry(Request::Enter, now);
            }
            trouble => self.terminate_tree(TerminationReason::Lost(trouble.into_cause()), now, now),
        }
    }
}
