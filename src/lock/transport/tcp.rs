//! Detection of dead connections: firewalls forget idle ones, and hosts vanish without a word.
//!
//! Together the values make a dead connection fail within [`DETECTION_LIMIT`], whether it is idle or data is sent on it.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Longest time until a dead connection fails.
pub(crate) const DETECTION_LIMIT: Duration = Duration::from_secs(5);
/// Time without data after which the kernel probes the peer.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
/// Interval between two probes that are not answered.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Number of probes.
pub(crate) const KEEPALIVE_PROBES: u32 = 3;

/// Makes a connection fail within [`DETECTION_LIMIT`] if its peer does not answer.
pub(crate) fn detect_dead_peer(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    let milliseconds = u32::try_from(DETECTION_LIMIT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_end_within_the_limit() {
        assert!(KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES <= DETECTION_LIMIT);
    }
}
