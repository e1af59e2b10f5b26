//! The lock on etcd.
use super::{Backend, Granted, Note, Outcome, Place, Server, Trouble, Want};
use crate::clock::Instant;
use crate::error::Failure;

/// Refuses a name that cannot be a lock on etcd.
pub fn check_name(_name: &str) -> Result<(), Failure> {
    todo!()
}

/// One contender for one lock on etcd.
#[derive(Debug)]
pub struct Contender {}

impl Contender {
    /// A contender that has not entered yet; connects lazily.
    pub fn new(_server: &Server, _want: Want, _note: Note) -> Result<Self, Failure> {
        todo!()
    }
    /// A contender that stands for the lease `lease_id`, only good for release.
    pub fn adopt(_server: &Server, _want: Want, _lease_id: &str, _note: Note) -> Result<Self, Failure> {
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
