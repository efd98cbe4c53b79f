//! Memory mappings.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::check;

const PAGE: usize = 4_096;
const PAGES: usize = 16;

/// Maps a file and some memory, reads and writes both, protects and unmaps them. The file stays as it is.
pub fn exercise(file: &File) -> io::Result<()> {
    touch(libc::MAP_PRIVATE, file.as_raw_fd(), 1)?;
    touch(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, PAGES)
}

fn touch(flags: libc::c_int, fd: libc::c_int, pages: usize) -> io::Result<()> {
    let (length, access) = (pages * PAGE, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping at an address of the kernel's choice; nothing else is replaced by it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for page in 0..pages {
        // SAFETY: the byte lies within the mapping, which is readable, writable and known to nobody else.
        unsafe {
            let byte = start.cast::<u8>().add(page * PAGE);
            byte.write_volatile(byte.read_volatile());
        }
    }
    // SAFETY: start and length are those of the mapping.
    let result = check(unsafe { libc::mprotect(start, length, libc::PROT_READ) } as libc::c_long).map(drop);
    // SAFETY: as above, and no reference into the mapping exists.
    unsafe { libc::munmap(start, length) };
    result
}
