//! The gRPC proxy of etcd.

use std::net::TcpStream;

use super::server::{Node, binary, free_address, start_on_free_ports};
use super::{Etcd, Server};

/// `etcd grpc-proxy` in front of one server.
pub struct GrpcProxy {
    url: String,
    _node: Node,
}

impl GrpcProxy {
    /// Starts a proxy; it serves when this returns.
    pub fn to(server: &Etcd) -> Self {
        start_on_free_ports(|| {
            let address = free_address();
            let node = Node::start(|_| {
                let (listen, endpoints) = (format!("--listen-addr={address}"), format!("--endpoints={}", server.url()));
                [&*binary("etcd-3.5/etcd"), "grpc-proxy", "start", &listen, &endpoints].map(str::to_owned).into()
            });
            node.wait_ready(|| TcpStream::connect(address).is_ok())?;
            Ok(Self { url: format!("http://{address}"), _node: node })
        })
    }

    /// Returns the value of `--endpoints`.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}
