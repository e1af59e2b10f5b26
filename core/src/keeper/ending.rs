//! The end: giving up the wait, giving up the lock, and what is said of it.

use super::{Action, MIN_RELEASE, Machine, Phase};
use crate::duration::show;
use crate::error::{AFTER_LOSS, Failure, Kind};
use crate::keeper::requests::Request;
use crate::lease::MAX_RELEASE;
use crate::messages::{FromKeeper, Notice, Verdict};
use crate::outcome::{Outcome, Queue, Trouble};
use crate::plan::Plan;
use crate::time::Instant;

impl Machine {
    pub(super) fn give_up(&mut self, now: Instant) {
        let name = &self.plan.name;
        let failure = if let Some(cause) = &self.loss {
            let message =
                format!("the lock {name} was lost, and not acquired again in {:.1?}", now.since(self.started));
            let mut failure = Failure::new(Kind::Lost, message).because(cause).hint(AFTER_LOSS);
            failure.causes.extend(self.causes.iter().cloned());
            failure
        } else if let Some(queue) = &self.queue {
            busy(name, queue, &self.plan)
        } else {
            self.not_served(now)
        };
        self.conclude(Verdict::Failed(failure), now);
    }

    /// Nobody could grant a lock, or even answer.
    fn not_served(&self, now: Instant) -> Failure {
        let what = if self.answered { "grant a lock" } else { "be reached" };
        let waited = now.since(self.started);
        let mut failure = Failure::new(Kind::Unreachable, format!("no server could {what} in {waited:.1?}"));
        failure.causes.clone_from(&self.causes);
        failure.hint(self.hint.clone().unwrap_or_else(|| {
            format!(
                "check the addresses from {}, and that the servers have a leader; distlock doctor asks each of them",
                self.plan.endpoints_source
            )
        }))
    }

    /// Somebody asked for the end of it.
    pub(super) fn broken(&self, by: &str) -> Verdict {
        let end = if self.alive() { "and the command ended" } else { "before the command ran" };
        let message = format!("the lock {} was broken {end}", self.plan.name);
        Verdict::Failed(Failure::new(Kind::Broken, message).because(format!("asked to stop by {by}")))
    }

    /// The command is over or never will be: give up what stands on the server, then finish.
    pub(super) fn conclude(&mut self, verdict: Verdict, now: Instant) {
        if matches!(self.phase, Phase::Releasing(_) | Phase::Done) {
            return;
        }
        let verdict = self.weighed(verdict);
        // A renewal in flight must not bring back what is released.
        self.abandon_all();
        // The supervisor knows deadlines, which concern nobody any more.
        if self.alive() || matches!(self.phase, Phase::Held { offered: true, .. }) {
            self.tell(FromKeeper::Ended(verdict.clone()));
        }
        if !self.entered {
            return self.finish(verdict);
        }
        self.phase = Phase::Releasing(verdict);
        self.calls.schedule_until(Request::Release, now, self.release_limit(now));
    }

    /// Whatever ends the search for a lock that was lost: the loss weighs more.
    fn weighed(&self, verdict: Verdict) -> Verdict {
        match (&self.loss, verdict) {
            (Some(cause), Verdict::Failed(failure)) if failure.kind != Kind::Lost => {
                let mut lost = Failure::lost(&self.plan.name, cause).because(failure.message);
                lost.causes.extend(failure.causes);
                Verdict::Failed(Failure { hint: failure.hint.or(lost.hint), ..lost })
            }
            (_, verdict) => verdict,
        }
    }

    /// Where nobody ever answered, somebody may have heard all the same: one short try.
    pub(super) fn release_limit(&self, now: Instant) -> Instant {
        let hard = self.lease.as_ref().map_or(now + MAX_RELEASE, |lease| lease.deadlines().hard);
        let most = if self.answered { MAX_RELEASE } else { MIN_RELEASE };
        hard.min(now + most).max(now + MIN_RELEASE)
    }

    pub(super) fn release_until(&self, now: Instant) -> Instant {
        self.calls.until(Request::Release).unwrap_or(now + MAX_RELEASE)
    }

    pub(super) fn released(&mut self, outcome: Outcome<()>, now: Instant) {
        let _ = self.calls.done(Request::Release);
        let Phase::Releasing(verdict) = &self.phase else { return };
        let verdict = verdict.clone();
        match outcome {
            Err(Trouble::Uncertain { cause, .. }) if self.answered && now < self.release_until(now) => {
                let _ = self.remember(cause);
                self.calls.retry(Request::Release, now);
            }
            Err(Trouble::Lost(cause)) if matches!(verdict, Verdict::Exited(_) | Verdict::Signaled(_)) => {
                let message = format!("the lock {} was lost before the command ended", self.plan.name);
                self.finish(Verdict::Failed(Failure::new(Kind::Lost, message).because(cause).hint(AFTER_LOSS)));
            }
            Err(Trouble::Uncertain { .. }) if lost(&verdict) => {
                // Nobody is to wait for a lease that is abandoned, so the keeper stays to end it.
                self.actions.push(Action::AbandonContender);
                self.finish(verdict);
            }
            Err(Trouble::Uncertain { cause, .. }) => {
                self.notice(Notice::Note(format!("could not release the lock, its lease will end by itself: {cause}")));
                self.finish(verdict);
            }
            Err(Trouble::Fatal(failure)) => {
                self.notice(Notice::Note(format!("could not release the lock: {failure}")));
                self.finish(verdict);
            }
            Ok(()) => {
                // Without a lock there is no token either.
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

    pub(super) fn abandon_all(&mut self) {
        for request in Request::ALL {
            if self.calls.abandon(request) {
                self.actions.push(Action::Abandon(request));
            }
        }
    }

    /// Keeps the last few causes, for the message that ends it all. Whether this is a new one.
    pub(super) fn remember(&mut self, cause: String) -> bool {
        let known = self.causes.len();
        self.causes.retain(|known| *known != cause);
        let new = self.causes.len() == known;
        self.causes.push(cause);
        if self.causes.len() > 4 {
            self.causes.remove(0);
        }
        new
    }
}

fn lost(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Failed(Failure { kind: Kind::Lost | Kind::Broken, .. }))
}

fn busy(name: &str, queue: &Queue, plan: &Plan) -> Failure {
    let who = match &queue.holder {
        _ if queue.lock_delay => "is closed by the lock-delay of a session that ended".to_owned(),
        Some(holder) => format!("is held by {}", holder.describe(&plan.time_zone)),
        None => "is held by somebody else".to_owned(),
    };
    let waited = match plan.wait {
        Some(wait) if !wait.is_zero() => format!("; not acquired within {}", show(wait)),
        _ => String::new(),
    };
    let failure = Failure::new(Kind::Busy, format!("{name} {who}{waited}"));
    if queue.lock_delay { failure.hint("it opens by itself: wait for longer with --wait") } else { failure }
}
