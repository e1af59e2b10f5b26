//! The contender as a backend: each method runs one part and records a failure for the next call.

use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::time::Instant;

use super::contender::Contender;
use crate::lock::backend::Backend;

#[async_trait::async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        let entered = async {
            self.release_lost_key().await?;
            let (granted, queue) = self.enter_queue().await?;
            Ok((granted, self.position(queue).await?))
        };
        entered.await.inspect_err(|trouble| self.record_failure(trouble))
    }

    async fn wait(&self) -> Outcome<Position> {
        self.wait_for_change().await.inspect_err(|trouble| self.record_failure(trouble))
    }

    async fn renew(&self) -> Outcome<Instant> {
        let changing = self.state.borrow().leases.changing();
        let renewed = if changing { self.change_lease().await } else { self.renew_lease().await };
        renewed.inspect_err(|trouble| self.record_failure(trouble))
    }

    async fn watch(&self) -> Trouble {
        loop {
            if let Err(trouble) = self.watch_own_key().await {
                self.record_failure(&trouble);
                return trouble;
            }
        }
    }

    async fn held_continuously_since(&self, token: u64) -> Outcome<bool> {
        self.is_only_contender_since(token).await.inspect_err(|trouble| self.record_failure(trouble))
    }

    async fn release(&self) -> Outcome<()> {
        self.release_with_retry().await
    }

    fn endpoint_changes(&self) -> usize {
        self.client.endpoint_changes()
    }

    fn leave_endpoint(&self, changes: usize) -> String {
        let silent = self.client.url(changes).to_owned();
        if self.client.leave_silent_endpoint(changes) {
            self.grant.abandon();
        }
        silent
    }

    fn lease_id(&self) -> Option<String> {
        Some(format!("{:x}", self.state.borrow().leases.first()))
    }
}
