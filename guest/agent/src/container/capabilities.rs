//! Which capabilities a container gets.

use crate::error::{Failure, Outcome};
use crate::pb;

/// The highest capability that this code knows; the kernel's may be higher.
pub const LAST: u32 = 40;
pub const ALL: u64 = (1 << (LAST + 1)) - 1;
pub const SYS_ADMIN: u64 = 1 << 21;

/// In the kernel's order: the index is the number.
const NAMES: [&str; LAST as usize + 1] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker gives a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What a process may do: `set` as root; of these, `ambient` stays when it is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub set: u64,
    pub ambient: u64,
}

/// Adds and drops by name ("ALL" first, then single ones), from Docker's default.
pub fn granted(security: &pb::Security) -> Outcome<Granted> {
    if security.privileged {
        return Ok(Granted { set: ALL, ambient: 0 });
    }
    let added = mask(&security.add_capabilities)?;
    let dropped = mask(&security.drop_capabilities)?;
    let start = DEFAULT.iter().filter_map(|name| number(name)).fold(0, |set, n| set | 1 << n);
    // A single capability that is added wins over "drop ALL", a single one that is dropped over "add ALL".
    let set = if dropped == ALL { added } else { (start | added) & !dropped };
    let ambient = if added == ALL { 0 } else { added & set };
    Ok(Granted { set, ambient })
}

fn mask(names: &[String]) -> Outcome<u64> {
    names.iter().try_fold(0, |set, name| {
        if name.eq_ignore_ascii_case("ALL") {
            return Ok(ALL);
        }
        let found = number(name).ok_or_else(|| Failure::invalid(format!("there is no capability {name}")))?;
        Ok(set | 1 << found)
    })
}

fn number(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map(|index| index as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Granted {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let security =
            pb::Security { add_capabilities: owned(add), drop_capabilities: owned(drop), ..Default::default() };
        granted(&security).unwrap()
    }

    #[test]
    fn the_default_is_docker_s() {
        // CapEff of a container of Docker.
        assert_eq!(of(&[], &[]), Granted { set: 0xa804_25fb, ambient: 0 });
    }

    #[test]
    fn drop_all_leaves_what_is_added() {
        assert_eq!(of(&["NET_BIND_SERVICE"], &["ALL"]), Granted { set: 1 << 10, ambient: 1 << 10 });
        assert_eq!(of(&[], &["all"]).set, 0);
    }

    #[test]
    fn add_all_but_one() {
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"]), Granted { set: ALL & !SYS_ADMIN, ambient: 0 });
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let security = pb::Security { add_capabilities: vec!["FLY".into()], ..Default::default() };
        assert_eq!(granted(&security).unwrap_err().message, "there is no capability FLY");
    }

    #[test]
    fn names_may_carry_the_kernel_s_prefix() {
        assert_eq!(number("cap_net_admin"), Some(12));
    }
}
