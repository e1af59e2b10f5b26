//! Creation of a contender's session, and what follows from its end.

use std::rc::Rc;
use std::time::Duration;

use distlock_core::consul::session::{Role, Session, SessionState};
use distlock_core::outcome::{Outcome, Trouble};

use super::api::{NewSession, go_duration};
use super::contender::{Contender, no_session};
use crate::sys::clock;

/// How long a release waits for replies to requests that are still pending.
const PENDING_LIMIT: Duration = Duration::from_secs(1);

impl Contender {
    /// Returns the session; creates it if there is none.
    pub(super) async fn ensure_session(&self) -> Outcome<Session> {
        if let Some(session) = &self.state.borrow().session {
            return Ok(session.clone());
        }
        let new = NewSession {
            name: format!("distlock {}", self.keys.name),
            ttl: go_duration(self.spec.ttl),
            lock_delay: go_duration(self.options.lock_delay),
            // The proof for relock needs the key's counters, which are deleted with the key.
            behavior: if self.spec.relock { "release" } else { "delete" },
            node_checks: self.options.health_checks.clone(),
        };
        let api = Rc::clone(&self.api);
        let sent_at = clock::now();
        self.session_request.start(async move { Ok(Session { id: api.create_session(&new).await?, sent_at }) });
        self.created_session().await
    }

    /// Waits for the reply to the pending creation. A session whose reply is lost holds no key and expires by itself.
    async fn created_session(&self) -> Outcome<Session> {
        let session = self.session_request.answer().await.unwrap_or_else(|| Err(no_session()))?;
        (self.log)(format!("consul: {}: session {}", self.api.http.endpoint(), session.id));
        self.state.borrow_mut().session = Some(session.clone());
        Ok(session)
    }

    /// Waits a moment for pending requests, because a release must also remove what they create.
    pub(super) async fn finish_pending(&self) {
        let finished = async {
            // The release that follows reports errors of its own.
            let _ = self.created_session().await;
            drop(self.locking_request.answer().await);
        };
        let _ = tokio::time::timeout(PENDING_LIMIT, finished).await;
    }

    /// Forgets a lost session, so that the next [`enter`](crate::lock::Backend::enter) creates another. A holder keeps it
    /// until the release, which reports the loss.
    pub(super) fn forget_if_lost<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        let mut state = self.state.borrow_mut();
        if matches!(outcome, Err(Trouble::Lost(_))) {
            match state.role {
                Role::Holding => state.lost = true,
                _ => *state = SessionState::default(),
            }
        }
        outcome
    }
}
