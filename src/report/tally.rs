//! The counts of a run for the report, from the keeper's messages. Pure: no clock is read.

use std::time::Duration;

use distlock_core::error::Kind;
use distlock_core::messages::{Account, FromKeeper, Notice, Step, Verdict};
use distlock_core::time::Instant;

/// Counts of a run at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Last fencing token.
    pub token: Option<u64>,
    /// Total time spent on acquiring the lock.
    pub waited: Duration,
    /// Total time for which the lock was held.
    pub held: Duration,
    /// How often the lock was lost.
    pub losses: u32,
    /// How often the command was started again.
    pub restarts: u32,
    /// What only the keeper knows; None if it died.
    pub account: Option<Account>,
}

impl Facts {
    /// Returns the facts of a run without a lock.
    #[must_use]
    pub(crate) fn without_lock(self) -> Self {
        Self { account: self.account, ..Self::default() }
    }
}

#[derive(Debug)]
pub(crate) struct Tally {
    facts: Facts,
    holding: bool,
    /// When the current search or hold began.
    since: Instant,
}

impl Tally {
    /// Starts the counts with the search for the lock.
    #[must_use]
    pub(crate) fn new(now: Instant) -> Self {
        Self { facts: Facts::default(), holding: false, since: now }
    }

    pub(crate) fn record(&mut self, message: &FromKeeper, now: Instant) {
        match message {
            FromKeeper::Notice(Notice::Acquired { token }) => {
                self.switch(true, now);
                self.facts.token = Some(*token);
            }
            FromKeeper::Notice(Notice::Relock(Step::Relocked { token })) => {
                self.facts.losses += 1;
                self.facts.token = Some(*token);
            }
            FromKeeper::Notice(Notice::Rejoining(_)) => self.record_loss(now),
            FromKeeper::Notice(Notice::Restarting(_)) => {
                self.record_loss(now);
                self.facts.restarts += 1;
            }
            FromKeeper::Account(account) => self.facts.account = Some(account.clone()),
            _ => {}
        }
    }

    /// Ends the counts at `now`.
    #[must_use]
    pub(crate) fn close(mut self, verdict: &Verdict, now: Instant) -> Facts {
        if matches!(verdict, Verdict::Failed(failure) if failure.kind == Kind::Lost) {
            self.record_loss(now);
        } else {
            self.switch(false, now);
        }
        self.facts
    }

    fn record_loss(&mut self, now: Instant) {
        self.facts.losses += u32::from(self.holding);
        self.switch(false, now);
    }

    fn switch(&mut self, holding: bool, now: Instant) {
        let elapsed = now.since(self.since);
        *(if self.holding { &mut self.facts.held } else { &mut self.facts.waited }) += elapsed;
        (self.holding, self.since) = (holding, now);
    }
}

#[cfg(test)]
mod tests {
    use distlock_core::error::Failure;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(1_000 + seconds))
    }

    fn tally_of(messages: &[(u64, FromKeeper)]) -> Tally {
        let mut tally = Tally::new(at(0));
        for (when, message) in messages {
            tally.record(message, at(*when));
        }
        tally
    }

    fn lost() -> Verdict {
        Verdict::Failed(Failure::new(Kind::Lost, "lost"))
    }

    fn times(facts: &Facts) -> (u64, u64) {
        (facts.waited.as_secs(), facts.held.as_secs())
    }

    #[test]
    fn plain_run_waits_and_holds() {
        let facts = tally_of(&[
            (3, FromKeeper::Notice(Notice::Acquired { token: 7 })),
            (3, FromKeeper::Notice(Notice::Started)),
        ])
        .close(&Verdict::Exited(0), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses, facts.restarts), ((3, 7), Some(7), 0, 0));
    }

    #[test]
    fn lock_never_held_is_not_lost() {
        let facts = tally_of(&[(3, FromKeeper::Notice(Notice::Rejoining("x".into())))]).close(&lost(), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses), ((10, 0), None, 0));
    }

    #[test]
    fn each_loss_counts_once() {
        let restarted = [
            (1, FromKeeper::Notice(Notice::Acquired { token: 7 })),
            (5, FromKeeper::Notice(Notice::Restarting("x".into()))),
            (7, FromKeeper::Notice(Notice::Acquired { token: 8 })),
        ];
        let facts = tally_of(&restarted).close(&lost(), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses, facts.restarts), ((3, 7), Some(8), 2, 1));
        let not_acquired = tally_of(&restarted[..2]).close(&lost(), at(10));
        assert_eq!((times(&not_acquired), not_acquired.losses), ((6, 4), 1));
        let relocked = [
            (1, FromKeeper::Notice(Notice::Acquired { token: 7 })),
            (5, FromKeeper::Notice(Notice::Relock(Step::Relocked { token: 9 }))),
        ];
        let facts = tally_of(&relocked).close(&Verdict::Exited(0), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses, facts.restarts), ((1, 9), Some(9), 1, 0));
    }
}
