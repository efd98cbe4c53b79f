//! A container's view of files, built by its first process: mounts over the overlay, then the change of root.
//!
//! Everything is attached by descriptors that were opened inside the root, so no link of an image leads a mount astray.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Context, Outcome};
use crate::pb;
use crate::rooted::{self, Rooted};
use crate::sys::{files, mount, tty};

/// As in the OCI's default of Docker and containerd.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const QUIET: u64 = mount::NOSUID | mount::NODEV | mount::NOEXEC;
/// (name, major, minor)
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A volume of the pod that the container mounts.
#[derive(Clone, Debug)]
pub struct VolumeMount {
    /// Where the agent has it.
    pub source: String,
    pub mount: pb::Mount,
}

/// A file of the agent that the container sees under another name.
#[derive(Clone, Debug)]
pub struct FileMount {
    pub source: String,
    pub path: String,
    /// A file with content that the image has at that path stays in sight.
    pub only_if_empty: bool,
}

/// Everything that the view is made of; the parent fills it in, the child acts.
pub struct View {
    /// The mounted overlay.
    pub root: String,
    /// A detached devpts.
    pub devpts: OwnedFd,
    /// Number of the container's terminal in it.
    pub console: Option<u32>,
    pub shm: String,
    pub security: pb::Security,
    pub volumes: Vec<VolumeMount>,
    pub tmpfs: Vec<pb::Tmpfs>,
    pub devices: Vec<pb::DeviceNode>,
    pub files: Vec<FileMount>,
}

impl View {
    /// Called in the new mount (and process) namespace; afterwards "/" is the container's.
    pub fn enter(&self) -> Outcome<()> {
        std::env::set_current_dir(&self.root).context("entering the container's root")?;
        let root = Rooted::open(".").context("opening the container's root")?;
        self.mount_kernel_files(&root)?;
        self.mount_devices(&root)?;
        self.mount_wanted(&root)?;
        self.hide(&root)?;
        if self.security.read_only_root {
            let what = "making the root read-only";
            mount::set_attributes(root.fd(), mount::RDONLY, 0, false).context(what)?;
        }
        mount::pivot_here().context("changing the root")
    }

    fn mount_kernel_files(&self, root: &Rooted) -> Outcome<()> {
        let read_only = if self.security.privileged { 0 } else { mount::RDONLY };
        fresh(root, "proc", "/proc", &[], QUIET)?;
        fresh(root, "sysfs", "/sys", &[], QUIET | read_only)?;
        fresh(root, "cgroup2", "/sys/fs/cgroup", &[], QUIET | read_only)
    }

    fn mount_devices(&self, root: &Rooted) -> Outcome<()> {
        let what = "making /dev";
        let dev = if self.security.privileged {
            mount::detached("devtmpfs", &[], mount::NOSUID).context(what)?
        } else {
            let options = [("mode", "755"), ("size", "65536k")];
            mount::detached("tmpfs", &options, mount::NOSUID).context(what)?
        };
        let target = root.make_folder("/dev", 0o755).context(what)?;
        mount::attach(dev.as_fd(), target.as_fd()).context(what)?;
        self.fill_devices(dev.as_fd()).context(what)?;
        let place = |name: &str| files::open_at(dev.as_fd(), name, libc::O_PATH | libc::O_DIRECTORY, 0).context(what);
        mount::attach(self.devpts.as_fd(), place("pts")?.as_fd()).context("mounting /dev/pts")?;
        let queues = mount::detached("mqueue", &[], QUIET).context("mounting /dev/mqueue")?;
        mount::attach(queues.as_fd(), place("mqueue")?.as_fd()).context("mounting /dev/mqueue")?;
        bind(files::open_path(&self.shm).context("opening the shared memory")?.as_fd(), place("shm")?.as_fd(), false)
            .context("mounting /dev/shm")?;
        if let Some(number) = self.console {
            let slave = root.open_at(&format!("/dev/pts/{number}"), libc::O_PATH).context("opening the terminal")?;
            let console = root.make_file("/dev/console").context(what)?;
            bind(slave.as_fd(), console.as_fd(), false).context("mounting /dev/console")?;
        }
        for device in &self.devices {
            self.make_device(root, device)?;
        }
        Ok(())
    }

