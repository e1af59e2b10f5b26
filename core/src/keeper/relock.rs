//! `--on-lost restart` and `--on-lost relock`: the ways back.
//!
//! Restart begins anew once nothing is left of the command. Relock freezes the command instead of ending it, and lets it
//! go on only if the lease turns out to be alive, or the lock was taken again and nobody else can have held it meanwhile.

use std::time::Duration;

use super::{Action, Machine, Phase, Reason};
use crate::backoff;
use crate::duration::show;
use crate::keeper::requests::Request;
use crate::lease::{KILL_BUDGET, KILL_INTERVAL, Lease};
use crate::messages::{FromKeeper, Notice, Step};
use crate::outcome::{Outcome, Position, Queue, Trouble};
use crate::plan::OnLost;
use crate::time::Instant;

/// The way back is given this much, even by `--try`.
const MIN_FROZEN: Duration = Duration::from_secs(3);
/// A command whose lock is known to be lost and that does not stand still by then is killed: to stop it takes as long as
/// to kill it, and as much is budgeted for it.
const FREEZE_AT_ONCE: Duration = KILL_BUDGET;

/// The pause before the second of runs that are lost one after the other, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The runs that `--on-lost restart` adds. Runs that lose the lock at once, as when each deletes it, come with growing
/// pauses between them.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    count: u32,
    /// Since when the lock is held, and for how long a lease of it lasts.
    held: Option<(Instant, Duration)>,
    pause: Duration,
}

impl Restarts {
    /// The lock is held; a lease of it lasts for `ttl`.
    pub(super) fn held(&mut self, ttl: Duration, now: Instant) {
        self.held = Some((now, ttl));
    }

    /// The lock is lost again: how long to pause before it is sought. A run that outlived a lease of it is no sign that
    /// the next one fails at once.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        self.count = self.count.saturating_add(1);
        self.pause = match self.held.take() {
            Some((since, ttl)) if now.since(since) < ttl => backoff::next(self.pause, FIRST_PAUSE, ttl),
            _ => Duration::ZERO,
        };
        self.pause
    }
}

/// A command that is being kept from running while its lock is uncertain.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    since: Instant,
    /// It is killed unless it stands still by then.
    kill_at: Instant,
    next_pass: Instant,
    stage: Stage,
    /// The lease that the command ran under is gone for good. No other counts before it is proved that nobody else held
    /// the lock in between.
    regaining: bool,
    /// The token of the lock that it ran under. Those of locks that were had since, and not proved, count for nothing.
    ran_under: u64,
    cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Not all of it has stopped yet.
    Stopping,
    /// It stands still.
    Still,
    /// The lock is sure again, and the supervisor is told the deadlines.
    Offered,
}

impl Machine {
    // ---- restart ---------------------------------------------------------------------------------------------------

    /// Whether a loss is followed by another run. Not after a signal: the user wants it to end.
    pub(super) fn restarts(&self) -> bool {
        let left = self.plan.restarts.is_none_or(|most| self.restarts.count < most);
        self.plan.on_lost == OnLost::Restart && left && !self.orphaned && !self.signaled
    }

    /// The runs that were all in vain, where no more are allowed.
    pub(super) fn used_up(&self) -> Option<String> {
        let count = self.plan.restarts.filter(|most| *most > 0 && self.restarts.count >= *most)?;
        Some(format!("it was lost again after {count} restart{}", if count == 1 { "" } else { "s" }))
    }

    /// Nothing is left of the command: give the old contender up, and be a new one.
    pub(super) fn restart(&mut self, cause: String, now: Instant) {
        self.abandon_all();
        self.actions.push(Action::AbandonContender);
        self.notice(Notice::Restarting(cause.clone()));
        let pause = self.restarts.next(now);
        if !pause.is_zero() {
            self.notice(Notice::Note(format!("the lock was not held for long; a pause of {}", show(pause))));
        }
        (self.phase, self.lease, self.stop, self.queue, self.entered) = (Phase::Seeking, None, None, None, false);
        // The wait begins after the pause.
        (self.loss, self.started) = (Some(cause), now + pause);
        self.calls.schedule(Request::Enter, now + pause);
    }

    // ---- relock ----------------------------------------------------------------------------------------------------

    /// Whether a loss, or the soft deadline, freezes the command instead of ending it.
    pub(super) fn relocks(&self) -> bool {
        self.plan.on_lost == OnLost::Relock && self.stop.is_none() && !self.orphaned
    }

    pub(super) fn freeze(&mut self, cause: String, kill_at: Instant, now: Instant) {
        if self.frozen.is_none() {
            let stage = Stage::Stopping;
            let ran_under = self.token;
            self.frozen =
                Some(Frozen { since: now, kill_at, next_pass: now, stage, regaining: false, ran_under, cause });
            self.check_frozen(now);
        }
    }

    /// When the frozen command needs attention.
    pub(super) fn wake_frozen(&self) -> Option<Instant> {
        let frozen = self.frozen.as_ref()?;
        let waited = self.plan.wait.map(|wait| frozen.since + wait.max(MIN_FROZEN));
        let next = match frozen.stage {
            Stage::Stopping => Some(frozen.next_pass),
            Stage::Still => None,
            Stage::Offered => self.lease.as_ref().map(|lease| lease.deadlines().soft),
        };
        waited.into_iter().chain(next).min()
    }

