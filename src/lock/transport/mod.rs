//! What both network backends need to talk to servers.

pub(crate) mod dns;
pub(crate) mod endpoint;
pub(crate) mod pending;
pub(crate) mod tls;
