//! What a failed request to etcd means.

use std::error::Error as StdError;
use std::io;

use tonic::{Code, Status};

use crate::lock::transport::tls;

/// The meaning of an error.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// The server knows no such lease.
    NoLease,
    /// The server knows no users, so there is nobody to be.
    AuthDisabled,
    /// The credentials or the rights do not suffice; the server's words.
    Denied(String),
    /// The request itself is wrong; the server's words.
    Refused(String),
    /// No trust between us and the server.
    Untrusted(rustls::Error),
    /// The address has the wrong scheme.
    WrongScheme {
        /// What the server does speak.
        speaks_tls: bool,
    },
    /// It may work a moment later or elsewhere.
    Passing {
        /// A server said so, not the way to it.
        answered: bool,
        /// In a few words.
        cause: String,
    },
}

impl Fault {
    /// Reads what a request came back with.
    pub(super) fn of(error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            etcd_client::Error::TransportError(error) => Self::of_transport(error),
            other => Self::Passing { answered: false, cause: other.to_string() },
        }
    }

    /// Reads why no connection came about, or why one broke.
    pub(super) fn of_transport(error: &(dyn StdError + 'static)) -> Self {
        if let Some(error) = tls::cause(error) {
            return Self::Untrusted(error.clone());
        }
        let mut next = Some(error);
        // The farthest cause says most; those before it name layers of the client.
        let mut cause = String::new();
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::Passing { answered: false, cause: in_few_words(error) };
            }
            cause = error.to_string();
            next = error.source();
        }
        Self::Passing { answered: false, cause }
    }

    fn of_status(status: &Status) -> Self {
        // Only what tonic made up itself has a source; a server's own status has none.
        if status.source().is_some() {
            return Self::of_transport(status);
        }
        let words = status.message().trim_start_matches("etcdserver: ").to_owned();
        // tonic's words for a reply that is plain HTTP: somebody is there, and it is not etcd.
        if words.starts_with("grpc-status header missing") {
            return Self::Passing { answered: false, cause: "no etcd server answers there".to_owned() };
        }
        match status.code() {
            Code::NotFound if words == "requested lease not found" => Self::NoLease,
            Code::FailedPrecondition if words == "authentication is not enabled" => Self::AuthDisabled,
            Code::PermissionDenied => Self::Denied(words),
            // The rights changed while the request was under way.
            Code::InvalidArgument if words == "revision of auth store is old" => {
                Self::Passing { answered: true, cause: words }
            }
            Code::InvalidArgument if words.contains("authentication failed") || words == "user name is empty" => {
                Self::Denied(words)
            }
            Code::InvalidArgument if status.message().starts_with("etcdserver: ") => Self::Refused(words),
            _ if words.is_empty() => Self::Passing { answered: true, cause: format!("{:?}", status.code()) },
            // An expired token is among these: a new connection brings a new one.
            _ => Self::Passing { answered: true, cause: words },
        }
    }
}

/// `Connection refused (os error 111)` as a part of a sentence.
fn in_few_words(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::TimedOut => "no connection in time".to_owned(),
        _ => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, words: &str) -> Fault {
        Fault::of(&etcd_client::Error::GRpcStatus(Status::new(code, words)))
    }

    #[test]
    fn a_server_s_words_decide() {
        assert_eq!(status(Code::NotFound, "etcdserver: requested lease not found"), Fault::NoLease);
        assert_eq!(
            status(Code::PermissionDenied, "etcdserver: permission denied"),
            Fault::Denied("permission denied".into())
        );
        assert_eq!(
            status(Code::InvalidArgument, "etcdserver: user name is empty"),
            Fault::Denied("user name is empty".into())
        );
        for (code, words) in [
            (Code::Unavailable, "no leader"),
            (Code::Unavailable, "request timed out"),
            (Code::ResourceExhausted, "too many requests"),
            (Code::Unauthenticated, "invalid auth token"),
            (Code::InvalidArgument, "revision of auth store is old"),
            (Code::OutOfRange, "mvcc: required revision has been compacted"),
        ] {
            let expected = Fault::Passing { answered: true, cause: words.into() };
            assert_eq!(status(code, &format!("etcdserver: {words}")), expected);
        }
    }

    #[test]
    fn what_the_client_s_library_says_is_no_word_of_the_server_s() {
        let words = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        for code in [Code::OutOfRange, Code::InvalidArgument] {
            let fault = Fault::of(&etcd_client::Error::GRpcStatus(Status::new(code, words)));
            assert_eq!(fault, Fault::Passing { answered: true, cause: words.into() });
        }
        assert_eq!(
            status(Code::InvalidArgument, "etcdserver: key is not provided"),
            Fault::Refused("key is not provided".into())
        );
    }

    #[test]
    fn a_broken_connection_is_no_answer() {
        let refused = io::Error::from_raw_os_error(111);
        let expected = Fault::Passing { answered: false, cause: "connection refused".into() };
        assert_eq!(Fault::of_transport(&refused), expected);
        let wrapped = Status::from_error(Box::new(refused));
        assert_eq!(Fault::of(&etcd_client::Error::GRpcStatus(wrapped)), expected);
    }

    #[test]
    fn distrust_is_found_below_the_layers_of_the_client() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let fault = Fault::of_transport(&io::Error::new(io::ErrorKind::InvalidData, unknown.clone()));
        assert_eq!(fault, Fault::Untrusted(unknown));
    }
}
