//! Processes: clone, namespaces, waiting, identity, the end of the machine.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{check, cstring, owned};

/// libc has it in a type that is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3 gave the parent: the child's number and a descriptor of it.
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Forks into the cgroup and the new namespaces; `None` in the child.
///
/// The agent has one thread, so the child may do what any program may.
pub fn fork(namespaces: u64, cgroup: BorrowedFd<'_>) -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args asks for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces | libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: `arguments` has the layout the kernel asks for and its size is passed; without CLONE_VM and a stack this
    // is a fork, and no other thread exists whose locks the child could miss.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(Child { pid: pid as i32, pidfd: owned(libc::c_long::from(pidfd))? }))
}

/// Large buffers come from the kernel and go back to it when they are freed, however many there have been; by itself
/// the C library keeps more and more of them.
pub fn return_large_buffers() {
    const AT_LEAST: libc::c_int = 128 << 10;
    // SAFETY: integers only.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, AT_LEAST) };
}

/// `uname -r`
pub fn kernel_release() -> String {
    // SAFETY: an all-zero utsname is a valid value to be written over.
    let mut found: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is what the call writes.
    unsafe { libc::uname(&raw mut found) };
    let bytes: Vec<u8> = found.release.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes of memory that the kernel has: MemTotal of /proc/meminfo, without counting all else that is in there.
pub fn total_memory() -> u64 {
    // SAFETY: an all-zero sysinfo is a valid value to be written over.
    let mut found: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is what the call writes.
    unsafe { libc::sysinfo(&raw mut found) };
    found.totalram * u64::from(found.mem_unit)
}

/// Ends this process at once: no destructor, no flush. For the child of a fork.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::unshare(flags) } as libc::c_long).map(drop)
}

/// Joins namespaces; `namespace` is a pidfd or a descriptor of a namespace file.
pub fn join(namespace: BorrowedFd<'_>, kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kinds) } as libc::c_long).map(drop)
}

/// One ended child: (pid, wait status); `None` when no more has ended.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is what the call writes.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// A descriptor that becomes readable when a child has ended. The signal is blocked from now on.
pub fn child_signals() -> io::Result<OwnedFd> {
    let mask = signal_set(&[libc::SIGCHLD]);
    // SAFETY: `mask` is a signal set made by sigemptyset and sigaddset.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut()) } as libc::c_long)?;
    // SAFETY: as above.
    owned(unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } as libc::c_long)
}

fn signal_set(numbers: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: an all-zero set is what sigemptyset makes of it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    for number in numbers {
        // SAFETY: `set` is ours; a wrong number is refused.
        unsafe { libc::sigaddset(&raw mut set, *number) };
    }
    set
}

/// Nothing blocked and nothing ignored, as a program expects to be started.
pub fn reset_signals() {
    let none = signal_set(&[]);
    // SAFETY: `none` is an empty set; SIG_DFL is always a valid disposition.
    unsafe {
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::kill(pid, signal) } as libc::c_long).map(drop)
}

/// Signals the very process of the descriptor, never one that has its number later.
pub fn kill_fd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the signal info may be null.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) })
        .map(drop)
}

pub fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() } as libc::c_long).map(drop)
}

pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the length passed is that of the string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } as libc::c_long).map(drop)
}

pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: the length passed is that of the string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } as libc::c_long).map(drop)
}

pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives until the call returns.
    check(unsafe { libc::setrlimit(resource, &raw const limit) } as libc::c_long).map(drop)
}

pub fn set_umask(mask: u32) {
    // SAFETY: integers only.
    unsafe { libc::umask(mask) };
}

/// Makes `fd` the descriptor `number`, open across exec.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: integers only; `number` is 0, 1 or 2, which nothing here owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) } as libc::c_long).map(drop)
}

/// Becomes the user: supplementary groups, group, user, in this order.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the length passed is that of the slice. The system calls are made directly: one thread is all there is.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Replaces the program. Returns only the error.
pub fn execute(path: &str, arguments: &[CString], environment: &[CString]) -> io::Result<Infallible> {
    let path = cstring(path)?;
    let mut argv: Vec<_> = arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let mut envp: Vec<_> = environment.iter().map(|e| e.as_ptr()).collect();
    envp.push(std::ptr::null());
    // SAFETY: both are null-terminated arrays of C strings that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Turns the machine off; resets it where it has no power switch. The VMM takes either for the end.
pub fn power_off() -> ! {
    // SAFETY: ends the machine; nothing that Rust holds is used afterwards.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
        libc::reboot(libc::RB_AUTOBOOT);
        libc::_exit(1)
    }
}

/// Resets the machine, without the attempt at a power switch.
pub fn reset_machine() -> ! {
    // SAFETY: as for `power_off`.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
        libc::_exit(1)
    }
}

/// Waits for ever and reaps every child that ends: the whole life of a pod's first process.
pub fn rest_and_reap() -> ! {
    loop {
        let mut status = 0;
        // SAFETY: `status` is what the call writes; without children pause() waits for a signal.
        unsafe {
            if libc::waitpid(-1, &raw mut status, 0) < 0 {
                libc::pause();
            }
        }
    }
}

/// Closes every descriptor from `first` on. For a child that never executes a program.
pub fn close_from(first: u32) {
    // SAFETY: the caller never comes back to code that uses one of them.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_as_in_its_files() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(kernel_release(), release.trim_end());
        assert_eq!(total_memory(), crate::stats::memory().0);
    }
}
