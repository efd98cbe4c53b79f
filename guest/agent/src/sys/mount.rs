//! Mounts, by descriptors where they may meet a tenant's symlinks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{check, cstring, owned};

pub const RDONLY: u64 = 0x1;
pub const NOSUID: u64 = 0x2;
pub const NODEV: u64 = 0x4;
pub const NOEXEC: u64 = 0x8;
pub const NOATIME: u64 = 0x10;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_BOTH_EMPTY: libc::c_uint = 0x4 | 0x40;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// mount(2).
pub fn mount(source: &str, target: &str, fstype: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target, fstype, data) = (cstring(source)?, cstring(target)?, cstring(fstype)?, cstring(data)?);
    // SAFETY: all pointers are to C strings that live until the call returns.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.as_ptr().cast()) }
        as libc::c_long)
    .map(drop)
}

/// umount2(2).
pub fn unmount(target: &str, flags: libc::c_int) -> io::Result<()> {
    let target = cstring(target)?;
    // SAFETY: `target` is a C string that lives until the call returns.
    check(unsafe { libc::umount2(target.as_ptr(), flags) } as libc::c_long).map(drop)
}

/// A new file system that is mounted nowhere yet. Options without a value are flags.
pub fn detached(fstype: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    let kind = cstring(fstype)?;
    // SAFETY: `kind` is a C string that lives until the call returns.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?;
    for (key, value) in options {
        configure(&context, key, value)?;
    }
    // SAFETY: no pointers but nulls, which this command takes.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0,
        )
    })?;
    // SAFETY: integers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) })
}

fn configure(context: &OwnedFd, key: &str, value: &str) -> io::Result<()> {
    let (name, text) = (cstring(key)?, cstring(value)?);
    let (command, pointer) =
        if value.is_empty() { (FSCONFIG_SET_FLAG, std::ptr::null()) } else { (FSCONFIG_SET_STRING, text.as_ptr()) };
    // SAFETY: both are C strings (or null for a flag) that live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, name.as_ptr(), pointer, 0) })
        .map(drop)
}

/// A copy of the mount (and what is mounted below it) at `source`, attached nowhere yet.
pub fn clone_tree(source: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: the path is an empty C string literal.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Attaches a detached mount over `target` (a directory or a file).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are empty C string literals.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_BOTH_EMPTY,
        )
    })
    .map(drop)
}

/// Sets attributes (and, if not 0, the propagation) of a mount and of those below it.
pub fn set_attributes(mount: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttr { set, clear: 0, propagation, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` has the layout of `struct mount_attr` and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Makes the current directory the root and forgets the old root.
pub fn pivot_here() -> io::Result<()> {
    let here = c".".as_ptr();
    // SAFETY: `here` is a C string literal.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })?;
    // SAFETY: as above.
    check(unsafe { libc::umount2(here, libc::MNT_DETACH) } as libc::c_long)?;
    std::env::set_current_dir("/")
}

/// chroot(2) to the current directory.
pub fn chroot_here() -> io::Result<()> {
    // SAFETY: the path is a C string literal.
    check(unsafe { libc::chroot(c".".as_ptr()) } as libc::c_long).map(drop)
}

/// (total, used) bytes of the file system at `fd`.
pub fn usage(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: an all-zero statfs is a valid value to be written over.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is large enough for what the kernel writes.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut found) } as libc::c_long)?;
    let block = found.f_bsize as u64;
    Ok((found.f_blocks * block, found.f_blocks.saturating_sub(found.f_bfree) * block))
}