    fn fill_devices(&self, dev: BorrowedFd<'_>) -> io::Result<()> {
        for (name, major, minor) in DEVICES {
            allow_existing(files::make_node(dev, name, libc::S_IFCHR | 0o666, major, minor))?;
        }
        for (name, target) in LINKS {
            allow_existing(files::make_link(target, dev, name))?;
        }
        for name in ["pts", "shm", "mqueue"] {
            allow_existing(files::make_directory(dev, name, 0o755))?;
        }
        Ok(())
    }

    fn make_device(&self, root: &Rooted, device: &pb::DeviceNode) -> Outcome<()> {
        let what = || format!("making the device {}", device.path);
        let kind = match device.r#type.as_str() {
            "b" => libc::S_IFBLK,
            "c" | "u" => libc::S_IFCHR,
            "p" => libc::S_IFIFO,
            _ => return Err(crate::error::Failure::invalid(format!("{}: {:?} is no type", what(), device.r#type))),
        };
        let (folder, name) = rooted::split(&device.path);
        let folder = root.make_folder(folder, 0o755).context_with(what)?;
        let mode = kind | (device.mode & 0o777);
        allow_existing(files::make_node(folder.as_fd(), name, mode, device.major, device.minor)).context_with(what)
    }

    /// Volumes and tmpfs, the outer before the inner, then the agent's own files where no volume took their place.
    fn mount_wanted(&self, root: &Rooted) -> Outcome<()> {
        let volumes = self.volumes.iter().map(|v| (v.mount.path.as_str(), Wanted::Volume(v)));
        let tmpfs = self.tmpfs.iter().map(|t| (t.path.as_str(), Wanted::Tmpfs(t)));
        let is_hidden = |file: &FileMount| self.is_taken(&file.path) || (file.only_if_empty && file.is_filled(root));
        let files = self.files.iter().filter(|file| !is_hidden(file)).map(|f| (f.path.as_str(), Wanted::File(f)));
        let mut wanted: Vec<_> = volumes.chain(tmpfs).chain(files).collect();
        wanted.sort_by_key(|(path, _)| path.split('/').filter(|part| !part.is_empty()).count());
        for (path, item) in wanted {
            item.mount(root).map_err(|mut failure| {
                failure.message = format!("mounting {path}: {}", failure.message);
                failure
            })?;
        }
        Ok(())
    }

    fn is_taken(&self, path: &str) -> bool {
        self.volumes.iter().any(|v| v.mount.path.trim_end_matches('/') == path)
    }

    fn hide(&self, root: &Rooted) -> Outcome<()> {
        let security = &self.security;
        if security.privileged || security.unmasked {
            return Ok(());
        }
        if security.masked_paths.is_empty() && security.read_only_paths.is_empty() {
            return hide_paths(root, MASKED.into_iter(), READ_ONLY.into_iter());
        }
        let masked = security.masked_paths.iter().map(String::as_str);
        hide_paths(root, masked, security.read_only_paths.iter().map(String::as_str))
    }
}

enum Wanted<'a> {
    Volume(&'a VolumeMount),
    Tmpfs(&'a pb::Tmpfs),
    File(&'a FileMount),
}

impl Wanted<'_> {
    fn mount(&self, root: &Rooted) -> Outcome<()> {
        match self {
            Self::Volume(volume) => volume.mount_in(root),
            Self::Tmpfs(tmpfs) => {
                let mode = if tmpfs.mode == 0 { 0o1777 } else { tmpfs.mode & 0o7777 };
                let (mode, size) = (format!("{mode:o}"), tmpfs.size_bytes.to_string());
                let mut options = vec![("mode", mode.as_str())];
                if tmpfs.size_bytes > 0 {
                    options.push(("size", size.as_str()));
                }
                fresh(root, "tmpfs", &tmpfs.path, &options, mount::NOSUID | mount::NODEV)
            }
            Self::File(file) => {
                let source = files::open_path(&file.source).context("opening the file")?;
                let target = root.make_file(&file.path).context("making the file")?;
                bind(source.as_fd(), target.as_fd(), false).context("binding the file")
            }
        }
    }
}

impl FileMount {
    fn is_filled(&self, root: &Rooted) -> bool {
        let found = root.open_at(&self.path, libc::O_PATH).and_then(|fd| files::stat_at(fd.as_fd(), c""));
        found.is_ok_and(|found| found.st_size > 0)
    }
}

impl VolumeMount {
    fn mount_in(&self, root: &Rooted) -> Outcome<()> {
        let what = "opening the volume";
        let volume = Rooted::open(&self.source).context(what)?;
        let source = match volume.open_at(&self.mount.sub_path, libc::O_PATH) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                volume.make_folder(&self.mount.sub_path, 0o755).context("making the sub-path")?
            }
            other => other.context(what)?,
        };
        let is_folder = files::stat_at(source.as_fd(), c"").context(what)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let path = &self.mount.path;
        let target = if is_folder { root.make_folder(path, 0o755) } else { root.make_file(path) };
        let target = target.context("making the mount point")?;
        bind(source.as_fd(), target.as_fd(), self.mount.read_only).context("binding the volume")
    }
}

fn allow_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A new file system at a path of the root.
fn fresh(root: &Rooted, kind: &str, path: &str, options: &[(&str, &str)], attributes: u64) -> Outcome<()> {
    let what = || format!("mounting {kind} at {path}");
    let target = root.make_folder(path, 0o755).context_with(what)?;
    let new = mount::detached(kind, options, attributes).context_with(what)?;
    mount::attach(new.as_fd(), target.as_fd()).context_with(what)
}

fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let copy = mount::clone_tree(source, true)?;
    if read_only {
        mount::set_attributes(copy.as_fd(), mount::RDONLY, 0, true)?;
    }
    mount::attach(copy.as_fd(), target)
}

