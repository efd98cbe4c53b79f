//! Tells the host of disk volumes that have grown beyond their limit.
//!
//! As Kubernetes does it: looked at now and then, not enforced by the file system. The volumes share one file system with
//! the writable layers, and ext4 without project quotas knows no limit for a folder; the device itself bounds what a pod
//! can write between two looks.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::channel::EventLog;
use crate::container::spawn;
use crate::error::{Code, Failure, Outcome};
use crate::pb;
use crate::pb::volume::Source;
use crate::reaper::Reaper;
use crate::sys::{files, mount};

/// Kubernetes' own.
const PERIOD: Duration = Duration::from_secs(10);

/// Looks at the volumes until every one that has a limit is beyond it.
pub async fn watch(volumes: Vec<pb::Volume>, writable: String, reaper: Reaper, events: EventLog) {
    let mut limited: Vec<_> = volumes.iter().filter_map(limit_of).collect();
    while !limited.is_empty() {
        tokio::time::sleep(PERIOD).await;
        let used = files::open_path(&writable).and_then(|fd| mount::usage(fd.as_fd())).map_or(0, |(_, used)| used);
        let mut within = Vec::new();
        for (name, limit) in limited {
            // A volume cannot hold more than the whole device does: most pods are never walked through.
            if used > limit && exceeds(&reaper, format!("{writable}/volumes/{name}"), limit).await {
                let event = pb::VolumeOverLimit { volume: name, limit_bytes: limit };
                events.push(pb::event::Event::VolumeOverLimit(event)).await;
            } else {
                within.push((name, limit));
            }
        }
        limited = within;
    }
}

fn limit_of(volume: &pb::Volume) -> Option<(String, u64)> {
    match &volume.source {
        Some(Source::Disk(disk)) if disk.size_bytes > 0 => Some((volume.name.clone(), disk.size_bytes)),
        _ => None,
    }
}

/// Counted in a process of its own: a volume may have a million files.
async fn exceeds(reaper: &Reaper, folder: String, limit: u64) -> bool {
    let work = move || -> Outcome<()> {
        match bytes_beyond(folder.into(), limit) {
            true => Err(Failure::new(Code::NoSpace, "")),
            false => Ok(()),
        }
    };
    matches!(spawn::in_child(reaper, work).await, Err(failure) if failure.code == Code::NoSpace && failure.errno == 0)
}

/// Whether the files below a folder take more than `limit` bytes on disk.
fn bytes_beyond(folder: PathBuf, limit: u64) -> bool {
    let (mut total, mut folders) = (0, vec![folder]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            total += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
        if total > limit {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disk_volumes_with_a_limit_are_looked_at() {
        let volume = |source| pb::Volume { name: "v".into(), source: Some(source), ..Default::default() };
        assert_eq!(limit_of(&volume(Source::Disk(pb::DiskVolume { size_bytes: 7 }))), Some(("v".into(), 7)));
        assert_eq!(limit_of(&volume(Source::Disk(pb::DiskVolume::default()))), None);
        assert_eq!(limit_of(&volume(Source::Memory(pb::MemoryVolume { size_bytes: 7, ..Default::default() }))), None);
    }

    #[test]
    fn what_lies_deep_counts_and_holes_do_not() {
        let folder = std::env::temp_dir().join(format!("cuboid-usage-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), vec![1; 100_000]).unwrap();
        fs::File::create(folder.join("hole")).unwrap().set_len(1 << 40).unwrap();
        assert!(bytes_beyond(folder.clone(), 90_000));
        assert!(!bytes_beyond(folder.clone(), 1 << 20));
        fs::remove_dir_all(folder).unwrap();
    }
}
