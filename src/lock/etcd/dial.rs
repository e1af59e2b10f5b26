//! From an address and the TLS settings to a connection, and why there is none.
//!
//! The connections are made here rather than by tonic, since HTTP/2 forgets why one broke: what a server says of a
//! client's certificate comes after the handshake, when the client believes itself connected.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use super::fault::Fault;
use crate::lock::transport::endpoint::{Endpoint, Tls};
use crate::lock::transport::tls;
use distlock_core::error::{Failure, chain};

/// How long a server may take to show what it speaks.
const PROBE: Duration = Duration::from_secs(1);

/// How long one address of a host is tried before the next is tried as well.
const STAGGER: Duration = Duration::from_millis(250);

/// One server's address with everything that a connection to it takes.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    /// The address as users write it.
    pub url: String,
    route: Route,
    endpoint: tonic::transport::Endpoint,
    fate: Arc<Mutex<Fate>>,
}

/// The way to a server.
#[derive(Clone, Debug)]
struct Route {
    authority: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// What became of the last connection, as far as it says why.
#[derive(Clone, Debug, Default)]
enum Fate {
    #[default]
    Unknown,
    /// One end did not accept the other.
    Untrusted(rustls::Error),
    /// It was closed before the server said anything.
    Silent,
}

impl Dial {
    /// Reads the files that the TLS settings name, for https only, and sends nothing.
    pub(super) fn new(endpoint: &Endpoint, tls: &Tls) -> Result<Self, Failure> {
        let url = endpoint.to_string();
        let route = match endpoint {
            Endpoint::Http { authority } => Route { authority: authority.clone(), tls: None },
            Endpoint::Https { authority } => Route::secure(authority, tls)?,
            Endpoint::Unix { .. } | Endpoint::Discovered { .. } => {
                return Err(Failure::usage(format!("{url} is not the address of one etcd server"))
                    .hint("give an http:// or https:// address"));
            }
        };
        let endpoint = tonic::transport::Endpoint::from_shared(url.clone()).map_err(|error| {
            let failure = Failure::usage(format!("{url} is not the address of an etcd server"));
            failure.because(chain(&error).join(": "))
        })?;
        Ok(Self { url, route, endpoint, fate: Arc::default() })
    }

    /// Whether a connection has been answered by the server itself once it is open.
    pub(super) fn is_secure(&self) -> bool {
        self.route.tls.is_some()
    }

    /// Connects. Where the last connection was closed without a word, it finds out first whether the scheme is wrong.
    pub(super) async fn connect(&self) -> Result<Channel, Fault> {
        let fate = std::mem::take(&mut *self.fate());
        if matches!(fate, Fate::Silent) && self.route.is_of_the_other_scheme().await {
            return Err(Fault::WrongScheme { speaks_tls: self.route.tls.is_none() });
        }
        let (route, fate) = (self.route.clone(), Arc::clone(&self.fate));
        let connector = tower::service_fn(move |_| {
            let (route, fate) = (route.clone(), Arc::clone(&fate));
            async move {
                let mut witness = Witness { io: Box::new(tokio::io::empty()), fate, heard: false };
                witness.io = route.open().await.inspect_err(|error| witness.note(error))?;
                Ok::<_, io::Error>(TokioIo::new(witness))
            }
        });
        let connected = self.endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| self.judge(Fault::of_transport(&error)))
    }

    /// What a failure means in the light of what was seen of the connection.
    pub(super) fn judge(&self, fault: Fault) -> Fault {
        match (&fault, &*self.fate()) {
            (Fault::Passing { answered: false, .. }, Fate::Untrusted(error)) => Fault::Untrusted(error.clone()),
            _ => fault,
        }
    }

