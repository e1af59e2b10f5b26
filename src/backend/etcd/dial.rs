//! From the addresses and the TLS settings to something that can be connected to.

use std::path::Path;
use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::backend::endpoint::{Endpoint, Tls};
use crate::error::{Failure, Kind, chain};

/// One server's address with everything that a connection to it takes.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The address as users write it.
    pub url: String,
    /// What connects.
    pub endpoint: tonic::transport::Endpoint,
}

impl Dial {
    /// Reads the files that the TLS settings name, for https only, and sends nothing.
    pub fn new(endpoint: &Endpoint, tls: &Tls) -> Result<Self, Failure> {
        let url = endpoint.to_string();
        let invalid = |error: &dyn std::error::Error| {
            Failure::usage(format!("{url} is not the address of an etcd server")).because(chain(error).join(": "))
        };
        let dial = tonic::transport::Endpoint::from_shared(url.clone()).map_err(|error| invalid(&error))?;
        let endpoint = match endpoint {
            Endpoint::Http { .. } => dial,
            Endpoint::Https { .. } => secure(dial, tls)?,
            Endpoint::Unix { .. } => {
                return Err(Failure::usage(format!("etcd is not reached through a socket like {url}"))
                    .hint("give an http:// or https:// address"));
            }
        };
        Ok(Self { url, endpoint })
    }
}

fn secure(dial: tonic::transport::Endpoint, tls: &Tls) -> Result<tonic::transport::Endpoint, Failure> {
    let mut config = ClientTlsConfig::new();
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => config = config.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => {
            return Err(Failure::usage("a client certificate needs its key, and a key its certificate")
                .hint("give both --cert FILE and --key FILE"));
        }
    }
    let dial = if tls.insecure_skip_verify {
        dial.tls_config_with_verifier(config, Arc::new(Credulous::new()?))
    } else {
        dial.tls_config(match &tls.cacert {
            Some(file) => config.ca_certificate(Certificate::from_pem(read(file)?)),
            None => config.with_native_roots(),
        })
    };
    dial.map_err(|error| {
        Failure::new(Kind::Unreachable, "TLS cannot be set up")
            .because(chain(&error).join(": "))
            .hint("check the files of --cacert, --cert and --key")
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::usage(format!("{} cannot be read", file.display())).because(error))
}

/// Trusts whatever certificate a server shows, as `--insecure-skip-tls-verify` asks; the connection is encrypted still.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl Credulous {
    fn new() -> Result<Self, Failure> {
        CryptoProvider::get_default()
            .map(|provider| Self(provider.clone()))
            .ok_or_else(|| Failure::fault("no cryptography is installed in the process"))
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
