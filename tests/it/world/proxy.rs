//! A TCP proxy that injects network faults, on open connections too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::closing::{abort_on_close, disconnect_silently};

/// Treatment of the bytes on all connections, old and new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Forwards bytes.
    #[default]
    Pass,
    /// Forwards bytes after this delay in each direction, so a round trip takes twice the delay.
    Delay(Duration),
    /// Forwards requests and drops answers. A connection that lost bytes is reset when the mode changes.
    Swallow,
    /// Holds bytes back in both directions until the mode changes.
    Freeze,
    /// Resets all connections, and new ones at once.
    Cut,
}

/// A proxy on a loopback port in front of one server. Dropping it stops it.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Starts a proxy to this server, in [`Mode::Pass`].
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::Relaxed) {
                    return;
                }
                shared.accept(client, upstream);
            }
        });
        Self { address, state }
    }

    /// Returns the address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the value of `--endpoints`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the mode.
    pub fn set(&self, mode: Mode) {
        let before = std::mem::replace(&mut *self.state.mode(), mode);
        self.state.changed.notify_all();
        if mode == Mode::Cut {
            self.reset();
        } else if before == Mode::Swallow && mode != before {
            self.state.reset_where(|connection| connection.damaged.load(Ordering::Relaxed));
        }
    }

    /// Resets connections on which a client sends this text, from now on; none resets no more.
    pub fn refuse(&self, text: Option<&str>) {
        *self.state.refused() = text.map(|text| text.as_bytes().to_vec());
    }

    /// Resets all open connections.
    pub fn reset(&self) {
        self.state.reset_where(|_| true);
    }

    /// Closes the client's side of all open connections without telling the client, as a firewall does that forgets them.
    /// Returns false if this process lacks the permission.
    pub fn forget(&self) -> bool {
        let connections: Vec<_> = self.state.connections().iter().filter_map(Weak::upgrade).collect();
        connections.iter().all(|connection| disconnect_silently(&connection.client).is_ok())
    }

    /// Returns how many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Returns how many bytes clients and the server have sent so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.state.sent.load(Ordering::Relaxed), self.state.answered.load(Ordering::Relaxed))
    }

    /// Returns how many HTTP/1.1 requests arrived so far. A request line split over two reads is not counted.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        self.set(Mode::Cut);
        // The listener's thread waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

#[derive(Default)]
struct State {
    mode: Mutex<Mode>,
    changed: Condvar,
    closed: AtomicBool,
    refused: Mutex<Option<Vec<u8>>>,
    connections: Mutex<Vec<Weak<Connection>>>,
    accepted: AtomicUsize,
    requests: AtomicUsize,
    sent: AtomicU64,
    answered: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// Two streams, which close when the last of their four threads exits.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// Whether bytes were dropped.
    damaged: AtomicBool,
    /// Whether the connection must be reset at once.
    aborted: AtomicBool,
}

/// Bytes of a stream and their time of arrival; no bytes means the end of the stream.
type Piece = (Instant, Vec<u8>);

