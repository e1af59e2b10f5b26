//! What the report tells of a run, counted from what the keeper says. Pure: no clock is read.

use std::time::Duration;

use distlock_core::error::Kind;
use distlock_core::messages::{Account, FromKeeper, Notice, Step, Verdict};
use distlock_core::time::Instant;

/// What is known of a run at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The last fencing token.
    pub token: Option<u64>,
    /// How long the lock was sought, all times together.
    pub waited: Duration,
    /// How long it was held, from the server's word to the release, all times together.
    pub held: Duration,
    /// How often it was lost.
    pub losses: u32,
    /// How often the command was run anew.
    pub restarts: u32,
    /// What the keeper alone knows; None when it died.
    pub account: Option<Account>,
}

impl Facts {
    /// What is left of it when there was no lock to wait for, to hold or to renew.
    #[must_use]
    pub(crate) fn without_lock(self) -> Self {
        Self { account: self.account, ..Self::default() }
    }
}

/// The count.
#[derive(Debug)]
pub(crate) struct Tally {
    facts: Facts,
    holding: bool,
    /// The beginning of what lasts now: seeking the lock, or holding it.
    since: Instant,
}

impl Tally {
    /// Begins with the search for the lock.
    #[must_use]
    pub(crate) fn new(now: Instant) -> Self {
        Self { facts: Facts::default(), holding: false, since: now }
    }

    /// Takes in what the keeper says.
    pub(crate) fn hear(&mut self, message: &FromKeeper, now: Instant) {
        match message {
            FromKeeper::Notice(Notice::Acquired { token }) => {
                self.turn(true, now);
                self.facts.token = Some(*token);
            }
            FromKeeper::Notice(Notice::Relock(Step::Relocked { token })) => {
                self.facts.losses += 1;
                self.facts.token = Some(*token);
            }
            FromKeeper::Notice(Notice::Rejoining(_)) => self.lose(now),
            FromKeeper::Notice(Notice::Restarting(_)) => {
                self.lose(now);
                self.facts.restarts += 1;
            }
            FromKeeper::Account(account) => self.facts.account = Some(account.clone()),
            _ => {}
        }
    }

    /// All is over, with this verdict.
    #[must_use]
    pub(crate) fn close(mut self, verdict: &Verdict, now: Instant) -> Facts {
        if matches!(verdict, Verdict::Failed(failure) if failure.kind == Kind::Lost) {
            self.lose(now);
        } else {
            self.turn(false, now);
        }
        self.facts
    }

    fn lose(&mut self, now: Instant) {
        self.facts.losses += u32::from(self.holding);
        self.turn(false, now);
    }

    fn turn(&mut self, holding: bool, now: Instant) {
        let spent = now.since(self.since);
        *(if self.holding { &mut self.facts.held } else { &mut self.facts.waited }) += spent;
        (self.holding, self.since) = (holding, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use distlock_core::error::Failure;

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(1_000 + seconds))
    }

    fn told(messages: &[(u64, FromKeeper)]) -> Tally {
        let mut tally = Tally::new(at(0));
        for (when, message) in messages {
            tally.hear(message, at(*when));
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
    fn a_plain_run_waits_and_holds() {
        let facts =
            told(&[(3, FromKeeper::Notice(Notice::Acquired { token: 7 })), (3, FromKeeper::Notice(Notice::Started))])
                .close(&Verdict::Exited(0), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses, facts.restarts), ((3, 7), Some(7), 0, 0));
    }

    #[test]
    fn a_lock_that_was_never_held_was_not_lost() {
        let facts = told(&[(3, FromKeeper::Notice(Notice::Rejoining("x".into())))]).close(&lost(), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses), ((10, 0), None, 0));
    }

    #[test]
    fn every_loss_counts_once() {
        let restarted = [
            (1, FromKeeper::Notice(Notice::Acquired { token: 7 })),
            (5, FromKeeper::Notice(Notice::Restarting("x".into()))),
            (7, FromKeeper::Notice(Notice::Acquired { token: 8 })),
        ];
        let facts = told(&restarted).close(&lost(), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses, facts.restarts), ((3, 7), Some(8), 2, 1));
        let in_vain = told(&restarted[..2]).close(&lost(), at(10));
        assert_eq!((times(&in_vain), in_vain.losses), ((6, 4), 1));
        let relocked = [
            (1, FromKeeper::Notice(Notice::Acquired { token: 7 })),
            (5, FromKeeper::Notice(Notice::Relock(Step::Relocked { token: 9 }))),
        ];
        let facts = told(&relocked).close(&Verdict::Exited(0), at(10));
        assert_eq!((times(&facts), facts.token, facts.losses, facts.restarts), ((1, 9), Some(9), 1, 0));
    }
}