fn hide_paths<'a>(
    root: &Rooted,
    masked: impl Iterator<Item = &'a str>,
    read_only: impl Iterator<Item = &'a str>,
) -> Outcome<()> {
    for path in masked {
        mask(root, path).context_with(|| format!("hiding {path}"))?;
    }
    for path in read_only {
        let Ok(target) = root.open_at(path, libc::O_PATH) else { continue };
        bind(target.as_fd(), target.as_fd(), true).context_with(|| format!("protecting {path}"))?;
    }
    Ok(())
}

/// An empty folder over a folder, /dev/null over a file; what does not exist needs no hiding.
fn mask(root: &Rooted, path: &str) -> io::Result<()> {
    let Ok(target) = root.open_at(path, libc::O_PATH) else { return Ok(()) };
    let is_folder = files::stat_at(target.as_fd(), c"")?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if is_folder {
        let empty = mount::detached("tmpfs", &[("size", "0")], mount::RDONLY)?;
        return mount::attach(empty.as_fd(), target.as_fd());
    }
    let null = files::open_path("/dev/null")?;
    bind(null.as_fd(), target.as_fd(), false)
}

/// A devpts instance of a container's own, with a terminal in it if asked: (instance, master, slave, number).
pub struct Terminals {
    pub instance: OwnedFd,
}

impl Terminals {
    pub fn create() -> Outcome<Self> {
        let options = [("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5")];
        let instance = mount::detached("devpts", &options, mount::NOSUID | mount::NOEXEC);
        Ok(Self { instance: instance.context("making the container's terminals")? })
    }

    /// (master, slave, number) of a new terminal of this size; 0 by 0 stays the kernel's.
    pub fn open(&self, rows: u32, columns: u32) -> Outcome<(OwnedFd, OwnedFd, u32)> {
        let (master, slave, number) = tty::open_pair(self.instance.as_fd()).context("opening a terminal")?;
        if rows > 0 && columns > 0 {
            tty::resize(master.as_fd(), rows, columns).context("sizing the terminal")?;
        }
        Ok((master, slave, number))
    }
}
