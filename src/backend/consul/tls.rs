//! TLS as the settings ask for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use reqwest::{Certificate, ClientBuilder, Identity};

use crate::backend::endpoint::{Secret, Tls};
use crate::error::Failure;

/// The TLS files as read, once, when the settings are checked.
pub struct Trust {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    server_name: Option<String>,
    anything: bool,
}

impl Trust {
    /// Reads the files that the settings name.
    pub fn read(tls: &Tls) -> Result<Self, Failure> {
        let mut authorities = Vec::new();
        for file in tls.cacert.iter().cloned().chain(directory(tls.capath.as_deref())?) {
            let certificates = Certificate::from_pem_bundle(&contents(&file)?)
                .map_err(|_| Failure::usage(format!("{} holds no PEM certificates", file.display())))?;
            authorities.extend(certificates);
        }
        if authorities.is_empty() && (tls.cacert.is_some() || tls.capath.is_some()) {
            return Err(Failure::usage("the files of the authorities to trust hold no PEM certificates"));
        }
        if let Some(name) = &tls.server_name
            && name.parse::<std::net::IpAddr>().is_ok()
        {
            return Err(Failure::usage(format!("the name to expect in the certificate is an address: {name}"))
                .hint("a server is expected by its address where the endpoint names it by address"));
        }
        Ok(Self {
            authorities,
            identity: identity(tls.cert.as_deref(), tls.key.as_deref())?,
            server_name: tls.server_name.clone(),
            anything: tls.insecure_skip_verify,
        })
    }

    /// The base of the addresses that are requested from the server at `authority`: its host is the name that the
    /// certificate has to show.
    pub fn base(&self, authority: &str) -> String {
        match (&self.server_name, authority.rsplit_once(':')) {
            (Some(name), Some((_, port))) => format!("https://{name}:{port}"),
            _ => format!("https://{authority}"),
        }
    }

    /// A client for the server at `authority`.
    pub fn apply(&self, builder: ClientBuilder, authority: &str) -> ClientBuilder {
        let mut builder = builder.tls_danger_accept_invalid_certs(self.anything);
        if !self.authorities.is_empty() {
            builder = builder.tls_certs_only(self.authorities.iter().cloned());
        }
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        if self.server_name.is_some() {
            builder = builder.dns_resolver(Arc::new(Elsewhere(authority.to_owned())));
        }
        builder
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

/// The TLS error below a failed request: the server is not trusted, or does not trust us.
pub fn untrusted(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = next {
        // An I/O error does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = wrapped.and_then(|wrapped| wrapped.downcast_ref()).or_else(|| error.downcast_ref());
        if found.is_some() {
            return found;
        }
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// A secret as a header that is left out of everything that prints requests.
pub fn sensitive(secret: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(secret.reveal())
        .map_err(|_| Failure::usage("the Consul token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn identity(cert: Option<&Path>, key: Option<&Path>) -> Result<Option<Identity>, Failure> {
    let Some(cert) = cert else {
        return match key {
            Some(_) => Err(Failure::usage("a key needs its certificate").hint("--cert names it")),
            None => Ok(None),
        };
    };
    // One file may hold both.
    let mut pem = contents(cert)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(contents(key)?);
    }
    let identity = Identity::from_pem(&pem).map_err(|_| {
        Failure::usage(format!("{} and its key are not a PEM certificate and key", cert.display()))
            .hint("--cert and --key name them")
    })?;
    Ok(Some(identity))
}

fn directory(path: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let unread = |e: std::io::Error| Failure::usage(format!("{} cannot be read", path.display())).because(e);
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(unread)? {
        let file = entry.map_err(unread)?.path();
        if file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn contents(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|e| Failure::usage(format!("{} cannot be read", file.display())).because(e))
}
