//! TLS configuration for both network backends, and messages for its errors.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore};

use distlock_core::error::{Failure, Kind};

use super::endpoint::Tls;

/// Reads the files that the settings name, and the system's CA certificates if they name none.
///
/// # Errors
///
/// A usage failure that names the file, or an unreachable one if the system has no CA certificates.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder();
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyServer::new()?))
    } else {
        builder.with_root_certificates(ca_certificates(tls)?)
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| {
                unusable(cert, &format!("does not match the private key {}", key.display())).because(error)
            })
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(Failure::usage("a client certificate needs its private key, and a private key its certificate")
            .hint("use both --cert FILE and --key FILE")),
    }
}

/// Returns a configuration without any authentication, only for a test whether a server speaks TLS.
pub(crate) fn probe_config() -> Result<ClientConfig, Failure> {
    client_config(&Tls { insecure_skip_verify: true, ..Tls::default() })
}

fn ca_certificates(tls: &Tls) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if tls.cacert.is_none() && tls.capath.is_none() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Failure::new(
                Kind::Unreachable,
                "no server can be trusted: this system has no CA certificates",
            )
            .hint("use --cacert FILE with the CA certificate of the servers"));
        }
        return Ok(roots);
    }
    for file in tls.cacert.iter().cloned().chain(files_in(tls.capath.as_deref())?) {
        for certificate in certificates(&file)? {
            roots.add(certificate).map_err(|error| unusable(&file, "is not a CA certificate").because(error))?;
        }
    }
    if roots.is_empty() {
        return Err(Failure::usage("the directory of CA certificates contains no certificate"));
    }
    Ok(roots)
}

fn files_in(directory: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let Some(path) = directory else { return Ok(Vec::new()) };
    let unread = |error: std::io::Error| unusable(path, "cannot be read").because(error);
    let entries: Result<Vec<_>, _> = path.read_dir().map_err(unread)?.collect();
    let files = entries.map_err(unread)?.into_iter().map(|entry| entry.path());
    Ok(files.filter(|file| file.is_file()).collect())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unread = |error| unusable(file, "cannot be read as PEM").because(error);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(unread)?.collect();
    match found.map_err(unread)? {
        empty if empty.is_empty() => Err(unusable(file, "contains no certificate in PEM")),
        certificates => Ok(certificates),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    // The cause is left out because it could quote the key.
    PrivateKeyDer::from_pem_file(file)
        .map_err(|_| unusable(file, "contains no private key in PEM").hint("decrypt the key first if it is encrypted"))
}

fn unusable(file: &Path, why: &str) -> Failure {
    Failure::usage(format!("{} {why}", file.display()))
}

/// Describes a TLS error of a connection to the server at `url`: one end rejected the other.
#[must_use]
pub(crate) fn failure(url: &(impl Display + ?Sized), error: &rustls::Error) -> Failure {
    let (kind, hint) = match error {
        rustls::Error::InvalidCertificate(error) => (Kind::Unreachable, certificate_hint(error)),
        rustls::Error::InvalidMessage(_) => return wrong_scheme(url, false),
        rustls::Error::AlertReceived(alert) if rejects_client(*alert) => {
            (Kind::Denied, "use --cert FILE and --key FILE with a client certificate that the server accepts")
        }
        _ => (
            Kind::Unreachable,
            "the server may need another version of TLS, or a client certificate (--cert and --key)",
        ),
    };
    let message = match (kind, error) {
        (Kind::Denied, _) => "the server rejected this client's certificate, or requires one",
        (_, rustls::Error::InvalidCertificate(_)) => "the server's certificate is not trusted",
        _ => "the TLS connection to the server failed",
    };
    Failure::new(kind, format!("{url}: {message}")).because(description(error)).hint(hint)
}

/// Describes a server at `url` that speaks TLS although the scheme is http, or does not although it is https.
#[must_use]
pub(crate) fn wrong_scheme(url: &(impl Display + ?Sized), speaks_tls: bool) -> Failure {
    let (problem, hint) = if speaks_tls {
        ("requires TLS", "use https:// in its address")
    } else {
        ("does not speak TLS", "use http:// in its address if a connection without TLS is acceptable")
    };
    Failure::new(Kind::Unreachable, format!("{url}: the server {problem}")).hint(hint)
}

fn certificate_hint(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use --tls-server-name NAME with a name in the server's certificate"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate, or correct this host's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "correct this host's clock",
        _ => "use --cacert FILE with the CA certificate that issued the server's certificate",
    }
}

