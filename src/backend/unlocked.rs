//! No lock at all (`--no-lock`): always held, by everybody at once.

use async_trait::async_trait;

use super::{Backend, Granted, Outcome, Place, Trouble};
use crate::clock::Instant;

/// A contender for nothing.
#[derive(Debug)]
pub struct Contender;

#[async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Place)> {
        let place = Place::Held { token: 0, key: String::new() };
        Ok((Granted { s: Instant::now(), cover: None }, place))
    }

    async fn wait(&self) -> Outcome<Place> {
        self.enter().await.map(|(_, place)| place)
    }

    async fn renew(&self) -> Outcome<Instant> {
        Ok(Instant::now())
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
