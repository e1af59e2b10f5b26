//! The deadlines: when the supervisor kills the tree itself, and when it gives up on the keeper.

use std::time::Duration;

use super::events::Action;
use super::state::{KeeperState, Kill, Machine, Phase};
use crate::lease::{KILL_BUDGET, KILL_INTERVAL, KILL_INTERVAL_STUCK};
use crate::messages::Notice;
use crate::time::Instant;

/// A supervisor that checks a kill deadline later than this was stopped. The link may hold old messages only, so the
/// keeper gets as long to send its newest deadlines.
const LATE: Duration = Duration::from_millis(100);

impl Machine {
    pub(super) fn check_deadlines(&mut self, now: Instant) {
        if self.keeper_exit_deadline.is_some_and(|at| now >= at) {
            self.keeper_exit_deadline = None;
            if !self.keeper_lingers {
                self.actions.push(Action::KillKeeper);
            }
            // Without a release, the exit of the keeper decides what is left to do.
            if self.lock_released {
                return self.finish();
            }
        }
        self.check_kill_deadline(now);
        self.check_kill_request(now);
        self.continue_kill(now);
    }

    fn check_kill_deadline(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Armed | Phase::Running)
            && self.kill.is_none()
            && let Some(deadlines) = self.deadlines
            && now >= deadlines.kill
        {
            let late = self.keeper == KeeperState::Connected && now.since(deadlines.kill) > LATE;
            let next = if late { now + LATE } else { now };
            self.kill = Some(Kill { since: now, next });
        }
    }

    /// Kills the tree if the keeper has not reacted to the user's request to do so.
    fn check_kill_request(&mut self, now: Instant) {
        if let Some(deadline) = self.kill_request_deadline()
            && now >= deadline
            && self.kill.is_none()
        {
            self.kill = Some(Kill { since: deadline - KILL_BUDGET, next: now });
        }
    }

    fn continue_kill(&mut self, now: Instant) {
        let keeper_alive = !self.keeper_exited();
        let Some(kill) = &mut self.kill else { return };
        if now < kill.next {
            return;
        }
        let age = now.since(kill.since);
        // A keeper that kills the tree reports it immediately. A silent one is stopped or hangs.
        let silence_limit = KILL_BUDGET / 2;
        let silent = keeper_alive && age >= silence_limit && now.since(self.last_message_at) >= silence_limit;
        let renewed = keeper_alive && !silent && self.deadlines.is_some_and(|deadlines| now < deadlines.kill);
        kill.next = now + if age < KILL_BUDGET { KILL_INTERVAL } else { KILL_INTERVAL_STUCK };
        if renewed {
            // A newer deadline arrived late. The keeper reports what was killed until then.
            self.kill = None;
        } else if silent || self.keeper_unresponsive {
            if !std::mem::replace(&mut self.keeper_unresponsive, true) {
                self.show(Notice::KeeperLost("the keeper process did not respond".into()));
                self.verdict = Some(self.lost_verdict("the keeper process did not respond"));
            }
            self.actions.push(Action::KillAll);
        } else {
            self.actions.push(if keeper_alive { Action::KillTree } else { Action::KillAll });
        }
        if !keeper_alive && age >= KILL_BUDGET {
            // No keeper is left to report them, nor to renew: they live on after the lease expires.
            self.actions.push(Action::ShowStuck);
        }
    }
}
