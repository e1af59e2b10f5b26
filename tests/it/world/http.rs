//! Minimal HTTP/1.0 client for direct requests to servers: one answer per connection, never chunked.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{millis, secs};

/// Status code and body of an answer.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Sends a request; returns an error if there is no answer.
pub fn request(server: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    request_with(server, method, path, "", body)
}

/// Sends a request with further header lines, each ended by `\r\n`.
pub fn request_with(server: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// Repeats a request until the server answers with a status below 500; panics after 30 s. Broken connections and server
/// errors are temporary, for example during an election.
#[track_caller]
pub fn answer(server: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let started = Instant::now();
    loop {
        let late = started.elapsed() >= secs(30);
        let failure = match request_with(server, method, path, headers, body) {
            Ok(answer) if answer.status < 500 => return answer,
            Ok(answer) => format!("{}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        assert!(!late, "{method} {path}: {failure}");
        thread::sleep(millis(50));
    }
}

/// Sends a request that must succeed; returns its answer as JSON (null if empty).
#[track_caller]
pub fn json(server: SocketAddr, method: &str, path: &str, body: &str) -> Value {
    json_with(server, method, path, "", body)
}

/// Sends a request as [`json`] does, with further header lines, each ended by `\r\n`.
#[track_caller]
pub fn json_with(server: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Value {
    let answer = answer(server, method, path, headers, body);
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
    if answer.body.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {}", answer.body))
}

/// Percent-encodes a path.
pub fn encode_path(path: &str) -> String {
    path.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(byte.into()),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string"),
        }
        encoded
    })
}
