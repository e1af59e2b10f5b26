//! Renewal of the lease, confirmed as rule 1 demands.

use std::rc::Rc;

use distlock_core::etcd::terms_confirm_renewal;
use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

use super::contender::Contender;
use super::keep_alive::{Renewal, RenewalAttempt, RenewalRequest};

impl Contender {
    /// Renews the lease and returns `sent_at` of the renewal. Unanswered renewals of earlier calls continue: a late
    /// reply counts with its own `sent_at`, and on a slow network all replies are late.
    pub(super) async fn renew_lease(&self) -> Outcome<Instant> {
        let lease = self.lease();
        // Taken out while in use, so that a stream whose renewal is dropped halfway is not used again.
        let idle = self.keep_alive.borrow_mut().take().filter(|stream| stream.is_usable(&self.client, lease));
        let previous_term = self.state.borrow().term;
        let request = RenewalRequest { lease, key: self.key(), keys_ahead: self.keys_ahead(), previous_term };
        self.renewals.add(request.send(Rc::clone(&self.client), idle));
        let attempt = self.renewals.first_answer().await?;
        self.renewals.clear();
        self.confirm_renewal(attempt)
    }

    fn confirm_renewal(&self, attempt: RenewalAttempt) -> Outcome<Instant> {
        let RenewalAttempt { previous_term, renewal: Renewal { sent_at, term }, read, stream } = attempt;
        let read_term = read.term;
        let own = self.confirmed(read)?;
        let mut state = self.state.borrow_mut();
        state.term = read_term;
        if terms_confirm_renewal(previous_term, term, read_term) && own.lease == state.leases.bound() {
            self.keep_alive.replace(Some(stream));
            return Ok(sent_at);
        }
        // The next call changes the lease, with its whole time limit.
        state.leases.begin_change();
        Err(Trouble::inconclusive(format!("{}: the leader changed", self.client.endpoint())))
    }
}
