//! TLS as reqwest takes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use rustls::ClientConfig;

use crate::lock::transport::endpoint::{Secret, Tls};
use crate::lock::transport::tls::client_config;
use distlock_core::error::Failure;

/// What the https endpoints share.
pub(super) struct Trust {
    config: ClientConfig,
    server_name: Option<String>,
}

impl Trust {
    /// Reads the files that the settings name.
    pub(super) fn read(tls: &Tls) -> Result<Self, Failure> {
        if let Some(name) = tls.server_name.as_ref().filter(|name| name.parse::<IpAddr>().is_ok()) {
            return Err(Failure::usage(format!("the name to expect in the certificate is an address: {name}"))
                .hint("a server is expected by its address where the endpoint names it by address"));
        }
        Ok(Self { config: client_config(tls)?, server_name: tls.server_name.clone() })
    }

    /// The base of the addresses that are requested from the server at `authority`: its host is the name that the
    /// certificate has to show.
    pub(super) fn base(&self, authority: &str) -> String {
        match (&self.server_name, authority.rsplit_once(':')) {
            (Some(name), Some((_, port))) => format!("https://{name}:{port}"),
            _ => format!("https://{authority}"),
        }
    }

    /// A client for the server at `authority`.
    pub(super) fn apply(&self, builder: ClientBuilder, authority: &str) -> ClientBuilder {
        let builder = builder.tls_backend_preconfigured(self.config.clone());
        match self.server_name {
            Some(_) => builder.dns_resolver(Arc::new(Elsewhere(authority.to_owned()))),
            None => builder,
        }
    }
}

/// Leads every name to one host: requests name the server as its certificate does, and go where the endpoint says.
struct Elsewhere(String);

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let authority = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(authority).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A secret as a header that is left out of everything that prints requests.
pub(super) fn sensitive(secret: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(secret.reveal())
        .map_err(|_| Failure::usage("the Consul token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}
