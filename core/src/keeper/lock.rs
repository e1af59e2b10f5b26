//! What the backend's answers mean: positions in the queue, renewals, the watch.

use std::time::Duration;

use super::events::Request;
use super::state::{Machine, Phase, TerminationReason};
use crate::error::{Failure, Kind};
use crate::lease::{Lease, Terms, WindowTooShort};
use crate::messages::{FromKeeper, Notice, Step, Verdict};
use crate::outcome::{Granted, Outcome, Position, Trouble};
use crate::time::Instant;

impl Machine {
    pub(super) fn entered(&mut self, outcome: Outcome<(Granted, Position)>, now: Instant) {
        if !self.requests.answered(Request::Enter) {
            return;
        }
        match outcome {
            Ok((granted, position)) => {
                self.requests.succeeded(Request::Enter);
                let terms = granted.cover.map(|cover| Terms { cover, grace: self.plan.grace });
                if let Some(Err(too_short)) = terms.map(|terms| terms.check()) {
                    return self.lease_too_short(too_short, now);
                }
                self.lease = terms.map(|terms| Lease::new(terms, granted.sent_at));
                self.position_received(position, now);
            }
            Err(trouble) => self.seeking_failed(Request::Enter, trouble, now),
        }
    }

    fn lease_too_short(&mut self, too_short: WindowTooShort, now: Instant) {
        let message = "the lease that the server granted is too short";
        if self.tree_may_run() {
            return self.terminate_tree(TerminationReason::Lost(format!("{message}: {too_short}")), now, now);
        }
        let failure = Failure::usage(message).because(too_short).hint("use a longer --ttl or a shorter --grace");
        self.release(Verdict::Failed(failure), now);
    }

    pub(super) fn wait_returned(&mut self, outcome: Outcome<Position>, now: Instant) {
        if !self.requests.answered(Request::Wait) {
            return;
        }
        match outcome {
            Ok(position) => {
                self.requests.succeeded(Request::Wait);
                self.position_received(position, now);
            }
            Err(trouble) => self.seeking_failed(Request::Wait, trouble, now),
        }
    }

    fn position_received(&mut self, position: Position, now: Instant) {
        if self.frozen.is_some() {
            return self.relock_position_received(&position, now);
        }
        (self.server_answered, self.accepted_once) = (true, true);
        match position {
            Position::Held { token, .. } => {
                if let Some(lease) = &self.lease {
                    self.restarts.lock_acquired(lease.terms().cover, now);
                }
                self.token = token;
                self.phase = Phase::Held { offered: false, acknowledged: false };
                self.notice(Notice::Acquired { token });
                self.requests.schedule(Request::Watch, now);
                self.start_if_ready(now);
            }
            Position::Queued(queue) => {
                self.notice(Notice::Waiting(queue.clone()));
                self.queue = Some(queue);
                if self.plan.wait == Some(Duration::ZERO) {
                    self.end_search(now);
                } else {
                    self.requests.schedule(Request::Wait, now);
                }
            }
        }
    }

    pub(super) fn seeking_failed(&mut self, request: Request, trouble: Trouble, now: Instant) {
        if self.frozen.is_some() {
            return self.relock_failed(request, trouble, now);
        }
        match trouble {
            Trouble::Uncertain { answered, cause, hint } => {
                self.server_answered |= answered;
                if self.remember_cause(cause.clone(), hint) {
                    self.notice(Notice::Note(format!("the lock is not acquired yet; retrying: {cause}")));
                }
                self.requests.retry(request, now);
            }
            Trouble::Lost(cause) => self.rejoin(&cause, now),
            Trouble::Broken(by) => self.release(self.broken_verdict(&by), now),
            Trouble::Fatal(failure) => {
                self.server_answered |= failure.kind != Kind::Unreachable;
                self.release(Verdict::Failed(failure), now);
            }
        }
    }

    /// Enters the queue again. Before the command runs, a lost position or lock does no harm.
    fn rejoin(&mut self, cause: &str, now: Instant) {
        self.notice(Notice::Rejoining(cause.to_owned()));
        self.abandon_all();
        self.lease = None;
        self.phase = Phase::Seeking;
        self.requests.retry(Request::Enter, now);
    }

    pub(super) fn renewed(&mut self, outcome: Outcome<Instant>, now: Instant) {
        self.requests.answered(Request::Renew);
        let seeking = self.seeking();
        let Some(lease) = &mut self.lease else { return };
        match outcome {
            Ok(sent_at) => {
                // The connection works, so the pauses between watches start small again.
                self.requests.succeeded(Request::Watch);
                let moved = lease.renewal_confirmed(sent_at);
                let deadlines = lease.deadlines();
                let offered = !matches!(self.phase, Phase::Seeking | Phase::Held { offered: false, .. });
                // Once the tree is terminated for a loss, no renewal moves its deadlines.
                if moved && offered && !self.terminating_for_loss() && self.frozen.is_none() {
                    self.send(FromKeeper::Deadlines(deadlines));
                }
                self.start_if_ready(now);
                self.offer_thaw(now);
            }
            Err(trouble @ (Trouble::Lost(_) | Trouble::Broken(_))) => {
                lease.renewal_failed(now);
                self.lost_or_broken(trouble, now);
            }
            Err(Trouble::Fatal(failure)) if seeking => self.release(Verdict::Failed(failure), now),
            Err(trouble) => {
                lease.renewal_failed(now);
                let first = lease.failures() == 1;
                let cause = trouble.into_cause();
                if first {
                    self.notice(Notice::Relock(Step::Uncertain(cause.clone())));
                }
                self.remember_cause(cause, None);
            }
        }
    }

    pub(super) fn watch_failed(&mut self, trouble: Trouble, now: Instant) {
        if !self.requests.answered(Request::Watch) {
            return;
        }
        match trouble {
            Trouble::Lost(_) | Trouble::Broken(_) => self.lost_or_broken(trouble, now),
            // A failed watch alone is not a loss: renewals continue, and they check the key as well.
            trouble => {
                self.notice(Notice::Note(format!("the watch failed; retrying: {}", trouble.into_cause())));
                self.requests.retry(Request::Watch, now);
            }
        }
    }

    fn lost_or_broken(&mut self, trouble: Trouble, now: Instant) {
        let kill_deadline = self.lease.as_ref().map(|lease| lease.deadlines().kill);
        match trouble {
            Trouble::Lost(cause) if self.seeking() => self.rejoin(&cause, now),
            Trouble::Broken(by) if self.seeking() => self.release(self.broken_verdict(&by), now),
            _ if !self.tree_may_run() => {}
            Trouble::Lost(cause) if self.relock_allowed() => self.reacquire(cause, now),
            Trouble::Lost(cause) => {
                self.lease = None;
                self.terminate_tree(TerminationReason::Lost(cause), now, now);
            }
            Trouble::Broken(by) => {
                let grace_over = now + self.plan.grace;
                let kill_at = kill_deadline.map_or(grace_over, |deadline| deadline.min(grace_over));
                self.terminate_tree(TerminationReason::Broken(by), kill_at, now);
            }
            Trouble::Uncertain { .. } | Trouble::Fatal(_) => {}
        }
    }
}
