//! The default system call filter: what is dangerous without a capability is refused, the rest is not looked at.
//!
//! A list of refusals instead of Docker's list of permissions: the kernel keeps a bitmap of system calls that a filter
//! always allows and does not run the filter for them, so the common ones cost nothing. Numbers are x86-64's.

use super::capabilities::SYS_ADMIN;
use crate::sys::security::Instruction;

const fn cap(number: u32) -> u64 {
    1 << number
}

/// (system call, capabilities of which one permits it; 0: nothing does).
const REFUSED: &[(i64, u64)] = &[
    (libc::SYS_acct, cap(20)),
    (libc::SYS_add_key, 0),
    (libc::SYS_bpf, SYS_ADMIN | cap(39)),
    (libc::SYS_clock_adjtime, cap(25)),
    (libc::SYS_clock_settime, cap(25)),
    (libc::SYS_delete_module, cap(16)),
    (libc::SYS_fanotify_init, SYS_ADMIN),
    (libc::SYS_finit_module, cap(16)),
    (libc::SYS_fsconfig, SYS_ADMIN),
    (libc::SYS_fsmount, SYS_ADMIN),
    (libc::SYS_fsopen, SYS_ADMIN),
    (libc::SYS_fspick, SYS_ADMIN),
    (libc::SYS_get_mempolicy, cap(23)),
    (libc::SYS_init_module, cap(16)),
    (libc::SYS_io_uring_enter, 0),
    (libc::SYS_io_uring_register, 0),
    (libc::SYS_io_uring_setup, 0),
    (libc::SYS_ioperm, cap(17)),
    (libc::SYS_iopl, cap(17)),
    (libc::SYS_kcmp, cap(19)),
    (libc::SYS_kexec_file_load, cap(22)),
    (libc::SYS_kexec_load, cap(22)),
    (libc::SYS_keyctl, 0),
    (libc::SYS_lookup_dcookie, SYS_ADMIN),
    (libc::SYS_mbind, cap(23)),
    (libc::SYS_migrate_pages, cap(23)),
    (libc::SYS_mount, SYS_ADMIN),
    (libc::SYS_mount_setattr, SYS_ADMIN),
    (libc::SYS_move_mount, SYS_ADMIN),
    (libc::SYS_move_pages, cap(23)),
    (libc::SYS_nfsservctl, 0),
    (libc::SYS_open_by_handle_at, cap(2)),
    (libc::SYS_open_tree, SYS_ADMIN),
    (libc::SYS_perf_event_open, SYS_ADMIN | cap(38)),
    (libc::SYS_pivot_root, SYS_ADMIN),
    (libc::SYS_quotactl, SYS_ADMIN),
    (libc::SYS_quotactl_fd, SYS_ADMIN),
    (libc::SYS_reboot, cap(22)),
    (libc::SYS_request_key, 0),
    (libc::SYS_set_mempolicy, cap(23)),
    (libc::SYS_setdomainname, SYS_ADMIN),
    (libc::SYS_sethostname, SYS_ADMIN),
    (libc::SYS_setns, SYS_ADMIN),
    (libc::SYS_settimeofday, cap(25)),
    (libc::SYS_swapoff, SYS_ADMIN),
    (libc::SYS_swapon, SYS_ADMIN),
    (libc::SYS__sysctl, 0),
    (libc::SYS_sysfs, 0),
    (libc::SYS_syslog, SYS_ADMIN | cap(34)),
    (libc::SYS_umount2, SYS_ADMIN),
    (libc::SYS_unshare, SYS_ADMIN),
    (libc::SYS_uselib, 0),
    (libc::SYS_userfaultfd, SYS_ADMIN),
    (libc::SYS_ustat, 0),
    (libc::SYS_vhangup, cap(26)),
];

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const X86_64: u32 = 0xc000_003e;
/// Bit of the system call numbers of the x32 ABI, which nothing uses.
const X32: u32 = 0x4000_0000;
const NEW_NAMESPACES: u32 = 0x7e02_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_MACHINE: u32 = 4;
const OFFSET_FIRST_ARGUMENT: u32 = 16;

