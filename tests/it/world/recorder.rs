//! A proxy that records HTTP requests, for properties that the servers of these tests do not show.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// An HTTP proxy on a loopback port. It lives as long as the test process.
pub struct Recorder {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The method, the path with its query, and the version.
    pub line: String,
    /// The header lines.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl Recorder {
    /// Starts a proxy to this server; `change` returns the request to forward.
    pub fn to(server: SocketAddr, change: fn(Recorded) -> Recorded) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let recorded = Arc::clone(&recorded);
                thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    recorded.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                    // Either side may have closed its connection.
                    let _ = forward(stream, server, &change(request));
                });
            }
        });
        Self { address, requests }
    }

    /// Returns the value of `--endpoints`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(stream: &TcpStream) -> Option<Recorded> {
    let mut lines = BufReader::new(stream);
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    // A client may close its connection without a request.
    let line = next().filter(|line| !line.is_empty())?;
    let headers: Vec<_> = std::iter::from_fn(|| next().filter(|line| !line.is_empty())).collect();
    let length = headers.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    lines.read_exact(&mut body).ok()?;
    Some(Recorded { line, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Forwards one request to the server and its answer, unparsed, to the client.
fn forward(mut client: TcpStream, server: SocketAddr, request: &Recorded) -> io::Result<()> {
    let Recorded { line, headers, body } = request;
    let is_forwarded = |header: &&String| {
        let name = header.split(':').next().unwrap_or_default().to_lowercase();
        name != "content-length" && name != "connection"
    };
    let headers: String = headers.iter().filter(is_forwarded).map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let mut server = TcpStream::connect(server)?;
    let added = format!("Connection: close\r\nContent-Length: {length}\r\n");
    server.write_all(format!("{line}\r\n{headers}{added}\r\n{body}").as_bytes())?;
    io::copy(&mut server, &mut client).map(drop)
}
