//! What the guest and its containers use.

use std::fs;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agent::Agent;
use crate::container::Container;
use crate::container::cgroup::keyed;
use crate::pb;
use crate::setup::Pod;
use crate::sys::{files, mount};

/// Ticks of /proc/stat in a second.
const TICKS: u64 = 100;
const PAGE: u64 = 4_096;

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Bytes of memory of the whole guest: (total, available).
pub fn memory() -> (u64, u64) {
    memory_of(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn memory_of(meminfo: &str) -> (u64, u64) {
    let value = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<u64>().ok());
        number.unwrap_or(0) * 1_024
    };
    (value("MemTotal:"), value("MemAvailable:"))
}

/// CPU time of the guest that was used for something, from /proc/stat.
fn cpu_ns(stat: &str) -> u64 {
    const IDLE: [usize; 2] = [3, 4];
    let Some(line) = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")) else { return 0 };
    let fields = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
    let busy: u64 = fields.take(8).enumerate().filter(|(at, _)| !IDLE.contains(at)).map(|(_, ticks)| ticks).sum();
    busy * (1_000_000_000 / TICKS)
}

fn resident(statm: &str) -> u64 {
    statm.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * PAGE
}

/// One line of /proc/net/dev for each device but the loopback.
fn interfaces(dev: &str) -> Vec<pb::InterfaceStats> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied();
        Some(pb::InterfaceStats {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_dropped: at(11)?,
        })
    };
    dev.lines().filter_map(parse).filter(|found| found.name != "lo").collect()
}

/// Everything, now.
pub fn collect(agent: &Agent, pod: &Pod) -> pb::Stats {
    let (memory_total_bytes, memory_available_bytes) = memory();
    let (writable_total_bytes, writable_used_bytes) = usage(&pod.writable);
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let running = agent.containers.list();
    let mounted = pod.volumes.borrow();
    let volumes = mounted.values().map(|volume| {
        let (total_bytes, used_bytes) = usage(&volume.path);
        pb::VolumeStats { name: volume.name.clone(), total_bytes, used_bytes }
    });
    pb::Stats {
        unix_ns: now_ns(),
        containers: running.iter().filter(|container| container.is_running()).map(|c| of_container(c)).collect(),
        memory_total_bytes,
        memory_available_bytes,
        cpu_ns: cpu_ns(&text("/proc/stat")),
        writable_total_bytes,
        writable_used_bytes,
        interfaces: interfaces(&text("/proc/self/net/dev")),
        volumes: volumes.collect(),
        agent_memory_bytes: resident(&text("/proc/self/statm")),
    }
}

fn usage(path: &str) -> (u64, u64) {
    files::open_path(path).and_then(|fd| mount::usage(fd.as_fd())).unwrap_or((0, 0))
}

fn of_container(container: &Container) -> pb::ContainerStats {
    let cgroup = &container.cgroup;
    let memory_usage_bytes = cgroup.number("memory.current");
    let memory = cgroup.read("memory.stat");
    let (read_bytes, written_bytes) = block_io(&cgroup.read("io.stat"));
    pb::ContainerStats {
        name: container.call.name.clone(),
        cpu_ns: cgroup.value("cpu.stat", "usage_usec") * 1_000,
        memory_bytes: memory_usage_bytes.saturating_sub(keyed(&memory, "inactive_file")),
        memory_usage_bytes,
        memory_limit_bytes: cgroup.number("memory.max"),
        rss_bytes: keyed(&memory, "anon"),
        pids: cgroup.number("pids.current") as u32,
        read_bytes,
        written_bytes,
        disk_bytes: tree_bytes(container.layers.store()),
        oom_kills: cgroup.oom_kills(),
    }
}

/// Bytes (read, written) over all devices, from io.stat.
fn block_io(stat: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let values = stat.split_whitespace().filter_map(|word| word.strip_prefix(key));
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// Bytes on disk below a folder. Stops counting after many files: the answer must not take long.
fn tree_bytes(folder: &std::path::Path) -> u64 {
    const MOST_FILES: usize = 20_000;
    let (mut total, mut seen) = (0, 0);
    let mut folders = vec![folder.join("upper")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            total += std::os::unix::fs::MetadataExt::blocks(&found) * 512;
            seen += 1;
            if found.is_dir() {
                folders.push(entry.path());
            }
            if seen >= MOST_FILES {
                return total;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        assert_eq!(memory_of("MemTotal:  100 kB\nMemFree: 5 kB\nMemAvailable:   50 kB\n"), (102_400, 51_200));
        assert_eq!(cpu_ns("cpu  1 2 3 100 100 4 5 6 7 8\ncpu0 9"), 21 * 10_000_000);
        assert_eq!(resident("100 25 3"), 25 * 4_096);
        assert_eq!(block_io("254:0 rbytes=1 wbytes=2 rios=9\n254:16 rbytes=10 wbytes=20\n"), (11, 22));
    }

    #[test]
    fn devices_other_than_the_loopback_are_counted() {
        let dev =
            "Inter-| x\n face |y\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 3 0 0 0 0 20 4 0 5 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!(found.len(), 1);
        let eth = &found[0];
        assert_eq!((eth.rx_bytes, eth.rx_packets, eth.rx_dropped), (10, 2, 3));
        assert_eq!((eth.tx_bytes, eth.tx_packets, eth.tx_dropped), (20, 4, 5));
    }

    #[test]
    fn odd_text_counts_as_nothing() {
        assert_eq!(memory_of("garbage"), (0, 0));
        assert_eq!(cpu_ns(""), 0);
        assert!(interfaces("eth0: 1 2").is_empty());
    }
}
