//! What is etcd's alone.

mod many_keys;
mod late_requests;
mod grpc_proxy;
mod release;
mod slow_network;
mod unavailable;
mod auth_enabled;
