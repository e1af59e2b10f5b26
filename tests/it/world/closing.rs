//! Ways to close a connection that the standard library does not have.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// Disconnects a socket in the kernel's repair mode, in which no packet is sent.
#[allow(unsafe_code, reason = "nix has no such option of TCP")]
pub(super) fn disconnect_silently(stream: &TcpStream) -> nix::Result<()> {
    let fd = stream.as_raw_fd();
    let on: libc::c_int = 1;
    let size = |bytes: usize| libc::socklen_t::try_from(bytes).unwrap_or_default();
    // The family 0 is AF_UNSPEC: to no peer.
    // SAFETY: the descriptor is open, and both pointers name a value of the given size.
    unsafe {
        let option =
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, (&raw const on).cast(), size(size_of_val(&on)));
        Errno::result(option)?;
        let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
        Errno::result(libc::connect(fd, &raw const nowhere, size(size_of_val(&nowhere)))).map(drop)
    }
}

/// Makes the close of a stream a reset instead of a FIN.
pub(super) fn abort_on_close(stream: &TcpStream) {
    let no_linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &no_linger).expect("an option of TCP");
}
