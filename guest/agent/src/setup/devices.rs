//! Block devices by their serial, and the file systems on them.

use std::fs;
use std::time::Duration;

use crate::container::spawn;
use crate::error::{Code, Context, Failure, Outcome};
use crate::reaper::Reaper;
use crate::sys::mount;

const DEADLINE: Duration = Duration::from_secs(5);

/// The device node of the block device with this serial; waits for it to appear.
pub async fn find(serial: &str) -> Outcome<String> {
    let search = async {
        loop {
            if let Some(path) = with_serial(serial) {
                return path;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let missing = |_| Failure::new(Code::NotFound, format!("there is no block device with the serial {serial}"));
    tokio::time::timeout(DEADLINE, search).await.map_err(missing)
}

fn with_serial(serial: &str) -> Option<String> {
    let devices = fs::read_dir("/sys/block").ok()?;
    let has_serial = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("serial")).is_ok_and(|found| found.trim_end() == serial)
    };
    let name = devices.flatten().find(has_serial)?.file_name().into_string().ok()?;
    let path = format!("/dev/{name}");
    fs::exists(&path).unwrap_or(false).then_some(path)
}

/// Mounts a device at a folder, which is made. In a process of its own: a damaged file system may take long.
pub async fn mount_at(
    reaper: &Reaper,
    device: &str,
    folder: &str,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> Outcome<()> {
    let what = || format!("mounting the {kind} file system of {device}");
    fs::create_dir_all(folder).context_with(what)?;
    let (device, folder, kind, options) = (device.to_owned(), folder.to_owned(), kind.to_owned(), options.to_owned());
    let text = what();
    spawn::in_child(reaper, move || mount::mount(&device, &folder, &kind, flags, &options).context(&text)).await
}