const fn step(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

/// The filter for a process with these capabilities.
///
/// Programs for other machines (32-bit) get ENOSYS: their numbers mean other calls. So does clone3, whose flags a filter
/// cannot read: the C libraries then use clone.
pub fn filter(capabilities: u64) -> Vec<Instruction> {
    let mut program = vec![
        step(LOAD, OFFSET_MACHINE, 0, 0),
        step(EQUAL, X86_64, 1, 0),
        step(RETURN, ERRNO | libc::ENOSYS as u32, 0, 0),
        step(LOAD, OFFSET_NUMBER, 0, 0),
        step(AT_LEAST, X32, 0, 1),
        step(RETURN, ERRNO | libc::ENOSYS as u32, 0, 0),
    ];
    for (number, permitted_by) in REFUSED {
        if permitted_by & capabilities == 0 {
            program.push(step(EQUAL, *number as u32, 0, 1));
            program.push(step(RETURN, ERRNO | libc::EPERM as u32, 0, 0));
        }
    }
    if capabilities & SYS_ADMIN == 0 {
        program.extend([
            step(EQUAL, libc::SYS_clone3 as u32, 0, 1),
            step(RETURN, ERRNO | libc::ENOSYS as u32, 0, 0),
            step(EQUAL, libc::SYS_clone as u32, 0, 3),
            step(LOAD, OFFSET_FIRST_ARGUMENT, 0, 0),
            step(ANY_BIT, NEW_NAMESPACES, 0, 1),
            step(RETURN, ERRNO | libc::EPERM as u32, 0, 0),
        ]);
    }
    program.push(step(RETURN, ALLOW, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with a call: runs the program as it does.
    fn verdict(program: &[Instruction], machine: u32, number: i64, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let now = program[at];
            at += 1;
            let taken = match now.code {
                LOAD => {
                    value = match now.value {
                        OFFSET_NUMBER => number as u32,
                        OFFSET_MACHINE => machine,
                        OFFSET_FIRST_ARGUMENT => argument,
                        other => panic!("offset {other}"),
                    };
                    continue;
                }
                RETURN => return now.value,
                EQUAL => value == now.value,
                AT_LEAST => value >= now.value,
                ANY_BIT => value & now.value != 0,
                other => panic!("code {other}"),
            };
            at += usize::from(if taken { now.jump_true } else { now.jump_false });
        }
    }

    const REFUSE: u32 = ERRNO | libc::EPERM as u32;
    const MISSING: u32 = ERRNO | libc::ENOSYS as u32;

    #[test]
    fn ordinary_calls_pass_and_dangerous_ones_do_not() {
        let program = filter(0);
        assert_eq!(verdict(&program, X86_64, libc::SYS_read, 0), ALLOW);
        assert_eq!(verdict(&program, X86_64, libc::SYS_execve, 0), ALLOW);
        for (number, _) in REFUSED {
            assert_eq!(verdict(&program, X86_64, *number, 0), REFUSE, "{number}");
        }
    }

    #[test]
    fn a_capability_opens_its_calls_only() {
        let program = filter(SYS_ADMIN);
        assert_eq!(verdict(&program, X86_64, libc::SYS_mount, 0), ALLOW);
        assert_eq!(verdict(&program, X86_64, libc::SYS_clone3, 0), ALLOW);
        assert_eq!(verdict(&program, X86_64, libc::SYS_init_module, 0), REFUSE);
        assert_eq!(verdict(&program, X86_64, libc::SYS_keyctl, 0), REFUSE);
    }

    #[test]
    fn clone_makes_processes_but_no_namespaces() {
        let program = filter(0);
        assert_eq!(verdict(&program, X86_64, libc::SYS_clone, libc::SIGCHLD as u32), ALLOW);
        assert_eq!(verdict(&program, X86_64, libc::SYS_clone, libc::CLONE_NEWUSER as u32), REFUSE);
        assert_eq!(verdict(&program, X86_64, libc::SYS_clone3, 0), MISSING);
    }

    #[test]
    fn other_machines_and_x32_find_no_calls() {
        let program = filter(u64::MAX);
        assert_eq!(verdict(&program, 0x4000_0003, libc::SYS_read, 0), MISSING);
        assert_eq!(verdict(&program, X86_64, libc::SYS_read | i64::from(X32), 0), MISSING);
    }
}
