//! TLS settings for reqwest.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use rustls::ClientConfig;

use distlock_core::error::Failure;

use crate::lock::transport::endpoint::{Secret, Tls};
use crate::lock::transport::tls::client_config;

/// TLS configuration of all https endpoints.
pub(super) struct TlsClient {
    config: ClientConfig,
    server_name: Option<String>,
}

impl TlsClient {
    /// Reads the files in the settings.
    pub(super) fn read(tls: &Tls) -> Result<Self, Failure> {
        if let Some(name) = tls.server_name.as_ref().filter(|name| name.parse::<IpAddr>().is_ok()) {
            return Err(Failure::usage(format!("the TLS server name is an address: {name}"))
                .hint("leave out --tls-server-name: a certificate for an endpoint by address must contain it"));
        }
        Ok(Self { config: client_config(tls)?, server_name: tls.server_name.clone() })
    }

    /// Returns the base URL for requests to the server at `authority`. Its host is the name that the certificate must
    /// contain.
    pub(super) fn base_url(&self, authority: &str) -> String {
        match (&self.server_name, authority.rsplit_once(':')) {
            (Some(name), Some((_, port))) => format!("https://{name}:{port}"),
            _ => format!("https://{authority}"),
        }
    }

    /// Configures a client for the server at `authority`.
    pub(super) fn apply(&self, builder: ClientBuilder, authority: &str) -> ClientBuilder {
        let builder = builder.tls_backend_preconfigured(self.config.clone());
        match self.server_name {
            Some(_) => builder.dns_resolver(Arc::new(FixedHost(authority.to_owned()))),
            None => builder,
        }
    }
}

/// Resolver that returns the addresses of one host for every name: requests contain the name of the certificate but go to
/// the endpoint.
struct FixedHost(String);

impl Resolve for FixedHost {
    fn resolve(&self, _: Name) -> Resolving {
        let authority = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(authority).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Returns a header value that is never printed.
pub(super) fn sensitive_header(secret: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(secret.reveal())
        .map_err(|_| Failure::usage("the Consul token contains characters that are not allowed in a token"))?;
    value.set_sensitive(true);
    Ok(value)
}
