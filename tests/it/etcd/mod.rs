//! Behaviour on etcd only: large prefixes, late requests, slow networks, quorum loss, authentication.

mod auth_enabled;
mod grpc_proxy;
mod late_requests;
mod many_keys;
mod release;
mod slow_network;
mod unavailable;
