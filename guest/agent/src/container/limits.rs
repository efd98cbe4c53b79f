//! Resource limits of processes, by the names that images and Docker use.

use crate::error::{Failure, Outcome};
use crate::pb;

const NAMES: [(&str, u32); 16] = [
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

/// Open files of a process that asks for nothing; the kernel's 1,024 is too few for servers.
const NOFILE: (u32, u64, u64) = (libc::RLIMIT_NOFILE, 1_024, 1_048_576);

/// (resource, soft, hard) of each; the last of one name counts.
pub fn resolve(wanted: &[pb::Rlimit]) -> Outcome<Vec<(u32, u64, u64)>> {
    let mut found = vec![NOFILE];
    for limit in wanted {
        let name = limit.name.to_ascii_lowercase();
        let name = name.strip_prefix("rlimit_").unwrap_or(&name);
        let resource = NAMES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource);
        let resource = resource.ok_or_else(|| Failure::invalid(format!("there is no limit named {}", limit.name)))?;
        if limit.soft > limit.hard {
            return Err(Failure::invalid(format!("the soft limit of {name} is above its hard limit")));
        }
        found.push((resource, limit.soft, limit.hard));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, soft: u64, hard: u64) -> Vec<pb::Rlimit> {
        vec![pb::Rlimit { name: name.into(), soft, hard }]
    }

    #[test]
    fn names_are_those_of_images_and_of_docker() {
        assert_eq!(resolve(&limit("nofile", 1, 2)).unwrap()[1], (libc::RLIMIT_NOFILE, 1, 2));
        assert_eq!(resolve(&limit("RLIMIT_CORE", 0, 0)).unwrap()[1], (libc::RLIMIT_CORE, 0, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(resolve(&limit("speed", 1, 1)).is_err());
        assert!(resolve(&limit("core", 2, 1)).is_err());
    }
}