/// Returns whether the server rejected the client certificate or requires one.
fn rejects_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}

fn description(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let end = jiff::Timestamp::from_second(seconds).map(|end| format!(" on {end}"));
            format!("the server's certificate expired{}", end.unwrap_or_default())
        }
        error => error.to_string(),
    }
}

/// Returns the TLS error among the causes of an error.
#[must_use]
pub(crate) fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // The error inside an I/O error is not its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let wrapped = wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static));
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = wrapped.or_else(|| error.source());
    }
    None
}

/// Endpoints that could not be trusted, recorded until the first endpoint answers.
///
/// Only then can distrust be fatal, and only if it applies to all endpoints: a certificate that expires on one server
/// must not stop a command whose lock the others keep.
#[derive(Debug)]
pub(crate) struct DistrustedEndpoints(RefCell<Option<BTreeSet<usize>>>);

impl Default for DistrustedEndpoints {
    fn default() -> Self {
        Self(RefCell::new(Some(BTreeSet::new())))
    }
}

impl DistrustedEndpoints {
    /// An endpoint answered: from now on distrust is never fatal.
    pub(crate) fn stop_recording(&self) {
        self.0.replace(None);
    }

    /// Records one of `count` endpoints. Returns whether all of them are distrusted.
    pub(crate) fn record(&self, endpoint: usize, count: usize) -> bool {
        self.0.borrow_mut().as_mut().is_some_and(|endpoints| {
            endpoints.insert(endpoint);
            endpoints.len() >= count
        })
    }
}

/// Verifier that accepts any certificate of a server (`--insecure-skip-tls-verify`). The connection is still encrypted.
#[derive(Debug)]
struct AcceptAnyServer(Arc<CryptoProvider>);

impl AcceptAnyServer {
    fn new() -> Result<Self, Failure> {
        CryptoProvider::get_default()
            .map(|provider| Self(provider.clone()))
            .ok_or_else(|| Failure::fault("no TLS implementation is installed in the process"))
    }
}

impl ServerCertVerifier for AcceptAnyServer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tls_failure_has_a_hint() {
        let expired = CertificateError::ExpiredContext {
            time: UnixTime::since_unix_epoch(std::time::Duration::from_secs(2_000_000_000)),
            not_after: UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_000_000_000)),
        };
        for (error, kind, cause, hint) in [
            (CertificateError::UnknownIssuer.into(), Kind::Unreachable, "UnknownIssuer", "--cacert"),
            (CertificateError::NotValidForName.into(), Kind::Unreachable, "Name", "--tls-server-name"),
            (expired.into(), Kind::Unreachable, "2001-09-09T01:46:40Z", "renew"),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), Kind::Denied, "UnknownCA", "--cert"),
            (rustls::Error::AlertReceived(AlertDescription::ProtocolVersion), Kind::Unreachable, "Version", "TLS"),
        ] {
            let failure = failure(&"https://h:1", &error);
            assert_eq!(failure.kind, kind, "{failure:?}");
            assert!(failure.causes[0].contains(cause) && failure.hint.as_ref().unwrap().contains(hint), "{failure:?}");
        }
    }

    #[test]
    fn a_tls_error_is_found_among_the_causes() {
        let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let outer = std::io::Error::other(inner);
        assert_eq!(cause(&outer), Some(&rustls::Error::DecryptError));
        assert_eq!(cause(&std::io::Error::other("something else")), None);
    }

    #[test]
    fn only_distrust_of_all_from_the_start_is_fatal() {
        let distrusted = DistrustedEndpoints::default();
        assert!(!distrusted.record(0, 2) && !distrusted.record(0, 2));
        assert!(distrusted.record(1, 2));
        distrusted.stop_recording();
        assert!(!distrusted.record(0, 1));
    }
}
