//! From a kernel's first process to an agent that can be spoken to.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Failure, Outcome};
use crate::modules;
use crate::sys::{files, mount, process};

/// Where everything of the agent lives, in memory.
pub const RUN: &str = "/run/cuboid";
/// The cgroup above those of the containers.
pub const PODS: &str = "/sys/fs/cgroup/pod";
const PORT_NAME: &str = "cuboid.agent.0";
const PORT_DEADLINE: Duration = Duration::from_secs(10);

/// Settings from the kernel's command line: `cuboid.KEY=VALUE`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `cuboid.port=NAME`: the virtio port of the channel.
    pub port: Option<String>,
    /// `cuboid.end=reset`: end by a reset instead of the power switch.
    pub reset: bool,
    /// `cuboid.vsock=PORT`: the channel is a vsock port on which the host connects.
    pub vsock: Option<u32>,
    /// `cuboid.disks=SERIAL,…`: the serials of vda, vdb, …, for a VMM that gives its disks serials of its own.
    pub disks: Vec<String>,
}

impl Options {
    pub fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for (key, value) in line.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "cuboid.port" => options.port = Some(value.to_owned()),
                "cuboid.end" => options.reset = value == "reset",
                "cuboid.vsock" => options.vsock = value.parse().ok(),
                "cuboid.disks" => options.disks = value.split(',').map(str::to_owned).collect(),
                _ => {}
            }
        }
        options
    }
}

/// A line on the console.
pub fn say(message: &str) {
    eprintln!("cuboid-agent: {message}");
}

/// The reason on the console, then the end of the machine.
pub fn fatal(reason: &str) -> ! {
    await_console();
    say(&format!("fatal: {reason}"));
    end_machine()
}

/// The device that has this serial by the command line.
pub fn disk_by_order(serial: &str) -> Option<String> {
    let number = u8::try_from(command_line().disks.iter().position(|known| known == serial)?).ok()?;
    (number < 26).then(|| format!("vd{}", char::from(b'a' + number)))
}

/// Where the end is a reset, makes it one that the VMM tells apart from that of a kernel that gives up (`reboot=t`).
fn choose_orderly_reset() {
    if command_line().reset {
        // A kernel without the choice has but one kind of reset.
        let _ = fs::write("/sys/kernel/reboot/type", "kbd");
    }
}

fn command_line() -> Options {
    Options::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// Turns the machine off, in the way the command line asks for.
pub fn end_machine() -> ! {
    if command_line().reset { process::reset_machine() } else { process::power_off() }
}

/// A panic is a fatal error: without PID 1 there is no machine.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| fatal(&format!("{panic}").replace('\n', " "))));
}

/// Mounts what the kernel offers and loads the modules of the channel.
pub fn prepare() -> Outcome<Options> {
    become_movable_root()?;
    mount_all()?;
    open_console();
    enable_controllers()?;
    let line = fs::read_to_string("/proc/cmdline").context("reading the kernel's command line")?;
    let options = Options::parse(&line);
    modules::load_list(Path::new("/etc/modules.load"))?;
    // The bus of hvc0 is one of them.
    open_console();
    Ok(options)
}

/// Puts a mount of the initramfs over itself: pivot_root refuses to leave the first root, which has no mount below it.
fn become_movable_root() -> Outcome<()> {
    let what = "moving the root";
    fs::create_dir_all("/mnt").context(what)?;
    mount::mount("/", "/mnt", "", libc::MS_BIND, "").context(what)?;
    std::env::set_current_dir("/mnt").context(what)?;
    mount::mount(".", "/", "", libc::MS_MOVE, "").context(what)?;
    mount::chroot_here().context(what)
}

