//! Parts of a client that etcd and Consul share: addresses and credentials, TLS, DNS, unfinished requests.
//!
//! Imports no other module of `lock`.
//!
//! Invariants: no secret is printed or part of an error; a request in `requests` continues when the call that sent it is
//! dropped.

pub(crate) mod dns;
pub(crate) mod endpoint;
pub(crate) mod requests;
pub(crate) mod tcp;
pub(crate) mod tls;
