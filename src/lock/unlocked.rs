//! No lock (`--no-lock`): every contender holds it at once.

use async_trait::async_trait;

use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::time::Instant;

use super::backend::Backend;
use crate::sys::clock;

#[derive(Debug)]
pub(crate) struct Contender;

#[async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        let position = Position::Held { token: 0, key: String::new() };
        Ok((Granted { sent_at: clock::now(), cover: None }, position))
    }

    async fn wait(&self) -> Outcome<Position> {
        self.enter().await.map(|(_, position)| position)
    }

    async fn renew(&self) -> Outcome<Instant> {
        Ok(clock::now())
    }

    async fn watch(&self) -> Trouble {
        std::future::pending().await
    }

    async fn release(&self) -> Outcome<()> {
        Ok(())
    }

    fn endpoint_changes(&self) -> usize {
        0
    }

    fn leave_endpoint(&self, _changes: usize) -> String {
        "no lock".to_owned()
    }

    fn lease_id(&self) -> Option<String> {
        None
    }
}
