//! The routing netlink socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{check, owned};

pub fn open_route_socket() -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    owned(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) }
        as libc::c_long)
}

/// Sends one message and gives the answer's bytes.
pub fn exchange(socket: &OwnedFd, message: &[u8]) -> io::Result<Vec<u8>> {
    // SAFETY: the length passed is that of the slice.
    check(unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) } as libc::c_long)?;
    receive(socket)
}

/// The next part of an answer.
pub fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut answer = vec![0u8; 32 << 10];
    // SAFETY: the length passed is that of the buffer.
    let length =
        check(unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) } as libc::c_long)?;
    answer.truncate(length as usize);
    Ok(answer)
}
