//! Connections to one server, and why one failed.
//!
//! The connections are made here and not by tonic because HTTP/2 hides why one broke: a server's verdict on a client
//! certificate arrives after the handshake, when the client believes that it is connected.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use distlock_core::error::{Failure, chain};

use super::fault::Fault;
use super::observed_stream::{CloseCause, LastCloseCause, ObservedStream, Stream};
use crate::lock::transport::endpoint::{Endpoint, Tls};
use crate::lock::transport::tcp::detect_dead_peer;
use crate::lock::transport::tls;

/// Time limit of the test whether a server speaks TLS.
const SCHEME_TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after which the next address of a host is tried, beside the one that has not answered.
const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Address of one server, with the settings of its connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// Address as in the settings.
    pub url: String,
    route: Route,
    endpoint: tonic::transport::Endpoint,
    close_cause: LastCloseCause,
}

#[derive(Clone, Debug)]
struct Route {
    authority: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    /// Reads the TLS files, for https only. Sends nothing.
    pub(super) fn new(endpoint: &Endpoint, tls: &Tls) -> Result<Self, Failure> {
        let url = endpoint.to_string();
        let route = match endpoint {
            Endpoint::Http { authority } => Route { authority: authority.clone(), tls: None },
            Endpoint::Https { authority } => Route::secure(authority, tls)?,
            Endpoint::Unix { .. } | Endpoint::Discovered { .. } => {
                return Err(Failure::usage(format!("{url} is not the address of one etcd server"))
                    .hint("use an http:// or https:// address"));
            }
        };
        let endpoint = tonic::transport::Endpoint::from_shared(url.clone()).map_err(|error| {
            let failure = Failure::usage(format!("{url} is not the address of an etcd server"));
            failure.because(chain(&error).join(": "))
        })?;
        Ok(Self { url, route, endpoint, close_cause: LastCloseCause::default() })
    }

    /// Returns whether the connections use TLS, so that the server itself has answered once one is open.
    pub(super) fn is_secure(&self) -> bool {
        self.route.tls.is_some()
    }

    /// Connects. If the last connection closed before any byte arrived, this first tests whether the scheme is wrong.
    pub(super) async fn connect(&self) -> Result<Channel, Fault> {
        let last = self.close_cause.take();
        if matches!(last, CloseCause::NothingReceived) && self.route.needs_other_scheme().await {
            return Err(Fault::WrongScheme { speaks_tls: self.route.tls.is_none() });
        }
        let (route, close_cause) = (self.route.clone(), self.close_cause.clone());
        let connector = tower::service_fn(move |_| {
            let (route, close_cause) = (route.clone(), close_cause.clone());
            async move {
                let stream = route.open().await.inspect_err(|error| close_cause.record(error, false))?;
                Ok::<_, io::Error>(TokioIo::new(ObservedStream::new(stream, close_cause)))
            }
        });
        let connected = self.endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| self.explain(Fault::from_transport(&error)))
    }

    /// Replaces a failure without an answer by the TLS error that closed the connection, if there is one.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        match (&fault, &*self.close_cause.get()) {
            (Fault::Transient { answered: false, .. }, CloseCause::Untrusted(error)) => Fault::Untrusted(error.clone()),
            _ => fault,
        }
    }
}

impl Route {
    fn secure(authority: &str, settings: &Tls) -> Result<Self, Failure> {
        let mut config = tls::client_config(settings)?;
        config.alpn_protocols.push(b"h2".to_vec());
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = settings.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Failure::usage(format!("{host} is not a valid server name")).because(error))?;
        Ok(Self { authority: authority.to_owned(), tls: Some((Arc::new(config), name)) })
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let tcp = connect_to_first(tokio::net::lookup_host(&self.authority).await?).await?;
        tcp.set_nodelay(true)?;
        detect_dead_peer(&tcp)?;
        Ok(match &self.tls {
            None => Box::new(tcp),
            Some((config, name)) => Box::new(TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await?),
        })
    }

    /// Returns whether the server speaks TLS although the scheme is http, or does not although it is https.
    async fn needs_other_scheme(&self) -> bool {
        let test = async {
            let mut tcp = TcpStream::connect(&self.authority).await?;
            if self.tls.is_some() {
                tcp.write_all(b"GET /version HTTP/1.0\r\n\r\n").await?;
                let mut answer = Vec::new();
                tcp.take(512).read_to_end(&mut answer).await?;
                // Some servers that speak TLS reply in plain HTTP that HTTPS is required.
                return Ok(answer.starts_with(b"HTTP/") && !answer.windows(5).any(|word| word == b"HTTPS"));
            }
            let config = Arc::new(tls::probe_config().map_err(io::Error::other)?);
            // Any name is fine because the certificate is not verified.
            let name = ServerName::from(Ipv4Addr::LOCALHOST);
            match TlsConnector::from(config).connect(name, tcp).await {
                Ok(_) => Ok(true),
                Err(error) => Ok(matches!(tls::cause(&error), Some(rustls::Error::AlertReceived(_)))),
            }
        };
        timeout(SCHEME_TEST_TIMEOUT, test).await.is_ok_and(|other: io::Result<bool>| other.unwrap_or(false))
    }
}

/// Connects to the first of a host's addresses that answers. A silent address delays the next by [`ADDRESS_DELAY`], one
/// that refuses does not delay it.
async fn connect_to_first(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let (mut addresses, mut attempts) = (addresses.into_iter(), FuturesUnordered::new());
    let mut failure = io::Error::new(ErrorKind::NotFound, "the host has no address");
    loop {
        match addresses.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let delay = if addresses.size_hint().1 == Some(0) { Duration::MAX } else { ADDRESS_DELAY };
        match timeout(delay, attempts.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Returns a listener that answers no connection because its queue is full.
    async fn silent_listener() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = socket.listen(0).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            queued.push(stream);
        }
        (listener, queued)
    }

    #[test]
    fn a_silent_address_delays_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (silent, _queued) = silent_listener().await;
            let working = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let refusing = {
                let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
                closed.local_addr().expect("an address")
            };
            let [silent, working] = [&silent, &working].map(|listener| listener.local_addr().expect("an address"));
            let connected = timeout(Duration::from_secs(5), connect_to_first([refusing, silent, working])).await;
            let connected = connected.expect("in time").expect("a connection");
            assert_eq!(connected.peer_addr().expect("an address"), working);
            let refused = connect_to_first([refusing, refusing]).await.map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
            assert_eq!(connect_to_first([]).await.map(drop).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
        });
    }
}
