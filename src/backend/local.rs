//! The lock on this host.
use super::{Backend, Granted, Outcome, Place, Trouble, Want};
use crate::clock::Instant;
use crate::error::Failure;

/// One contender for one lock on this host.
#[derive(Debug)]
pub struct Contender {}

impl Contender {
    /// A contender that has not entered yet; connects lazily.
    pub fn new(_file: &LockFile, _want: Want) -> Result<Self, Failure> {
        todo!()
    }
}

#[async_trait::async_trait(?Send)]
impl Backend for Contender {
    async fn enter(&self) -> Outcome<(Granted, Place)> {
        todo!()
    }
    async fn wait(&self) -> Outcome<Place> {
        todo!()
    }
    async fn renew(&self) -> Outcome<Instant> {
        todo!()
    }
    async fn watch(&self) -> Trouble {
        todo!()
    }
    async fn release(&self) -> Outcome<()> {
        todo!()
    }
    fn next_endpoint(&self) {}
    fn lease_id(&self) -> Option<String> {
        None
    }
}

/// The directory that holds the lock files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(pub std::path::PathBuf);

/// An open lock file.
#[derive(Debug)]
pub struct LockFile {}

impl Directory {
    /// The directory that every user, service and cron job of a host shares.
    #[must_use]
    pub fn standard() -> Self {
        Self("/run/lock/distlock".into())
    }

    /// Opens the lock file of `name`, creating directory and file as needed.
    pub fn open(&self, _name: &str) -> Result<LockFile, Failure> {
        todo!()
    }
}
