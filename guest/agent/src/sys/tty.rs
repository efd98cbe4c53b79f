//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{check, files, owned};

/// A new terminal of the devpts instance `devpts`: (master, slave, number).
pub fn open_pair(devpts: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd, u32)> {
    let master = files::open_at(devpts, "ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    let (mut unlock, mut number): (libc::c_int, libc::c_uint) = (0, 0);
    // SAFETY: both calls read or write one integer that lives until they return.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw mut unlock) as libc::c_long)?;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) as libc::c_long)?;
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: integers only; the result is a new descriptor.
    let slave = owned(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) } as libc::c_long)?;
    Ok((master, slave, number))
}

/// Sets the size; the kernel tells the programs (SIGWINCH).
pub fn resize(terminal: BorrowedFd<'_>, rows: u32, columns: u32) -> io::Result<()> {
    let cut = |value: u32| value.min(u32::from(u16::MAX)) as u16;
    let size = libc::winsize { ws_row: cut(rows), ws_col: cut(columns), ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` lives until the call returns.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } as libc::c_long).map(drop)
}

/// Makes the terminal the controlling one of this session.
pub fn control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) } as libc::c_long).map(drop)
}