fn mount_all() -> Outcome<()> {
    const QUIET: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let table = [
        ("proc", "/proc", QUIET, ""),
        ("sysfs", "/sys", QUIET, ""),
        ("devtmpfs", "/dev", libc::MS_NOSUID, "mode=755"),
        ("tmpfs", "/run", libc::MS_NOSUID | libc::MS_NODEV, "mode=755"),
        ("cgroup2", "/sys/fs/cgroup", QUIET, ""),
    ];
    for (kind, path, flags, data) in table {
        let what = || format!("mounting {path}");
        fs::create_dir_all(path).context_with(what)?;
        mount::mount(kind, path, kind, flags, data).context_with(what)?;
    }
    fs::create_dir_all(format!("{RUN}/etc")).context("making the run folder")
}

/// The kernel gave PID 1 the console if it had one; with a late console (hvc0) it did not. False: there is none yet.
fn open_console() -> bool {
    let open = |path: &&str| fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).ok();
    let Some(console) = ["/dev/hvc0", "/dev/console"].iter().find_map(open) else { return false };
    process::place(console.as_fd(), 1).and_then(|()| process::place(console.as_fd(), 2)).is_ok()
}

/// A port announces itself some time after its bus has been found. Without a console there is nobody to tell.
fn await_console() {
    for _ in 0..100 {
        if open_console() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn enable_controllers() -> Outcome<()> {
    fs::create_dir_all(PODS).context("making the pod's cgroup")?;
    for folder in ["/sys/fs/cgroup", PODS] {
        for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
            let written = fs::write(format!("{folder}/cgroup.subtree_control"), format!("+{controller}"));
            // A kernel without one of them still runs containers, without that limit.
            if let Err(error) = written {
                say(&format!("no {controller} controller: {}", crate::error::reason(&error)));
            }
        }
    }
    // The last process that the kernel may choose when memory runs out.
    fs::write("/proc/self/oom_score_adj", "-1000").context("leaving the reach of the OOM killer")
}

/// Waits for the port of the channel to appear and gives its device.
pub async fn find_port(options: &Options) -> Outcome<PathBuf> {
    let name = options.port.as_deref().unwrap_or(PORT_NAME);
    let found = tokio::time::timeout(PORT_DEADLINE, async {
        loop {
            if let Some(path) = port_named(name) {
                return path;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    found.await.map_err(|_| Failure::new(crate::error::Code::NotFound, format!("there is no virtio port named {name}")))
}

fn port_named(name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let port = ports
        .flatten()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name))?;
    let device = Path::new("/dev").join(port.file_name());
    device.exists().then_some(device)
}

/// Ends all processes, writes everything to the disks, and turns the machine off.
pub fn shut_down() -> ! {
    // -1: every process but this one, which is PID 1.
    let _ = process::kill(-1, libc::SIGKILL);
    for _ in 0..100 {
        while process::reap().is_some() {}
        if fs::read_to_string(format!("{PODS}/cgroup.events")).is_ok_and(|text| text.contains("populated 0")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    files::sync_all();
    unmount_all();
    choose_orderly_reset();
    end_machine()
}

/// Unmounts what lies below the run folder.
fn unmount_all() {
    for path in mounts_below_run() {
        // What is still in use has been synced.
        let _ = mount::unmount(&path, 0);
    }
}

/// Mount points below the run folder, the youngest first.
pub fn mounts_below_run() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let paths = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    paths.filter(|path| path.starts_with(RUN)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_words_of_the_command_line_count() {
        let options = Options::parse("console=hvc0 quiet cuboid.port=x.1 cuboid.end=reset cuboid.other=1 panic=-1\n");
        assert_eq!(options, Options { port: Some("x.1".into()), reset: true, ..Options::default() });
        let options = Options::parse("cuboid.vsock=1024 cuboid.disks=image,data.1 quiet");
        assert_eq!((options.vsock, options.disks), (Some(1024), vec!["image".into(), "data.1".into()]));
        assert_eq!(Options::parse("cuboid.vsock=x").vsock, None);
        assert_eq!(Options::parse(""), Options::default());
    }
}
