//! No lock at all (`--no-lock`): always held, by everybody at once.

use crate::sys::clock;
use async_trait::async_trait;

use super::Backend;
use distlock_core::outcome::{Granted, Outcome, Position, Trouble};
use distlock_core::time::Instant;

/// A contender for nothing.
#[derive(Debug)]
pub(crate) struct Contender;

#[async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Position)> {
        let place = Position::Held { token: 0, key: String::new() };
        Ok((Granted { sent_at: clock::now(), cover: None }, place))
    }

    async fn wait(&self) -> Outcome<Position> {
        self.enter().await.map(|(_, place)| place)
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

    fn turn(&self) -> usize {
        0
    }

    fn overdue(&self, _turn: usize) -> String {
        "no lock".to_owned()
    }

    fn lease_id(&self) -> Option<String> {
        None
    }
}
