//! Running one command under one lock: the supervisor, the keeper and the witness, and what passes between them.

pub(crate) mod keeper;
pub(crate) mod link;
pub(crate) mod supervisor;
pub(crate) mod witness;
