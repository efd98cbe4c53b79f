//! Files: opening below a root that cannot be left, pipes, modules, randomness, the clock.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{check, cstring, owned};

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_IN_ROOT: u64 = 0x10;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;

/// Opens `path` as a process whose root is `root` would: neither "..", nor absolute links, nor /proc's links lead out.
pub fn open_in_root(root: BorrowedFd<'_>, path: &str, flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
    let path = cstring(if path.is_empty() { "." } else { path })?;
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: if flags & (libc::O_CREAT | libc::O_TMPFILE) == 0 { 0 } else { u64::from(mode) },
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    loop {
        // SAFETY: `path` is a C string and `how` has the layout of `struct open_how`, its size is passed.
        let result = owned(unsafe {
            libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
        });
        match result {
            // A rename raced with the walk: the kernel asks to try again.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
}

/// openat(2) of one name directly below `folder`, never following a link.
pub fn open_at(folder: BorrowedFd<'_>, name: impl Into<Vec<u8>>, flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
    let name = cstring(name)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: `name` is a C string that lives until the call returns.
    owned(unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags, mode) } as libc::c_long)
}

/// Opens a path of our own for use as an anchor.
pub fn open_path(path: &str) -> io::Result<OwnedFd> {
    let path = cstring(path)?;
    // SAFETY: `path` is a C string that lives until the call returns.
    owned(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) } as libc::c_long)
}

pub fn make_directory(folder: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    let name = cstring(name)?;
    // SAFETY: `name` is a C string that lives until the call returns.
    check(unsafe { libc::mkdirat(folder.as_raw_fd(), name.as_ptr(), mode) } as libc::c_long).map(drop)
}

/// mknodat(2); `mode` holds the kind (S_IFCHR…) as well.
pub fn make_node(folder: BorrowedFd<'_>, name: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let name = cstring(name)?;
    let device = libc::makedev(major, minor);
    // SAFETY: `name` is a C string that lives until the call returns.
    check(unsafe { libc::mknodat(folder.as_raw_fd(), name.as_ptr(), mode, device) } as libc::c_long).map(drop)
}

pub fn make_link(target: &str, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let (target, name) = (cstring(target)?, cstring(name)?);
    // SAFETY: both are C strings that live until the call returns.
    check(unsafe { libc::symlinkat(target.as_ptr(), folder.as_raw_fd(), name.as_ptr()) } as libc::c_long).map(drop)
}

/// A hard link from one name to another; neither is followed.
pub fn make_hard_link(from: BorrowedFd<'_>, name: &str, to: BorrowedFd<'_>, new: &str) -> io::Result<()> {
    let (name, new) = (cstring(name)?, cstring(new)?);
    // SAFETY: both are C strings that live until the call returns.
    check(unsafe { libc::linkat(from.as_raw_fd(), name.as_ptr(), to.as_raw_fd(), new.as_ptr(), 0) } as libc::c_long)
        .map(drop)
}

/// unlinkat(2): a file, or an empty directory with `directory`.
pub fn remove_at(folder: BorrowedFd<'_>, name: &str, directory: bool) -> io::Result<()> {
    let name = cstring(name)?;
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: `name` is a C string that lives until the call returns.
    check(unsafe { libc::unlinkat(folder.as_raw_fd(), name.as_ptr(), flags) } as libc::c_long).map(drop)
}

/// Owner, mode (unless `mode` is None: links have none) and time of a name that is not followed.
pub fn set_metadata(
    folder: BorrowedFd<'_>,
    name: &str,
    owner: (u32, u32),
    mode: Option<u32>,
    seconds: i64,
) -> io::Result<()> {
    let name = cstring(name)?;
    let (fd, path) = (folder.as_raw_fd(), name.as_ptr());
    // SAFETY: `path` is a C string that lives until the call returns.
    check(unsafe { libc::fchownat(fd, path, owner.0, owner.1, libc::AT_SYMLINK_NOFOLLOW) } as libc::c_long)?;
    if let Some(mode) = mode {
        // SAFETY: as above. The caller has just made this name, and it is not a link.
        check(unsafe { libc::fchmodat(fd, path, mode, 0) } as libc::c_long)?;
    }
    let stamp = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = [stamp, stamp];
    // SAFETY: `times` is the array of two that the call reads.
    check(unsafe { libc::utimensat(fd, path, times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) } as libc::c_long).map(drop)
}