    fn fate(&self) -> std::sync::MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route {
    fn secure(authority: &str, settings: &Tls) -> Result<Self, Failure> {
        let mut config = tls::client_config(settings)?;
        config.alpn_protocols.push(b"h2".to_vec());
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = settings.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Failure::usage(format!("{host} cannot be the name of a server")).because(error))?;
        Ok(Self { authority: authority.to_owned(), tls: Some((Arc::new(config), name)) })
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let tcp = first_to_connect(tokio::net::lookup_host(&self.authority).await?).await?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(tcp),
            Some((config, name)) => Box::new(TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await?),
        })
    }

    /// Whether the server speaks TLS although the scheme is http, or does not although it is https.
    async fn is_of_the_other_scheme(&self) -> bool {
        let answer = async {
            let mut tcp = TcpStream::connect(&self.authority).await?;
            if self.tls.is_some() {
                tcp.write_all(b"GET /version HTTP/1.0\r\n\r\n").await?;
                let mut said = Vec::new();
                tcp.take(512).read_to_end(&mut said).await?;
                // Some servers that speak TLS say so in plain HTTP.
                return Ok(said.starts_with(b"HTTP/") && !said.windows(5).any(|word| word == b"HTTPS"));
            }
            let config = Arc::new(tls::probe_config().map_err(io::Error::other)?);
            // The name is of no interest: nobody is trusted.
            let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
            match TlsConnector::from(config).connect(name, tcp).await {
                Ok(_) => Ok(true),
                Err(error) => Ok(matches!(tls::cause(&error), Some(rustls::Error::AlertReceived(_)))),
            }
        };
        tokio::time::timeout(PROBE, answer).await.is_ok_and(|answer: io::Result<bool>| answer.unwrap_or(false))
    }
}

/// A connection to whichever of a host's addresses answers first. One that is silent does not keep the others waiting for
/// longer than [`STAGGER`], and one that refuses not at all.
async fn first_to_connect(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let (mut addresses, mut running) = (addresses.into_iter(), FuturesUnordered::new());
    let mut failure = io::Error::new(ErrorKind::NotFound, "the host has no address");
    loop {
        match addresses.next() {
            Some(address) => running.push(TcpStream::connect(address)),
            None if running.is_empty() => return Err(failure),
            None => {}
        }
        let patience = if addresses.size_hint().1 == Some(0) { Duration::MAX } else { STAGGER };
        match timeout(patience, running.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => failure = error,
            // It is the next one's turn.
            Ok(None) | Err(_) => {}
        }
    }
}

/// A byte stream, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that remembers why it ended.
struct Witness {
    io: Box<dyn Stream>,
    fate: Arc<Mutex<Fate>>,
    /// Whether anything came.
    heard: bool,
}

impl Witness {
    fn note(&self, error: &io::Error) {
        let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        let fate = match tls::cause(error) {
            Some(error) => Fate::Untrusted(error.clone()),
            None if !self.heard && closed.contains(&error.kind()) => Fate::Silent,
            None => return,
        };
        *self.fate.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    }

    /// Who closes a connection says why, if at all, before; a failed write says only that it is closed.
    fn explained<T>(mut self: Pin<&mut Self>, cx: &mut Context, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if !matches!(write, Poll::Ready(Err(_))) {
            return write;
        }
        let mut space = [0; 512];
        loop {
            let mut last = ReadBuf::new(&mut space);
            match self.as_mut().poll_read(cx, &mut last) {
                Poll::Ready(Ok(())) if !last.filled().is_empty() => {}
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Ready(Ok(())) => return write,
                // The runtime has not noticed yet that there is something to read, if only the end.
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl AsyncRead for Witness {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        match &read {
            Err(error) => self.note(error),
            Ok(()) if buffer.filled().len() > before => self.heard = true,
            Ok(()) => self.note(&ErrorKind::UnexpectedEof.into()),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Witness {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.explained(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.explained(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// An address that answers nothing: its queue of connections is full.
    async fn silent() -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = socket.listen(0).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        (listener, waiting)
    }

    #[test]
    fn a_silent_address_keeps_no_other_waiting() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mute, _waiting) = silent().await;
            let sound = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let refusing = {
                let gone = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
                gone.local_addr().expect("its address")
            };
            let [mute, sound] = [&mute, &sound].map(|listener| listener.local_addr().expect("its address"));
            let connected = timeout(Duration::from_secs(5), first_to_connect([refusing, mute, sound])).await;
            let connected = connected.expect("in time").expect("a connection");
            assert_eq!(connected.peer_addr().expect("its address"), sound);
            let refused = first_to_connect([refusing, refusing]).await.map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
            assert_eq!(first_to_connect([]).await.map(drop).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
        });
    }
}