impl State {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuses(&self, piece: &[u8]) -> bool {
        self.refused().as_ref().is_some_and(|text| piece.windows(text.len()).any(|window| window == text))
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, client: TcpStream, upstream: SocketAddr) {
        let Ok(server) = TcpStream::connect(upstream) else {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            return abort_on_close(&client);
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("an option of TCP");
        }
        let flag = || AtomicBool::new(false);
        let connection = Arc::new(Connection { client, server, damaged: flag(), aborted: flag() });
        if *self.mode() == Mode::Cut {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            return connection.abort();
        }
        let mut connections = self.connections();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        drop(connections);
        // Counted last: a test that sees the count grow can reset the connection.
        self.accepted.fetch_add(1, Ordering::Relaxed);
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (pieces, arriving) = channel();
            let (state, reading) = (Arc::clone(self), Arc::clone(&connection));
            thread::spawn(move || state.read(&reading, direction, &pieces));
            let (state, writing) = (Arc::clone(self), Arc::clone(&connection));
            thread::spawn(move || state.write(&writing, direction, &arriving));
        }
    }

    /// Reads the bytes that one side sends.
    fn read(&self, connection: &Connection, direction: Direction, pieces: &Sender<Piece>) {
        let mut from = connection.source(direction);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut buffer).unwrap_or(0);
            self.count(direction, &buffer[..length]);
            if direction == Direction::ToServer && self.refuses(&buffer[..length]) {
                return connection.abort();
            }
            if pieces.send((Instant::now(), buffer[..length].to_vec())).is_err() || length == 0 {
                return;
            }
        }
    }

    /// Writes the bytes to the other side when the mode permits, or drops them.
    fn write(&self, connection: &Connection, direction: Direction, pieces: &Receiver<Piece>) {
        let mut to = connection.sink(direction);
        for (arrived_at, piece) in pieces {
            if !self.may_pass(connection, direction, arrived_at) {
                connection.damaged.store(true, Ordering::Relaxed);
            } else if piece.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
            } else if to.write_all(&piece).is_err() {
                return connection.abort();
            }
        }
    }

    /// Waits while the mode holds back bytes that arrived at this time; returns whether to forward them.
    fn may_pass(&self, connection: &Connection, direction: Direction, arrived_at: Instant) -> bool {
        let mut mode = self.mode();
        loop {
            let rest = match *mode {
                _ if connection.aborted.load(Ordering::Relaxed) => return false,
                Mode::Pass => return true,
                Mode::Cut => return false,
                Mode::Swallow => return direction == Direction::ToServer,
                Mode::Delay(delay) => match delay.checked_sub(arrived_at.elapsed()) {
                    Some(rest) if !rest.is_zero() => rest,
                    _ => return true,
                },
                Mode::Freeze => Duration::MAX,
            };
            let waited = self.changed.wait_timeout(mode, rest);
            mode = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn count(&self, direction: Direction, piece: &[u8]) {
        let length = piece.len() as u64;
        if direction == Direction::ToClient {
            self.answered.fetch_add(length, Ordering::Relaxed);
            return;
        }
        self.sent.fetch_add(length, Ordering::Relaxed);
        let mark = b" HTTP/1.1\r\n";
        let requests = piece.windows(mark.len()).filter(|window| window == mark).count();
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }

    fn reset_where(&self, condition: impl Fn(&Connection) -> bool) {
        let connections: Vec<_> = self.connections().iter().filter_map(Weak::upgrade).collect();
        for connection in connections.iter().filter(|connection| condition(connection)) {
            connection.abort();
        }
        // Wakes the threads that wait for another mode; holding the lock ensures that none misses it.
        drop(self.mode());
        self.changed.notify_all();
    }
}

impl Connection {
    fn source(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::ToServer { &self.client } else { &self.server }
    }

    fn sink(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::ToServer { &self.server } else { &self.client }
    }

    /// Makes the threads exit; the last exit resets both streams.
    fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        for stream in [&self.client, &self.server] {
            abort_on_close(stream);
            // Wakes the reading thread and sends nothing. It fails if the stream is already closed.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::thread;
    use std::time::Instant;

    use super::{Mode, Proxy};
    use crate::world::{millis, poll_until, secs};

    /// Starts a server that echoes every byte.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(secs(10))).unwrap();
        stream
    }

    /// Sends a byte and returns the answer.
    fn ask(stream: &mut TcpStream) -> Result<u8, ErrorKind> {
        let mut answer = [0];
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut answer)).map_err(|error| error.kind())?;
        Ok(answer[0])
    }

    /// Asserts that a byte gets no answer within 200 ms.
    fn assert_no_answer(stream: &mut TcpStream) {
        stream.set_read_timeout(Some(millis(200))).unwrap();
        assert_eq!(ask(stream), Err(ErrorKind::WouldBlock));
        stream.set_read_timeout(Some(secs(10))).unwrap();
    }

    #[test]
    fn pass_forwards_and_counts() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        assert_eq!((proxy.connections(), proxy.bytes(), proxy.requests()), (1, (18, 18), 1));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end is forwarded in both directions");
    }

    #[test]
    fn swallow_drops_answers() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        proxy.set(Mode::Swallow);
        assert_no_answer(&mut stream);
        poll_until("the dropped answer", secs(30), || proxy.bytes() == (1, 1));
        proxy.set(Mode::Pass);
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(ask(&mut connect(&proxy)), Ok(b'x'));
    }

    #[test]
    fn freeze_holds_bytes_back() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        proxy.set(Mode::Freeze);
        assert_no_answer(&mut stream);
        proxy.set(Mode::Pass);
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn delay_counts_in_each_direction() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        proxy.set(Mode::Delay(millis(50)));
        let started = Instant::now();
        assert_eq!(ask(&mut stream), Ok(b'x'));
        assert!(started.elapsed() >= millis(100));
    }

    #[test]
    fn refused_text_resets_the_connection() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        proxy.refuse(Some("x"));
        assert_eq!(ask(&mut stream), Err(ErrorKind::ConnectionReset));
        proxy.refuse(Some("y"));
        assert_eq!(ask(&mut connect(&proxy)), Ok(b'x'));
    }

    #[test]
    fn cut_resets_old_and_new_connections() {
        let proxy = Proxy::to(echo());
        let mut old = connect(&proxy);
        assert_eq!(ask(&mut old), Ok(b'x'));
        proxy.set(Mode::Cut);
        assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(ask(&mut connect(&proxy)).is_err());
        proxy.set(Mode::Pass);
        assert_eq!(ask(&mut connect(&proxy)), Ok(b'x'));
    }
}
