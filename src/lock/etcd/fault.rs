//! Meaning of errors of requests to etcd.

use std::error::Error as StdError;
use std::io;

use tonic::{Code, Status};

use distlock_core::outcome::Trouble;

use crate::lock::transport::tls;

/// Meaning of an error. The text of a refusal is the server's own; that of a transient fault may be the client's.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    LeaseNotFound,
    AuthDisabled,
    /// The credentials or the permissions are insufficient.
    Denied(String),
    InvalidRequest(String),
    /// Client or server rejected the other's certificate or TLS version.
    Untrusted(rustls::Error),
    /// The address has the wrong scheme.
    WrongScheme {
        speaks_tls: bool,
    },
    /// A retry or another endpoint may succeed.
    Transient {
        /// The error came from a server, not from the network.
        answered: bool,
        cause: String,
    },
}

/// Loss that the server states by not knowing the lease.
pub(super) fn lease_lost() -> Trouble {
    Trouble::Lost("the lease expired or was revoked".to_owned())
}

impl Fault {
    pub(super) fn from_client(error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::from_status(status),
            etcd_client::Error::TransportError(error) => Self::from_transport(error),
            other => Self::Transient { answered: false, cause: other.to_string() },
        }
    }

    /// Returns why a connection failed or broke.
    pub(super) fn from_transport(error: &(dyn StdError + 'static)) -> Self {
        if let Some(error) = tls::cause(error) {
            return Self::Untrusted(error.clone());
        }
        let mut next = Some(error);
        // The innermost cause says most; the others name layers of the client.
        let mut cause = String::new();
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::Transient { answered: false, cause: short_message(error) };
            }
            cause = error.to_string();
            next = error.source();
        }
        Self::Transient { answered: false, cause }
    }

    fn from_status(status: &Status) -> Self {
        // Only a status that tonic created has a source; a server's status has none.
        if status.source().is_some() {
            return Self::from_transport(status);
        }
        let text = status.message().trim_start_matches("etcdserver: ").to_owned();
        // tonic's text for a reply in plain HTTP.
        if text.starts_with("grpc-status header missing") {
            return Self::Transient { answered: false, cause: "the server at this address is not etcd".to_owned() };
        }
        match status.code() {
            Code::NotFound if text == "requested lease not found" => Self::LeaseNotFound,
            Code::FailedPrecondition if text == "authentication is not enabled" => Self::AuthDisabled,
            Code::PermissionDenied => Self::Denied(text),
            // The permissions changed during the request.
            Code::InvalidArgument if text == "revision of auth store is old" => {
                Self::Transient { answered: true, cause: text }
            }
            Code::InvalidArgument if text.contains("authentication failed") || text == "user name is empty" => {
                Self::Denied(text)
            }
            Code::InvalidArgument if status.message().starts_with("etcdserver: ") => Self::InvalidRequest(text),
            _ if text.is_empty() => Self::Transient { answered: true, cause: format!("{:?}", status.code()) },
            // An expired token too: the next connection gets a new one.
            _ => Self::Transient { answered: true, cause: text },
        }
    }
}

/// Shortens `Connection refused (os error 111)` to part of a sentence.
fn short_message(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, text: &str) -> Fault {
        Fault::from_client(&etcd_client::Error::GRpcStatus(Status::new(code, text)))
    }

    #[test]
    fn the_server_s_text_decides() {
        assert_eq!(status(Code::NotFound, "etcdserver: requested lease not found"), Fault::LeaseNotFound);
        assert_eq!(
            status(Code::PermissionDenied, "etcdserver: permission denied"),
            Fault::Denied("permission denied".into())
        );
        assert_eq!(
            status(Code::InvalidArgument, "etcdserver: user name is empty"),
            Fault::Denied("user name is empty".into())
        );
        for (code, text) in [
            (Code::Unavailable, "no leader"),
            (Code::Unavailable, "request timed out"),
            (Code::ResourceExhausted, "too many requests"),
            (Code::Unauthenticated, "invalid auth token"),
            (Code::InvalidArgument, "revision of auth store is old"),
            (Code::OutOfRange, "mvcc: required revision has been compacted"),
        ] {
            let expected = Fault::Transient { answered: true, cause: text.into() };
            assert_eq!(status(code, &format!("etcdserver: {text}")), expected);
        }
    }

    #[test]
    fn texts_of_the_client_library_are_transient() {
        let text = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        for code in [Code::OutOfRange, Code::InvalidArgument] {
            let fault = Fault::from_client(&etcd_client::Error::GRpcStatus(Status::new(code, text)));
            assert_eq!(fault, Fault::Transient { answered: true, cause: text.into() });
        }
        assert_eq!(
            status(Code::InvalidArgument, "etcdserver: key is not provided"),
            Fault::InvalidRequest("key is not provided".into())
        );
    }

    #[test]
    fn a_broken_connection_is_no_answer() {
        let refused = io::Error::from_raw_os_error(111);
        let expected = Fault::Transient { answered: false, cause: "connection refused".into() };
        assert_eq!(Fault::from_transport(&refused), expected);
        let wrapped = Status::from_error(Box::new(refused));
        assert_eq!(Fault::from_client(&etcd_client::Error::GRpcStatus(wrapped)), expected);
    }

    #[test]
    fn distrust_is_found_among_the_causes() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let fault = Fault::from_transport(&io::Error::new(io::ErrorKind::InvalidData, unknown.clone()));
        assert_eq!(fault, Fault::Untrusted(unknown));
    }
}
