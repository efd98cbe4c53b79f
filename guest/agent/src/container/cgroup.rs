//! A container's cgroup: limits, counters, the end of everything in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::boot::PODS;
use crate::error::{Code, Context, Failure, Outcome};
use crate::pb;

const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no quota below this; a smaller share has a longer period.
const LEAST_QUOTA_US: u64 = 1_000;
const LONGEST_PERIOD_US: u64 = 1_000_000;

/// A limit that counts from when it is applied.
pub struct Pending {
    file: File,
    value: String,
}

impl Pending {
    pub fn apply(&self) -> Outcome<()> {
        (&self.file).write_all(self.value.as_bytes()).context_with(|| format!("setting cpu.max to {}", self.value))
    }
}

pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup with its limits; one that an earlier attempt left is taken over.
    pub fn create(name: &str, resources: &pb::Resources) -> Outcome<Self> {
        let cgroup = Self::at(name);
        match fs::create_dir(&cgroup.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
        .context("making the container's cgroup")?;
        for (file, value) in settings(resources) {
            let written = fs::write(cgroup.path.join(file), &value);
            written.context_with(|| format!("setting {file} to {value}"))?;
        }
        Ok(cgroup)
    }

    /// The one of this name, whether it is there or not.
    pub fn at(name: &str) -> Self {
        Self { path: Path::new(PODS).join(name) }
    }

    /// The limit of CPU time. It is for the program: what the agent does to start it is not held to it, for at a
    /// twentieth of a CPU that alone would take half a second.
    pub fn cpu_limit(&self, resources: &pb::Resources) -> Outcome<Option<Pending>> {
        if resources.cpu_millis == 0 {
            return Ok(None);
        }
        let file = File::options().write(true).open(self.path.join("cpu.max")).context("opening cpu.max")?;
        Ok(Some(Pending { file, value: cpu_max(resources.cpu_millis) }))
    }

    /// Other limits while it runs. CONFLICT if more memory is in use than it may have from now on: the kernel would
    /// end processes for it.
    pub fn change(&self, resources: &pb::Resources) -> Outcome<()> {
        let used = self.number("memory.current").saturating_sub(self.value("memory.stat", "inactive_file"));
        if resources.memory_bytes > 0 && used > resources.memory_bytes {
            let what =
                format!("{used} bytes of memory are in use, more than the new limit of {}", resources.memory_bytes);
            return Err(Failure::new(Code::Conflict, what));
        }
        for (file, value) in changes(resources) {
            let written = fs::write(self.path.join(file), &value);
            written.context_with(|| format!("setting {file} to {value}"))?;
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor for clone3.
    pub fn open(&self) -> io::Result<OwnedFd> {
        crate::sys::files::open_path(&self.path.to_string_lossy())
    }

    /// The cgroup that `pid` is in now: a container that manages cgroups has moved out of its own, which then takes nobody.
    pub fn open_of(pid: i32) -> io::Result<OwnedFd> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let inner = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        crate::sys::files::open_path(&format!("/sys/fs/cgroup/{inner}"))
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// A key of a flat keyed file such as memory.events; 0 if it is not there.
    pub fn value(&self, file: &str, key: &str) -> u64 {
        keyed(&self.read(file), key)
    }

    pub fn number(&self, file: &str) -> u64 {
        self.read(file).trim().parse().unwrap_or(0)
    }

    /// How often the OOM killer has ended a process of it, for its own limit or the whole guest's.
    pub fn oom_kills(&self) -> u64 {
        self.value("memory.events", "oom_kill")
    }

    /// SIGKILL to everything in it.
    pub fn kill(&self) {
        // It may be gone already.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Every process in it, and in cgroups that it made.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            folders.extend(children(&folder));
        }
        found
    }

    /// Ends what is in it and removes it, with the cgroups that it made.
    pub async fn remove(&self) {
        for _ in 0..200 {
            self.kill();
            if remove_tree(&self.path).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Quota and period for a share of a CPU.
fn cpu_max(millis: u32) -> String {
    let quota = u64::from(millis) * CPU_PERIOD_US / 1_000;
    if quota >= LEAST_QUOTA_US {
        return format!("{quota} {CPU_PERIOD_US}");
    }
    let period = LEAST_QUOTA_US * 1_000 / u64::from(millis.max(1));
    format!("{LEAST_QUOTA_US} {}", period.min(LONGEST_PERIOD_US))
}

/// The files to write and what.
fn settings(resources: &pb::Resources) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if resources.cpu_weight > 0 {
        found.push(("cpu.weight", resources.cpu_weight.clamp(1, 10_000).to_string()));
    }
    if resources.memory_bytes > 0 {
        found.push(("memory.max", resources.memory_bytes.to_string()));
        // As Kubernetes does: a container without one of its processes is rarely worth anything.
        found.push(("memory.oom.group", "1".to_owned()));
    }
    if resources.pids > 0 {
        found.push(("pids.max", resources.pids.to_string()));
    }
    found
}

/// The files to write for a container that has had other limits, and what.
fn changes(resources: &pb::Resources) -> Vec<(&'static str, String)> {
    let without = || "max".to_owned();
    let cpu = if resources.cpu_millis > 0 { cpu_max(resources.cpu_millis) } else { without() };
    let memory = if resources.memory_bytes > 0 { resources.memory_bytes.to_string() } else { without() };
    let weight = if resources.cpu_weight > 0 { resources.cpu_weight.min(10_000) } else { 100 };
    let mut found = vec![("cpu.weight", weight.to_string()), ("cpu.max", cpu), ("memory.max", memory)];
    if resources.pids > 0 {
        found.push(("pids.max", resources.pids.to_string()));
    }
    found
}

/// The number after `key` in lines of "key number".
pub fn keyed(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(found, _)| *found == key).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_the_kernel_s_files() {
        let resources = pb::Resources { cpu_millis: 250, cpu_weight: 20_000, memory_bytes: 1 << 20, pids: 7 };
        let expected =
            [("cpu.weight", "10000"), ("memory.max", "1048576"), ("memory.oom.group", "1"), ("pids.max", "7")];
        let found = settings(&resources);
        assert_eq!(found.iter().map(|(file, value)| (*file, value.as_str())).collect::<Vec<_>>(), expected);
        assert!(settings(&pb::Resources::default()).is_empty());
    }

    #[test]
    fn a_change_says_all_limits_also_those_that_go() {
        let given = pb::Resources { cpu_millis: 250, cpu_weight: 0, memory_bytes: 1 << 20, pids: 0 };
        let limited = [("cpu.weight", "100"), ("cpu.max", "25000 100000"), ("memory.max", "1048576")];
        let free = [("cpu.weight", "100"), ("cpu.max", "max"), ("memory.max", "max")];
        for (resources, expected) in [(given, limited), (pb::Resources::default(), free)] {
            let found = changes(&resources);
            assert_eq!(found.iter().map(|(file, value)| (*file, value.as_str())).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_small_share_of_the_cpu_is_kept_though_the_kernel_takes_no_quota_below_a_millisecond() {
        let found: Vec<_> = [2_500, 250, 50, 10, 5, 1].into_iter().map(cpu_max).collect();
        let expected = ["250000 100000", "25000 100000", "5000 100000", "1000 100000", "1000 200000", "1000 1000000"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_key_is_found_by_its_whole_name() {
        assert_eq!(keyed("oom 3\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(keyed("oom 3\n", "oom_kill"), 0);
    }
}
