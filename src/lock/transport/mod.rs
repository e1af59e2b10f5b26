//! Parts of a client that etcd and Consul share: addresses and credentials, TLS, DNS, unfinished requests.
//!
//! Imports no other module of `lock`.
//!
//! Invariants: no secret is printed or part of an error; a request that may create something on a server is not dropped
//! before its answer is known, unless its caller abandons it.

pub(crate) mod dns;
pub(crate) mod endpoint;
pub(crate) mod requests;
pub(crate) mod tls;
