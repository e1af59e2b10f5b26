//! TLS as the settings ask for it, for both network backends, and what its errors mean to a user.

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

use super::endpoint::Tls;
use distlock_core::error::{Failure, Kind};

/// Reads the files that the settings name, and the system's authorities where they name none.
///
/// # Errors
///
/// A usage failure that names the file.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder();
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous::new()?))
    } else {
        builder.with_root_certificates(authorities(tls)?)
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| refused(cert, "does not go with its key").because(key.display()).because(error)),
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(Failure::usage("a client certificate needs its key, and a key its certificate")
            .hint("give both --cert FILE and --key FILE")),
    }
}

/// A configuration that trusts anybody and shows nothing: good only for finding out who speaks TLS.
pub(crate) fn probe_config() -> Result<ClientConfig, Failure> {
    client_config(&Tls { insecure_skip_verify: true, ..Tls::default() })
}

fn authorities(tls: &Tls) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if tls.cacert.is_none() && tls.capath.is_none() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Failure::new(Kind::Unreachable, "this system trusts no authorities, so no server either")
                .hint("--cacert FILE names the authority to trust"));
        }
        return Ok(roots);
    }
    for file in tls.cacert.iter().cloned().chain(files_in(tls.capath.as_deref())?) {
        for certificate in certificates(&file)? {
            roots.add(certificate).map_err(|error| refused(&file, "is no authority's certificate").because(error))?;
        }
    }
    if roots.is_empty() {
        return Err(Failure::usage("the directory of the authorities to trust holds no certificates"));
    }
    Ok(roots)
}

fn files_in(directory: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let Some(path) = directory else { return Ok(Vec::new()) };
    let unread = |error: std::io::Error| refused(path, "cannot be read").because(error);
    let entries: Result<Vec<_>, _> = path.read_dir().map_err(unread)?.collect();
    let files = entries.map_err(unread)?.into_iter().map(|entry| entry.path());
    Ok(files.filter(|file| file.is_file()).collect())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unread = |error| refused(file, "cannot be read as PEM").because(error);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(unread)?.collect();
    match found.map_err(unread)? {
        none if none.is_empty() => Err(refused(file, "holds no certificate in PEM")),
        some => Ok(some),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    // What is wrong with it is told without its content.
    PrivateKeyDer::from_pem_file(file).map_err(|_| {
        refused(file, "holds no private key in PEM").hint("a key that is encrypted has to be decrypted first")
    })
}

fn refused(file: &Path, why: &str) -> Failure {
    Failure::usage(format!("{} {why}", file.display()))
}

/// What a TLS error with the server at `url` is to a user: nobody to trust, or nobody who trusts us.
#[must_use]
pub(crate) fn failure(url: &(impl Display + ?Sized), error: &rustls::Error) -> Failure {
    let (kind, hint) = match error {
        rustls::Error::InvalidCertificate(error) => (Kind::Unreachable, way_out(error)),
        rustls::Error::InvalidMessage(_) => return wrong_scheme(url, false),
        rustls::Error::AlertReceived(alert) if rejects_client(*alert) => {
            (Kind::Denied, "--cert FILE and --key FILE give the certificate that the server asks for")
        }
        _ => (Kind::Unreachable, "the server may want other versions of TLS, or a certificate: --cert and --key"),
    };
    let message = match kind {
        Kind::Denied => format!("{url}: the server does not accept this client's certificate, or the lack of one"),
        _ => format!("{url}: the server cannot be trusted"),
    };
    Failure::new(kind, message).because(words(error)).hint(hint)
}

/// The server at `url` does not speak what the scheme says.
#[must_use]
pub(crate) fn wrong_scheme(url: &(impl Display + ?Sized), speaks_tls: bool) -> Failure {
    let (what, hint) = if speaks_tls {
        ("speaks only TLS", "write https:// in its address")
    } else {
        ("does not speak TLS", "write http:// in its address if it is to be reached without")
    };
    Failure::new(Kind::Unreachable, format!("{url}: the server {what}")).hint(hint)
}

fn way_out(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "--tls-server-name NAME gives the name that the server's certificate is for"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate, or set this host's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "set this host's clock",
        _ => "--cacert FILE names the authority to trust",
    }
}

/// Alerts by which a server turns a client away for what it showed, or did not show.
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

fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let end = jiff::Timestamp::from_second(seconds).map(|end| format!(" on {end}"));
            format!("the server's certificate expired{}", end.unwrap_or_default())
        }
        error => error.to_string(),
    }
}

/// The TLS error below another one.
#[must_use]
pub(crate) fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let wrapped = wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static));
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = wrapped.or_else(|| error.source());
    }
    None
}

/// Endpoints that could not be trusted, until one is.
///
/// Distrust is fatal only when it was so from the start and with all endpoints: a certificate that expires on one of them
/// must not end a command whose lock the others keep.
#[derive(Debug)]
pub(crate) struct Distrusted(RefCell<Option<BTreeSet<usize>>>);

impl Default for Distrusted {
    fn default() -> Self {
        Self(RefCell::new(Some(BTreeSet::new())))
    }
}

impl Distrusted {
    /// Some endpoint answered.
    pub(crate) fn end(&self) {
        self.0.replace(None);
    }

    /// Notes one of `count` endpoints. Whether none is left.
    pub(crate) fn add(&self, endpoint: usize, count: usize) -> bool {
        self.0.borrow_mut().as_mut().is_some_and(|endpoints| {
            endpoints.insert(endpoint);
            endpoints.len() >= count
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distrust_comes_with_its_way_out() {
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
    fn a_tls_error_is_found_below_others() {
        let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let outer = std::io::Error::other(inner);
        assert_eq!(cause(&outer), Some(&rustls::Error::DecryptError));
        assert_eq!(cause(&std::io::Error::other("something else")), None);
    }

    #[test]
    fn only_distrust_of_all_from_the_start_counts() {
        let distrusted = Distrusted::default();
        assert!(!distrusted.add(0, 2) && !distrusted.add(0, 2));
        assert!(distrusted.add(1, 2));
        distrusted.end();
        assert!(!distrusted.add(0, 1));
    }
}
