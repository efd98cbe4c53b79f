//! The only place with `unsafe`: thin, typed doors to Linux. Nothing here decides anything.

pub mod files;
pub mod memory;
pub mod mount;
pub mod net;
pub mod process;
pub mod security;
pub mod tty;
pub mod vsock;

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `Ok(value)`, or what errno says when the call returned -1.
pub(crate) fn check(value: libc::c_long) -> io::Result<libc::c_long> {
    if value == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The descriptor that a successful call returned.
pub(crate) fn owned(value: libc::c_long) -> io::Result<OwnedFd> {
    let raw = check(value)? as libc::c_int;
    // SAFETY: the kernel has just given this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A C string; a NUL inside is EINVAL, as it can name nothing.
pub fn cstring(text: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// An error with this errno.
pub fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
