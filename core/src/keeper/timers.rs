//! Timers: the deadlines that are checked before each event, and the requests that are due.

use std::time::Duration;

use super::events::{Action, Request};
use super::requests::Due;
use super::state::{Machine, Phase, TerminationReason};
use crate::duration::show_rounded;
use crate::lease::{KILL_BUDGET, KILL_INTERVAL, KILL_INTERVAL_STUCK, MAX_REQUEST_TIME};
use crate::messages::{FromKeeper, Notice};
use crate::outcome::Trouble;
use crate::time::Instant;

impl Machine {
    /// Returns when [`super::Event::Tick`] is needed next, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let seeking = self.seeking_deadline().filter(|_| self.seeking());
        let running = self.tree_may_run() && !self.terminating_for_loss() && self.frozen.is_none();
        let soft = self.lease.as_ref().filter(|_| running).map(|lease| lease.deadlines().soft);
        let frozen = self.wake_frozen().filter(|_| self.tree_may_run() && self.termination.is_none());
        let kill = self
            .termination
            .as_ref()
            .filter(|_| self.tree_may_run())
            .map(|termination| termination.kill_at.max(termination.next_kill));
        let waits = seeking.into_iter().chain(self.warning_due());
        waits.chain(soft).chain(frozen).chain(kill).chain(self.requests.wake()).min()
    }

    /// Returns when the search for the lock ends without success. A lock that is already held gets more time, until
    /// only a renewal could save it; without a lease there is no limit.
    fn seeking_deadline(&self) -> Option<Instant> {
        let until = self.wait_deadline().into_iter().chain(self.connect_deadline()).min()?;
        match self.phase {
            Phase::Seeking => Some(until),
            _ => self.lease.as_ref().map(|lease| lease.start_until().max(until)),
        }
    }

    fn wait_deadline(&self) -> Option<Instant> {
        self.plan.wait.filter(|wait| !wait.is_zero()).map(|wait| self.seeking_since + wait)
    }

    /// Returns when `--connect-timeout` is over. It also limits a single try, which has no other limit.
    fn connect_deadline(&self) -> Option<Instant> {
        let limited = !self.server_answered || (self.plan.wait == Some(Duration::ZERO) && self.queue.is_none());
        limited.then(|| self.seeking_since + self.plan.connect_timeout)
    }

    /// Returns when to warn that servers answer but grant no lock.
    fn warning_due(&self) -> Option<Instant> {
        let unserved = self.seeking() && self.server_answered && !self.accepted_once && !self.warned_not_served;
        unserved.then(|| self.seeking_since + self.plan.connect_timeout)
    }

    pub(super) fn check_deadlines(&mut self, now: Instant) {
        if self.tree_may_run() {
            self.check_lease(now);
            self.check_frozen(now);
            self.check_termination(now);
        }
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        if self.seeking() && is_over(self.seeking_deadline()) {
            self.end_search(now);
        } else if is_over(self.warning_due()) {
            self.warned_not_served = true;
            self.notice(Notice::NotServed(self.recent_causes().last().unwrap_or_default()));
        }
    }

    fn check_lease(&mut self, now: Instant) {
        let Some(lease) = &self.lease else { return };
        let deadlines = lease.deadlines();
        if now < deadlines.soft || self.terminating_for_loss() || self.frozen.is_some() {
            return;
        }
        let window = show_rounded(lease.terms().renewal_window());
        let cause = format!("no renewal was confirmed within {window}");
        if self.relock_allowed() {
            self.freeze(cause, deadlines.kill, now);
        } else {
            self.terminate_tree(TerminationReason::Lost(cause), deadlines.kill, now);
        }
    }

    pub(super) fn check_termination(&mut self, now: Instant) {
        let Some(termination) = &mut self.termination else { return };
        if now < termination.kill_at || now < termination.next_kill {
            return;
        }
        let overdue = now >= termination.kill_at + KILL_BUDGET;
        let first = termination.next_kill <= termination.kill_at;
        termination.next_kill = now + if overdue { KILL_INTERVAL_STUCK } else { KILL_INTERVAL };
        self.send(if first { FromKeeper::Notice(Notice::Ending("killed".into())) } else { FromKeeper::Killing });
        self.actions.push(Action::KillTree { overdue });
    }

    /// Sends the requests that are due, and abandons those that timed out.
    pub(super) fn run_requests(&mut self, now: Instant) {
        if let Some(lease) = &self.lease
            && !matches!(self.phase, Phase::Releasing(_) | Phase::Done)
            && self.requests.idle(Request::Renew)
        {
            self.requests.schedule(Request::Renew, lease.due());
        }
        while let Some(due) = self.requests.next_due(now) {
            match due {
                Due::Begin(request) => {
                    let limit = self.request_limit(request, now);
                    self.requests.begin(request, limit);
                    self.may_have_entered |= request == Request::Enter;
                    self.actions.push(Action::Begin(request));
                }
                Due::TimedOut(request) => {
                    self.requests.abandon(request);
                    self.actions.push(Action::Abandon(request));
                    self.actions.push(Action::NextEndpoint(request));
                }
            }
        }
    }

    fn request_limit(&self, request: Request, now: Instant) -> Option<Instant> {
        match request {
            Request::Enter | Request::VerifyContinuity => Some(now + MAX_REQUEST_TIME),
            Request::Renew => self.lease.as_ref().map(|lease| now + lease.request_limit(now)),
            Request::Release => Some(self.release_retries_until(now).min(now + MAX_REQUEST_TIME)),
            // They return only after a change; renewals show whether their connection is alive.
            Request::Wait | Request::Watch => None,
        }
    }

    pub(super) fn request_timed_out(&mut self, request: Request, endpoint: &str, now: Instant) {
        let timeout = Trouble::no_answer(format!("{endpoint}: no answer in time"));
        // The request was abandoned when its time was over. What happened since may have made it pointless.
        let relocking = self.frozen.is_some() && self.termination.is_none();
        match request {
            Request::Enter if self.seeking() || relocking => self.seeking_failed(request, timeout, now),
            Request::Renew => {
                self.renewed(Err(timeout), now);
                self.move_to_next_endpoint(now);
            }
            Request::VerifyContinuity if relocking => self.relock_failed(request, timeout, now),
            Request::Release => self.released(Err(timeout), now),
            Request::Enter | Request::VerifyContinuity | Request::Wait | Request::Watch => {}
        }
    }

    /// Sends the wait and the watch again. On the connection that did not answer the renewal they might never return.
    fn move_to_next_endpoint(&mut self, now: Instant) {
        for request in [Request::Wait, Request::Watch] {
            if self.requests.idle(request) {
                continue;
            }
            if self.requests.abandon(request) {
                self.actions.push(Action::Abandon(request));
            }
            self.requests.schedule(request, now);
        }
    }
}
