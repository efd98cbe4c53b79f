//! What makes one guest differ from another of the same template: randomness, clock, machine id, boot id.

use std::fs::{self, File};

use crate::error::{Context, Failure, Outcome};
use crate::sys::files;

/// What containers read in /etc/machine-id, unless their image has one.
pub const MACHINE_ID: &str = "/run/cuboid/etc/machine-id";
/// What containers read in /proc/sys/kernel/random/boot_id.
pub const BOOT_ID: &str = "/run/cuboid/etc/boot_id";
/// Two clones that got this much from the host share no randomness: the strength of the kernel's generator.
const LEAST_ENTROPY: usize = 32;
const MOST_ENTROPY: usize = 4_096;
const UUID: [usize; 5] = [8, 4, 4, 4, 12];

/// Credits the bytes to the kernel's generator and has it begin anew with them; nothing leaves it be.
pub fn reseed(entropy: &[u8]) -> Outcome<()> {
    if entropy.is_empty() {
        return Ok(());
    }
    let random = File::options().write(true).open("/dev/urandom").context("opening the random generator")?;
    files::add_entropy(&random, &entropy[..entropy.len().min(MOST_ENTROPY)]).context("adding entropy")
}

/// As `reseed`, for a guest that is certainly one of several: INVALID without enough bytes.
pub fn reseed_clone(entropy: &[u8]) -> Outcome<()> {
    if entropy.len() < LEAST_ENTROPY {
        let got = entropy.len();
        return Err(Failure::invalid(format!("a restored guest needs {LEAST_ENTROPY} bytes of entropy, not {got}")));
    }
    reseed(entropy)
}

/// 0 leaves the clock be.
pub fn set_clock(now_unix_ns: u64) -> Outcome<()> {
    if now_unix_ns == 0 {
        return Ok(());
    }
    files::set_clock(now_unix_ns).context("setting the clock")
}

/// Writes the ids for the containers; what is empty stays. Gives the boot id, which is the kernel's if there is no other.
pub fn write_ids(machine_id: &str, boot_id: &str) -> Outcome<String> {
    check_ids(machine_id, boot_id)?;
    if !machine_id.is_empty() {
        write(MACHINE_ID, machine_id)?;
    }
    if !boot_id.is_empty() {
        write(BOOT_ID, boot_id)?;
        return Ok(boot_id.to_owned());
    }
    // The kernel makes its own when it is first read, so never before the generator was seeded.
    let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
    Ok(own.trim().to_owned())
}

fn write(path: &str, id: &str) -> Outcome<()> {
    files::rewrite(path, format!("{id}\n").as_bytes()).context_with(|| format!("writing {path}"))
}

/// INVALID unless both are empty or well formed.
pub fn check_ids(machine_id: &str, boot_id: &str) -> Outcome<()> {
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !machine_id.is_empty() && (machine_id.len() != 32 || !hexadecimal(machine_id)) {
        return Err(Failure::invalid(format!("{machine_id:?} is no machine id of 32 hexadecimal digits")));
    }
    let is_uuid = || boot_id.split('-').map(str::len).eq(UUID) && boot_id.split('-').all(hexadecimal);
    if !boot_id.is_empty() && !is_uuid() {
        return Err(Failure::invalid(format!("{boot_id:?} is no boot id in the form of a UUID")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn ids_have_their_form_or_are_refused() {
        let (machine, boot) = ("0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(check_ids(machine, boot), Ok(()));
        assert_eq!(check_ids("", ""), Ok(()));
        for bad in ["0123", &"x".repeat(32), "0123456789abcdef0123456789abcdef\n"] {
            assert_eq!(check_ids(bad, "").unwrap_err().code, Code::Invalid, "{bad}");
        }
        for bad in [machine, "01234567-89ab-cdef-0123-456789abcde", "g1234567-89ab-cdef-0123-456789abcdef"] {
            assert_eq!(check_ids("", bad).unwrap_err().code, Code::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_clone_without_enough_entropy_is_refused_before_anything_else() {
        for count in [0, 1, LEAST_ENTROPY - 1] {
            assert_eq!(reseed_clone(&vec![1; count]).unwrap_err().code, Code::Invalid);
        }
    }
}
