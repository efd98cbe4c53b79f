//! The way back from a set-up, for a rehearsal: what it changed is noted before and put back afterwards.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{INIT, network, sysctl_path};
use crate::agent::Agent;
use crate::boot::{self, RUN};
use crate::container::cgroup::Cgroup;
use crate::error::{Context, Outcome};
use crate::pb;
use crate::pb::volume::Source;
use crate::sys::{files, mount, process};

/// Mounts and devices are in use until the kernel has taken the last process's view of files apart.
const TRIES: u32 = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// What the guest was like.
pub struct Before {
    hostname: String,
    domainname: String,
    sysctls: HashMap<String, String>,
    links: Vec<network::Before>,
    devices: Vec<String>,
}

impl Before {
    pub async fn note(agent: &Agent, call: &pb::Setup) -> Outcome<Self> {
        let what = "noting what the guest is like";
        let kernel = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).context(what);
        let mut sysctls = HashMap::new();
        for name in call.sysctls.keys() {
            let path = sysctl_path(name)?;
            sysctls.insert(path.clone(), fs::read_to_string(path).context(what)?);
        }
        let mut found = Vec::new();
        for serial in serials(call) {
            found.push(agent.devices.find(serial).await?);
        }
        Ok(Self {
            hostname: kernel("hostname")?,
            domainname: kernel("domainname")?,
            sysctls,
            links: network::Before::note(&call.interfaces).await?,
            devices: found,
        })
    }

    /// Puts everything back. The containers must be gone.
    pub async fn restore(self) -> Outcome<()> {
        Cgroup::at(INIT).remove().await;
        unmount_all().await?;
        for device in &self.devices {
            release(device).await?;
        }
        clear(Path::new(RUN)).context("removing what the rehearsal wrote")?;
        network::Before::restore(&self.links)?;
        for (path, value) in &self.sysctls {
            fs::write(path, value).context_with(|| format!("setting {path} back"))?;
        }
        let what = "taking the names back";
        process::set_hostname(self.hostname.trim_end()).context(what)?;
        process::set_domainname(self.domainname.trim_end()).context(what)?;
        files::clear_kernel_log().context("clearing the kernel's log")
    }
}

/// Of every device that the call mounts.
fn serials(call: &pb::Setup) -> impl Iterator<Item = &str> {
    let volumes = call.volumes.iter().filter_map(|volume| match &volume.source {
        Some(Source::Block(block)) => Some(block.serial.as_str()),
        _ => None,
    });
    let devices = call.images.iter().chain(&call.writable).map(|device| device.serial.as_str());
    devices.chain(volumes).filter(|serial| !serial.is_empty())
}

async fn unmount_all() -> Outcome<()> {
    for path in boot::mounts_below_run() {
        let what = || format!("unmounting {path}");
        retry(|| mount::unmount(&path, 0)).await.context_with(what)?;
    }
    Ok(())
}

/// Waits until nothing uses the device, and forgets what was read from it: another disk may come in its place.
async fn release(device: &str) -> Outcome<()> {
    retry(|| files::flush_device(device)).await.context_with(|| format!("letting go of {device}"))
}

/// Until it is something other than EBUSY.
async fn retry(mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..TRIES {
        match work() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
    work()
}

/// Removes everything in the agent's folder but the folders that were there from the start.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    fs::create_dir(folder.join("etc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_that_is_mounted_is_let_go_of() {
        let device = |serial: &str| pb::Device { name: String::new(), serial: serial.into() };
        let block = pb::BlockVolume { serial: "v".into(), ..Default::default() };
        let call = pb::Setup {
            images: vec![device("a"), device("b")],
            writable: Some(device("")),
            volumes: vec![
                pb::Volume { source: Some(Source::Block(block)), ..Default::default() },
                pb::Volume { source: Some(Source::Memory(pb::MemoryVolume::default())), ..Default::default() },
            ],
            ..Default::default()
        };
        assert_eq!(serials(&call).collect::<Vec<_>>(), ["a", "b", "v"]);
    }

    #[test]
    fn nothing_stays_in_the_folder_but_what_was_there_from_the_start() {
        let folder = std::env::temp_dir().join(format!("cuboid-undo-{}", std::process::id()));
        fs::create_dir_all(folder.join("volumes/a")).unwrap();
        fs::create_dir_all(folder.join("etc")).unwrap();
        fs::write(folder.join("etc/hosts"), "x").unwrap();
        clear(&folder).unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["etc"]);
        assert_eq!(fs::read_dir(folder.join("etc")).unwrap().count(), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_in_use_is_tried_again_and_other_failures_are_not() {
        let mut left = 3;
        let result = retry(|| {
            left -= 1;
            if left > 0 { Err(crate::sys::errno(libc::EBUSY)) } else { Ok(()) }
        });
        result.await.unwrap();
        let mut calls = 0;
        let result = retry(|| {
            calls += 1;
            Err(crate::sys::errno(libc::EINVAL))
        });
        assert_eq!(result.await.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(calls, 1);
    }
}
