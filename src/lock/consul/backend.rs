//! The backend's trait, put together from the parts of a contender.

use distlock_core::consul::session::{Role, SessionState};
use distlock_core::error::Kind;
use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::time::Instant;

use super::contender::{Contender, session_ended};
use crate::lock::backend::Backend;
use crate::sys::clock;

#[async_trait::async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        self.abandon_lost_lock().await?;
        let session = self.ensure_session().await?;
        let position = self.acquire_or_join(&session.id).await;
        let position = self.forget_if_lost(position)?;
        let cover = self.spec.ttl.min(self.options.lock_delay);
        Ok((Granted { sent_at: session.sent_at, cover: Some(cover) }, position))
    }

    async fn wait(&self) -> Outcome<Position> {
        let session = self.session_id()?;
        let position = self.await_turn(&session).await;
        self.forget_if_lost(position)
    }

    async fn renew(&self) -> Outcome<Instant> {
        let session = self.session_id()?;
        let sent_at = clock::now();
        let renewed = match self.api.renew_session(&session).await {
            Ok(false) => Err(session_ended(&session)),
            // The key can be lost while the session lives, and a watch may report nothing. Besides, a replaced leader
            // acknowledges renewals for a while.
            Ok(true) if self.role() == Role::Holding => match self.confirm_held(&session).await {
                // A token that may not read the key any more is no loss: the session alone keeps the lock. Only a frozen
                // command needs the proof.
                Err(Trouble::Fatal(failure)) if failure.kind == Kind::Denied && !self.spec.relock => Ok(()),
                outcome => outcome,
            },
            outcome => outcome.map(drop),
        };
        self.forget_if_lost(renewed).map(|()| sent_at).map_err(uncertain_if_fatal)
    }

    async fn watch(&self) -> Trouble {
        let session = match self.session_id() {
            Ok(session) => session,
            Err(trouble) => return trouble,
        };
        loop {
            if let Err(trouble) = self.watch_held(&session).await {
                // The next watch reads the lock first.
                self.state.borrow_mut().watch_index = None;
                self.state.borrow_mut().lost |= matches!(trouble, Trouble::Lost(_));
                return uncertain_if_fatal(trouble);
            }
        }
    }

    async fn held_continuously_since(&self, since: u64) -> Outcome<bool> {
        let Some((_, acquired)) = self.state.borrow().acquired else { return Ok(false) };
        let lost = self.lost_acquisitions.borrow();
        let first = lost.iter().position(|(token, _)| *token == since);
        Ok(first.is_some_and(|first| acquired.follows(lost[first].1, lost.len() - first)))
    }

    async fn release(&self) -> Outcome<()> {
        self.finish_pending().await;
        let Ok(session) = self.session_id() else { return Ok(()) };
        match self.remove_keys(&session).await {
            // The keys are removed with the session, if the token may destroy that.
            Err(Trouble::Fatal(failure)) => {
                (self.log)(format!("consul: the lock's keys are left to the end of the session: {failure}"));
            }
            outcome => outcome?,
        }
        self.api.destroy_session(&session).await?;
        let lost = self.role() == Role::Left { lost: true };
        *self.state.borrow_mut() = SessionState::default();
        (self.log)(format!("consul: {}: session {session} destroyed", self.api.http.endpoint()));
        if lost { Err(Trouble::Lost(format!("{} was not held by session {session}", self.keys.lock))) } else { Ok(()) }
    }

    fn endpoint_changes(&self) -> usize {
        self.api.http.endpoint_changes()
    }

    fn leave_endpoint(&self, changes: usize) -> String {
        let silent = self.api.http.endpoint_after(changes).to_string();
        if changes != self.endpoint_changes() {
            return silent;
        }
        self.api.http.next_endpoint();
        self.session_request.abandon();
        self.locking_request.abandon();
        (self.log)(format!("consul: next endpoint: {}", self.api.http.endpoint()));
        silent
    }

    fn lease_id(&self) -> Option<String> {
        self.session_id().ok()
    }
}

/// Converts a fatal trouble of a lock that was granted: a denial or distrust of one endpoint proves nothing about the lock,
/// and tokens and certificates are replaced under running jobs (rule 4).
fn uncertain_if_fatal(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Fatal(failure) => Trouble::inconclusive(failure.into_line()),
        other => other,
    }
}
