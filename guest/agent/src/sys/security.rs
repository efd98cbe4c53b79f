//! Capabilities, no_new_privs and seccomp of the calling process.

use std::io;

use super::check;

/// One instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub value: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    filter: *const Instruction,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

fn prctl(option: libc::c_int, value: u64, extra: u64) -> io::Result<()> {
    // SAFETY: integers only: none of the options used here takes a pointer.
    check(unsafe { libc::prctl(option, value, extra, 0, 0) } as libc::c_long).map(drop)
}

/// Drops every capability that is not in `kept` from the bounding set.
pub fn bound_capabilities(kept: u64, last: u32) -> io::Result<()> {
    for number in (0..=last).filter(|n| kept & (1 << n) == 0) {
        prctl(libc::PR_CAPBSET_DROP, u64::from(number), 0)?;
    }
    Ok(())
}

/// Capabilities survive the change of the user.
pub fn keep_capabilities() -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

/// Sets effective and permitted to `set`, and inheritable and ambient to `ambient`.
pub fn set_capabilities(set: u64, ambient: u64, last: u32) -> io::Result<()> {
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |value: u64, high: bool| if high { (value >> 32) as u32 } else { value as u32 };
    let mut data = [0u32; 6];
    for (index, high) in [(0, false), (3, true)] {
        data[index] = half(set, high);
        data[index + 1] = half(set, high);
        data[index + 2] = half(ambient, high);
    }
    // SAFETY: version 3 of the header goes with two blocks of three words each.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    for number in (0..=last).filter(|n| ambient & (1 << n) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(number))?;
    }
    Ok(())
}

pub fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Installs a seccomp filter for this process and all it becomes.
pub fn install_filter(filter: &[Instruction]) -> io::Result<()> {
    let program = Program { length: filter.len() as u16, filter: filter.as_ptr() };
    // SAFETY: `program` has the layout of `struct sock_fprog` and its instructions live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}
