//! Vsock sockets, for the channel to a host that has no virtio-serial port (Firecracker).

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{check, owned};

const FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
const SIZE: libc::socklen_t = mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn empty_address() -> libc::sockaddr_vm {
    // SAFETY: all of its fields are integers, for which zeros are values.
    unsafe { mem::zeroed() }
}

/// A socket that listens on this port and does not block.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let socket = owned(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | FLAGS, 0) }.into())?;
    let mut address = empty_address();
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    // SAFETY: `address` is a sockaddr_vm of SIZE bytes, and lives during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), SIZE) }.into())?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(socket.as_raw_fd(), 1) }.into())?;
    Ok(socket)
}

/// The next connection, which does not block either, and the context it comes from.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, u32)> {
    let (mut address, mut size) = (empty_address(), SIZE);
    // SAFETY: `address` has room for `size` bytes; both live during the call.
    let accepted = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut address).cast(), &raw mut size, FLAGS) };
    Ok((owned(accepted.into())?, address.svm_cid))
}
