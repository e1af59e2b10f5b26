//! What the backend's answers mean.

use std::time::Duration;

use super::{Machine, Phase, Reason};
use crate::error::{Failure, Kind};
use crate::keeper::requests::Request;
use crate::lease::{Lease, Terms, WindowTooShort};
use crate::messages::{FromKeeper, Notice, Step, Verdict};
use crate::outcome::{Granted, Outcome, Position, Trouble};
use crate::time::Instant;

impl Machine {
    pub(super) fn entered(&mut self, outcome: Outcome<(Granted, Position)>, now: Instant) {
        if self.calls.done(Request::Enter).is_none() && outcome.is_ok() {
            return;
        }
        match outcome {
            Ok((granted, place)) => {
                self.calls.succeeded(Request::Enter);
                let terms = granted.cover.map(|cover| Terms { cover, grace: self.plan.grace });
                if let Some(Err(no_room)) = terms.map(|terms| terms.check()) {
                    return self.granted_too_little(no_room, now);
                }
                self.lease = terms.map(|terms| Lease::new(terms, granted.sent_at));
                if self.frozen.is_some() { self.replaced(&place, now) } else { self.placed(place, now) }
            }
            Err(trouble) if self.frozen.is_some() => self.not_yet_back(Request::Enter, trouble, now),
            Err(trouble) => self.not_yet(Request::Enter, trouble, now),
        }
    }

    fn granted_too_little(&mut self, no_room: WindowTooShort, now: Instant) {
        let message = "the lease that the server granted is too short";
        if self.alive() {
            return self.end(Reason::Lost(format!("{message}: {no_room}")), now, now);
        }
        let failure = Failure::usage(message).because(no_room).hint("ask for a longer --ttl or a shorter --grace");
        self.conclude(Verdict::Failed(failure), now);
    }

    pub(super) fn wait_returned(&mut self, outcome: Outcome<Position>, now: Instant) {
        if self.calls.done(Request::Wait).is_none() {
            return;
        }
        match outcome {
            Ok(place) => {
                self.calls.succeeded(Request::Wait);
                if self.frozen.is_some() { self.replaced(&place, now) } else { self.placed(place, now) }
            }
            Err(trouble) if self.frozen.is_some() => self.not_yet_back(Request::Wait, trouble, now),
            Err(trouble) => self.not_yet(Request::Wait, trouble, now),
        }
    }

    pub(super) fn placed(&mut self, place: Position, now: Instant) {
        (self.answered, self.served) = (true, true);
        match place {
            Position::Held { token, .. } => {
                if let Some(lease) = &self.lease {
                    self.restarts.held(lease.terms().cover, now);
                }
                self.token = token;
                self.phase = Phase::Held { offered: false, acknowledged: false };
                self.notice(Notice::Acquired { token });
                self.calls.schedule(Request::Watch, now);
                self.start_if_ready(now);
            }
            Position::Queued(queue) => {
                self.notice(Notice::Waiting(queue.clone()));
                self.queue = Some(queue);
                if self.plan.wait == Some(Duration::ZERO) {
                    self.give_up(now);
                } else {
                    self.calls.schedule(Request::Wait, now);
                }
            }
        }
    }

    /// The lock is not ours yet, and something went wrong.
    pub(super) fn not_yet(&mut self, request: Request, trouble: Trouble, now: Instant) {
        match trouble {
            Trouble::Uncertain { answered, cause, hint } => {
                self.answered |= answered;
                self.hint = hint.or(self.hint.take());
                if self.remember(cause.clone()) {
                    self.notice(Notice::Note(format!("no lock yet: {cause}")));
                }
                self.calls.retry(request, now);
            }
            Trouble::Lost(cause) => self.rejoin(&cause, now),
            Trouble::Broken(by) => self.conclude(self.broken(&by), now),
            Trouble::Fatal(failure) => {
                self.answered |= failure.kind != Kind::Unreachable;
                self.conclude(Verdict::Failed(failure), now);
            }
        }
    }

    /// The place in the queue is gone, or the lock before the command ran: nothing is hurt, begin anew.
    pub(super) fn rejoin(&mut self, cause: &str, now: Instant) {
        self.notice(Notice::Rejoining(cause.to_owned()));
        self.abandon_all();
        self.lease = None;
        self.phase = Phase::Seeking;
        self.calls.retry(Request::Enter, now);
    }

    pub(super) fn renewed(&mut self, outcome: Outcome<Instant>, now: Instant) {
        let _ = self.calls.done(Request::Renew);
        let seeking = self.seeking();
        let Some(lease) = &mut self.lease else { return };
        match outcome {
            Ok(s) => {
                // The connection is sound, so pauses between watches begin small again.
                self.calls.succeeded(Request::Watch);
                let moved = lease.renewal_confirmed(s);
                let deadlines = lease.deadlines();
                let told = !matches!(self.phase, Phase::Seeking | Phase::Held { offered: false, .. });
                // Once the command is being ended for a loss, no renewal gives it time again.
                if moved && told && !self.losing() && self.frozen.is_none() {
                    self.tell(FromKeeper::Deadlines(deadlines));
                }
                self.start_if_ready(now);
                self.offer_thaw(now);
            }
            Err(trouble @ (Trouble::Lost(_) | Trouble::Broken(_))) => {
                lease.renewal_failed(now);
                self.bad_news(trouble, now);
            }
            Err(Trouble::Fatal(failure)) if seeking => self.conclude(Verdict::Failed(failure), now),
            Err(trouble) => {
                lease.renewal_failed(now);
                let first = lease.failures() == 1;
                let cause = trouble.into_cause();
                if first {
                    self.notice(Notice::Relock(Step::Uncertain(cause.clone())));
                }
                let _ = self.remember(cause);
            }
        }
    }

    pub(super) fn watch_failed(&mut self, trouble: Trouble, now: Instant) {
        if self.calls.done(Request::Watch).is_none() {
            return;
        }
        match trouble {
            Trouble::Lost(_) | Trouble::Broken(_) => self.bad_news(trouble, now),
            trouble => self.watch_again(&trouble.into_cause(), now),
        }
    }

    /// A dead watch alone is no loss. The renewals go on, and they check the key as well.
    pub(super) fn watch_again(&mut self, cause: &str, now: Instant) {
        self.notice(Notice::Note(format!("the watch broke: {cause}")));
        self.calls.retry(Request::Watch, now);
    }

    pub(super) fn bad_news(&mut self, trouble: Trouble, now: Instant) {
        let deadline = self.lease.as_ref().map(|lease| lease.deadlines().kill);
        match (&self.phase, trouble) {
            (Phase::Seeking | Phase::Held { .. }, Trouble::Lost(cause)) => self.rejoin(&cause, now),
            (Phase::Seeking | Phase::Held { .. }, Trouble::Broken(by)) => self.conclude(self.broken(&by), now),
            (Phase::Starting | Phase::Running | Phase::Clearing(_), Trouble::Lost(cause)) if self.relocks() => {
                self.reacquire(cause, now);
            }
            (Phase::Starting | Phase::Running | Phase::Clearing(_), Trouble::Lost(cause)) => {
                self.lease = None;
                self.end(Reason::Lost(cause), now, now);
            }
            (Phase::Starting | Phase::Running | Phase::Clearing(_), Trouble::Broken(by)) => {
                let kill_at = now + self.plan.grace;
                self.end(Reason::Broken(by), deadline.map_or(kill_at, |deadline| deadline.min(kill_at)), now);
            }
            _ => {}
        }
    }
}
