//! Block devices by their serial, and the file systems on them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::boot;
use crate::container::spawn;
use crate::error::{Code, Context, Failure, Outcome};
use crate::reaper::Reaper;
use crate::sys::mount;

const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// Serials and device nodes as far as they are known. A device keeps both for as long as it is there, whatever disk the
/// host puts behind it, and reading a serial asks the host: it is done once.
#[derive(Default)]
pub struct Devices(RefCell<HashMap<String, String>>);

impl Devices {
    /// The device node of the block device with this serial; waits for it to appear.
    pub async fn find(&self, serial: &str) -> Outcome<String> {
        let search = async {
            loop {
                if let Some(path) = self.known(serial) {
                    return path;
                }
                self.look(serial);
                match self.known(serial) {
                    Some(path) => return path,
                    None => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        let missing = |_| Failure::new(Code::NotFound, format!("there is no block device with the serial {serial}"));
        tokio::time::timeout(DEADLINE, search).await.map_err(missing)
    }

    fn known(&self, serial: &str) -> Option<String> {
        let found = self.0.borrow().get(serial).cloned();
        found.filter(|path| fs::exists(path).unwrap_or(false))
    }

    fn look(&self, wanted: &str) {
        let mut known = self.0.borrow_mut();
        if let Some(name) = boot::disk_by_order(wanted) {
            known.insert(wanted.to_owned(), format!("/dev/{name}"));
            return;
        }
        known.clear();
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            // Loop devices and the like have none.
            let Ok(serial) = fs::read_to_string(entry.path().join("serial")) else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            known.insert(serial.trim_end().to_owned(), format!("/dev/{name}"));
        }
    }
}

/// Mounts a device at a folder, which is made. For what the host has made: a fork would take longer than the mount.
pub fn mount_at(device: &str, folder: &str, kind: &str, flags: libc::c_ulong) -> Outcome<()> {
    let what = || format!("mounting the {kind} file system of {device}");
    fs::create_dir_all(folder).context_with(what)?;
    mount::mount(device, folder, kind, flags, "").context_with(what)
}

/// As `mount_at`, in a process of its own: a file system that tenants have written may be damaged and take long.
pub async fn mount_apart(
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
