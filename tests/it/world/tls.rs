//! TLS: a certification authority for one test, and the certificates that it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::temp_dir;

/// A certification authority, and the files of its certificates, which are deleted with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// Files of a certificate and its private key.
#[derive(Clone, Debug)]
pub struct Pem {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// TLS settings of a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The server certificate.
    pub pem: Pem,
    /// The CA certificate for client certificates; none if clients need no certificate.
    pub clients: Option<PathBuf>,
}

impl Authority {
    /// Creates an authority with a new key.
    pub fn new() -> Self {
        let mut params = params("the authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        let dir = temp_dir();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, dir }
    }

    /// Returns the file of the CA certificate.
    pub fn cacert(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Signs a certificate for a server with these names and addresses.
    pub fn server(&self, names: &[&str]) -> Pem {
        self.sign("server", &params("server", names))
    }

    /// Signs a certificate for a client.
    pub fn client(&self) -> Pem {
        self.sign("client", &params("client", &[]))
    }

    /// Signs a certificate for 127.0.0.1 that expired at the end of 2001.
    pub fn expired(&self) -> Pem {
        let mut params = params("expired", &["127.0.0.1"]);
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2001, 12, 31));
        self.sign("expired", &params)
    }

    fn sign(&self, file: &str, params: &CertificateParams) -> Pem {
        let key_pair = key();
        let certificate = params.signed_by(&key_pair, &self.issuer).expect("a certificate");
        let path = |end: &str| self.dir.path().join(format!("{file}.{end}"));
        let pem = Pem { cert: path("pem"), key: path("key") };
        fs::write(&pem.cert, certificate.pem()).expect("a file");
        fs::write(&pem.key, key_pair.serialize_pem()).expect("a file");
        pem
    }
}

impl Pem {
    /// Returns the options of distlock for this client certificate.
    pub fn options(&self) -> [String; 4] {
        ["--cert".into(), display(&self.cert), "--key".into(), display(&self.key)]
    }
}

impl ServerTls {
    /// Returns the options of etcd. Its JSON gateway uses the certificate as a client certificate too.
    pub fn etcd_options(&self) -> Vec<String> {
        let Pem { cert, key } = &self.pem;
        let mut options = vec![format!("--cert-file={}", cert.display()), format!("--key-file={}", key.display())];
        if let Some(clients) = &self.clients {
            options.extend(["--client-cert-auth".into(), format!("--trusted-ca-file={}", clients.display())]);
        }
        options
    }

    /// Returns the options of Consul.
    pub fn consul_options(&self) -> Vec<String> {
        let Pem { cert, key } = &self.pem;
        let hcl = |name: &str, path: &Path| format!("-hcl={name} = \"{}\"", path.display());
        let mut options = vec![hcl("cert_file", cert), hcl("key_file", key)];
        if let Some(clients) = &self.clients {
            options.extend([hcl("ca_file", clients), "-hcl=verify_incoming_https = true".into()]);
        }
        options
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of a certificate");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