    pub(super) fn check_frozen(&mut self, now: Instant) {
        let wait = self.plan.wait;
        let Some(frozen) = &mut self.frozen else { return };
        let too_long = wait.is_some_and(|wait| now >= frozen.since + wait.max(MIN_FROZEN));
        let too_late = frozen.stage == Stage::Stopping && now >= frozen.kill_at;
        if self.stop.is_none() && (too_long || too_late) {
            let cause = frozen.cause.clone();
            return self.end(Reason::Lost(cause), now, now);
        }
        if frozen.stage == Stage::Stopping && now >= frozen.next_pass {
            frozen.next_pass = now + KILL_INTERVAL;
            self.actions.push(Action::Freeze);
        }
        let soft = self.lease.as_ref().map(|lease| lease.deadlines().soft);
        if frozen.stage == Stage::Offered && soft.is_some_and(|soft| now >= soft) {
            self.still();
        }
    }

    /// It stands still, and no deadline counts: what was offered before is void.
    fn still(&mut self) {
        if let Some(frozen) = &mut self.frozen {
            frozen.stage = Stage::Still;
            self.notice(Notice::Relock(Step::Frozen));
        }
    }

    /// All of the command has stopped.
    pub(super) fn stands_still(&mut self, now: Instant) {
        if self.frozen.as_ref().is_some_and(|frozen| frozen.stage == Stage::Stopping) {
            self.still();
            // The lock may be sure again already.
            self.offer_thaw(now);
        }
    }

    /// A frozen command may go on once the lock is sure, with time left, and the supervisor knows until when. Each renewal
    /// makes a new offer: a supervisor that is stopped is to find the newest.
    pub(super) fn offer_thaw(&mut self, now: Instant) {
        let ready = self.lease.as_ref().filter(|lease| lease.may_start(now)).map(Lease::deadlines);
        if let (Some(frozen), Some(deadlines)) = (&mut self.frozen, ready)
            && frozen.stage != Stage::Stopping
            && !frozen.regaining
        {
            frozen.stage = Stage::Offered;
            self.offer = Some(deadlines);
            self.tell(FromKeeper::Deadlines(deadlines));
        }
    }

    pub(super) fn thaw(&mut self, now: Instant) {
        let fresh = self.lease.as_ref().is_some_and(|lease| lease.may_start(now));
        if fresh && self.stop.is_none() && self.frozen.as_ref().is_some_and(|frozen| frozen.stage == Stage::Offered) {
            self.frozen = None;
            self.actions.push(Action::Thaw);
            self.notice(Notice::Relock(Step::Thawed));
        }
    }

    /// The lease is gone for good: take the lock again, as a new contender, while the command stands still.
    pub(super) fn reacquire(&mut self, cause: String, now: Instant) {
        self.abandon_all();
        self.lease = None;
        let kill_at = now + FREEZE_AT_ONCE;
        self.freeze(cause, kill_at, now);
        if let Some(frozen) = &mut self.frozen {
            frozen.kill_at = frozen.kill_at.min(kill_at);
            frozen.regaining = true;
            if frozen.stage == Stage::Offered {
                self.still();
            }
        }
        self.notice(Notice::Relock(Step::Uncertain("the lease is gone; taking the lock again".into())));
        self.calls.schedule(Request::Enter, now);
    }

    /// The token of the lock that the frozen command ran under: since then nobody else may have held it.
    #[must_use]
    pub fn ran_under(&self) -> u64 {
        self.frozen.as_ref().map_or(self.token, |frozen| frozen.ran_under)
    }

    /// Where the new contender stands. Behind somebody is too late: that one holds the lock, or will.
    pub(super) fn replaced(&mut self, place: &Position, now: Instant) {
        match place {
            Position::Held { token, .. } => {
                self.token = *token;
                self.calls.schedule(Request::VerifyContinuity, now);
                self.calls.schedule(Request::Watch, now);
            }
            // Nobody holds it and nobody is before us: it will be ours.
            Position::Queued(Queue { lock_delay: true, .. } | Queue { ahead: Some(0), holder: None, .. }) => {
                self.calls.schedule(Request::Wait, now);
            }
            Position::Queued(_) => self.end(Reason::Lost("somebody else got the lock".into()), now, now),
        }
    }

    /// Whether nobody else held the lock in between.
    pub(super) fn continuity_verified(&mut self, outcome: Outcome<bool>, now: Instant) {
        if self.calls.done(Request::VerifyContinuity).is_none() {
            return;
        }
        match outcome {
            Ok(true) => {
                self.calls.succeeded(Request::VerifyContinuity);
                let token = self.token;
                if let Some(frozen) = &mut self.frozen {
                    (frozen.regaining, frozen.ran_under) = (false, token);
                }
                self.notice(Notice::Relock(Step::Relocked { token }));
                self.offer_thaw(now);
            }
            Ok(false) => self.end(Reason::Lost("somebody else may have held the lock in between".into()), now, now),
            Err(Trouble::Uncertain { cause, .. }) => {
                let _ = self.remember(cause);
                self.calls.retry(Request::VerifyContinuity, now);
            }
            Err(trouble) => self.end(Reason::Lost(trouble.into_cause()), now, now),
        }
    }

    /// What went wrong on the way back.
    pub(super) fn not_yet_back(&mut self, request: Request, trouble: Trouble, now: Instant) {
        match trouble {
            Trouble::Uncertain { cause, .. } => {
                let _ = self.remember(cause);
                self.calls.retry(request, now);
            }
            Trouble::Lost(_) => {
                self.lease = None;
                self.calls.retry(Request::Enter, now);
            }
            trouble => self.end(Reason::Lost(trouble.into_cause()), now, now),
        }
    }
}