/// fstatat(2) of a name that is not followed; an empty name: of `folder` itself.
pub fn stat_at(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::stat> {
    // SAFETY: an all-zero stat is a valid value to be written over.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: `name` is a C string and `found` large enough for what the kernel writes.
    check(unsafe { libc::fstatat(folder.as_raw_fd(), name.as_ptr(), &raw mut found, flags) } as libc::c_long)?;
    Ok(found)
}

/// Where a link points to; an empty name: `folder` itself is a descriptor of the link (O_PATH).
pub fn read_link(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the length passed is that of the buffer.
    let length =
        check(
            unsafe { libc::readlinkat(folder.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
                as libc::c_long,
        )?;
    buffer.truncate(length as usize);
    Ok(buffer)
}

/// A pipe (reading end, writing end), both closed on exec; the reading end does not block if asked.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0 as libc::c_int; 2];
    // SAFETY: `ends` is the array of two that the call writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } as libc::c_long)?;
    Ok((owned(libc::c_long::from(ends[0]))?, owned(libc::c_long::from(ends[1]))?))
}

/// Gives a pipe this much room; a refusal changes nothing that matters.
pub fn grow_pipe(pipe: BorrowedFd<'_>, bytes: i32) {
    // SAFETY: integers only.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers only.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } as libc::c_long)? as libc::c_int;
    // SAFETY: integers only.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } as libc::c_long).map(drop)
}

/// read(2).
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the length passed is that of the buffer.
    check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as libc::c_long)
        .map(|n| n as usize)
}

/// write(2).
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the length passed is that of the slice.
    check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as libc::c_long)
        .map(|n| n as usize)
}

/// Frees the blocks of a range of a file; its size stays.
pub fn punch_hole(file: &File, offset: u64, length: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: integers only. A file system that cannot do it keeps the blocks longer.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) };
}

/// finit_module(2). A module that is there already is fine.
pub fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: the parameters are an empty C string literal.
    match check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) }) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

/// Feeds the kernel's random generator and counts the bytes as entropy.
pub fn add_entropy(random: &File, bytes: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    let mut request = Vec::with_capacity(8 + bytes.len());
    request.extend_from_slice(&((bytes.len() * 8) as i32).to_ne_bytes());
    request.extend_from_slice(&(bytes.len() as i32).to_ne_bytes());
    request.extend_from_slice(bytes);
    // SAFETY: the request is laid out as `struct rand_pool_info`: bits, size, that many bytes.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, request.as_ptr()) } as libc::c_long)?;
    // SAFETY: no argument.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) } as libc::c_long).map(drop)
}

/// Drops what the kernel keeps of a block device's content; EBUSY while a file system on it is mounted anywhere.
pub fn flush_device(path: &str) -> io::Result<()> {
    const BLKFLSBUF: libc::c_ulong = 0x1261;
    let device = File::options().read(true).custom_flags(libc::O_EXCL).open(path)?;
    // SAFETY: integers only.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) } as libc::c_long).map(drop)
}

/// What the kernel has said so far is not shown to who asks for its log.
pub fn clear_kernel_log() -> io::Result<()> {
    const CLEAR: libc::c_int = 5;
    // SAFETY: this command takes no buffer.
    check(unsafe { libc::klogctl(CLEAR, std::ptr::null_mut(), 0) } as libc::c_long).map(drop)
}

/// Sets the wall clock, in nanoseconds since 1970.
pub fn set_clock(unix_ns: u64) -> io::Result<()> {
    let time = libc::timespec { tv_sec: (unix_ns / 1_000_000_000) as i64, tv_nsec: (unix_ns % 1_000_000_000) as i64 };
    // SAFETY: `time` lives until the call returns.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) } as libc::c_long).map(drop)
}

/// Time since boot in nanoseconds.
pub fn since_boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is what the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Replaces the content of a file, which is made if missing, without ever leaving it empty for its readers.
pub fn rewrite(path: &str, content: &[u8]) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)
}

/// Writes all file systems to their devices.
pub fn sync_all() {
    // SAFETY: no arguments.
    unsafe { libc::sync() };
}

/// Registers a descriptor with the runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and the same for as long as it lives, and the registration owns it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
