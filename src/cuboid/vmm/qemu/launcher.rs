//! Turns itself into a jailed VMM: run as `cuboid-launcher WORD…` with the words of a `plan.Plan` (plan.py).
//!
//! It starts as root, joins the VM's cgroups, enters its network namespace, makes new mount, PID, IPC and UTS namespaces
//! with a root that holds nothing but what the VMM reads, gives up every privilege and executes the VMM, which becomes
//! PID 1 of its namespace. The launcher itself ends: no process but the VMM stays. Its output is the VMM's pid on the host.
//!
//! A program of one file without crates: it is part of every start of a VM, and takes 1 ms where an interpreter takes 20.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::exit;

/// The VMM finds the plan's descriptors from here on, then the taps, in order (launch.py knows this number as well).
const FIRST_FD: RawFd = 3;
/// Above every number that is given out.
const PARKED_FDS: c_int = 400;
const EXEC_FAILED: c_int = 127;

/// What went wrong, as one line for the node agent's log.
struct Failure(String);

type Outcome<T> = Result<T, Failure>;

fn failed<T>(what: impl std::fmt::Display, error: io::Error) -> Outcome<T> {
    Err(Failure(format!("{what}: {error}")))
}

trait Told<T> {
    /// Say what was tried when it failed.
    fn told(self, what: impl std::fmt::Display) -> Outcome<T>;
}

impl<T> Told<T> for io::Result<T> {
    fn told(self, what: impl std::fmt::Display) -> Outcome<T> {
        self.or_else(|error| failed(what, error))
    }
}

/// `key value key value … -- argv`: each key's values in order.
struct Plan {
    values: HashMap<Vec<u8>, Vec<CString>>,
    argv: Vec<CString>,
}

impl Plan {
    fn parse(words: impl Iterator<Item = CString>) -> Outcome<Self> {
        let (mut values, mut words) = (HashMap::<_, Vec<_>>::new(), words);
        while let Some(key) = words.next() {
            if key.as_bytes() == b"--" {
                return Ok(Self { values, argv: words.collect() });
            }
            let Some(value) = words.next() else { break };
            values.entry(key.into_bytes()).or_default().push(value);
        }
        Err(Failure("the plan does not end with the VMM's command line".into()))
    }

    fn all(&self, key: &str) -> &[CString] {
        self.values.get(key.as_bytes()).map_or(&[], Vec::as_slice)
    }

    fn one(&self, key: &str) -> Outcome<&CStr> {
        match self.all(key) {
            [value] => Ok(value),
            _ => Err(Failure(format!("the plan has not one {key}"))),
        }
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Outcome<T> {
        number(self.one(key)?)
    }

    fn pairs(&self, kind: &str) -> impl Iterator<Item = (&CString, &CString)> {
        self.all(&format!("{kind}_from")).iter().zip(self.all(&format!("{kind}_to")))
    }
}

fn number<T: std::str::FromStr>(text: &CStr) -> Outcome<T> {
    let parsed = text.to_str().ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Failure(format!("{text:?} is not a number")))
}

fn main() {
    let words = std::env::args_os().skip(1).filter_map(|word| CString::new(word.into_vec()).ok());
    if let Err(Failure(why)) = Plan::parse(words).and_then(|plan| launch(&plan)) {
        eprintln!("{why}");
        exit(1);
    }
}

fn launch(plan: &Plan) -> Outcome<()> {
    sys::umask(0o022);
    for procs in plan.all("cgroup") {
        let path = path(procs);
        fs::write(&path, "0").told(format_args!("cannot join the group {}", path.display()))?;
    }
    match path(plan.one("netns")?) {
        none if none.as_os_str().is_empty() => {
            sys::unshare(sys::CLONE_NEWNET).told("cannot make a network namespace")?
        }
        namespace => File::open(&namespace)
            .and_then(|file| sys::setns(&file))
            .told(format_args!("cannot enter the network namespace {}", namespace.display()))?,
    }
    let taps = plan.all("tap").iter().map(|name| open_tap(name)).collect::<Outcome<Vec<_>>>()?;
    let pid_path = path(plan.one("pid_file")?);
    let mut pid_file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&pid_path)
        .told(format_args!("cannot write {}", pid_path.display()))?;
    sys::unshare(sys::CLONE_NEWNS | sys::CLONE_NEWPID | sys::CLONE_NEWIPC | sys::CLONE_NEWUTS)
        .told("cannot make namespaces")?;
    build_root(plan)?;
    let (gate_out, mut gate_in) = sys::pipe().told("cannot make a pipe")?;
    let pid = sys::fork().told("cannot fork")?;
    if pid == 0 {
        drop(gate_in);
        become_vmm(plan, gate_out, taps);
    }
    write!(pid_file, "{pid}").told("cannot write the pid down")?;
    gate_in.write_all(b"g").told("cannot let the VMM go on")?; // only a VMM whose pid is on record may run
    io::stdout().write_all(pid.to_string().as_bytes()).told("cannot tell the pid")
}

fn path(text: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text.to_bytes()))
}

/// The tap of this name, made if this is a new namespace; its descriptor.
fn open_tap(name: &CStr) -> Outcome<File> {
    let open = || {
        let file = OpenOptions::new().read(true).write(true).custom_flags(sys::O_NONBLOCK).open("/dev/net/tun")?;
        sys::set_tap(&file, name)?;
        Ok(file)
    };
    open().told(format_args!("cannot open the tap {}", name.to_string_lossy()))
}

/// A tmpfs with the bind mounts; it is read-only and root's, so the VMM can write nowhere in it.
fn build_root(plan: &Plan) -> Outcome<()> {
    let root = path(plan.one("root")?);
    let size: u64 = plan.number("root_size")?;
    let quiet = sys::MS_NOSUID | sys::MS_NODEV;
    sys::mount("none", Path::new("/"), "", sys::MS_REC | sys::MS_PRIVATE, "").told("cannot make mounts private")?;
    sys::mount("tmpfs", &root, "tmpfs", quiet, &format!("size={size},nr_inodes=128,mode=755"))
        .told("cannot mount the root")?;
    for (source, inside) in plan.pairs("bind") {
        bind(source, &below(&root, inside), sys::MS_RDONLY)?;
    }
    for (source, inside) in plan.pairs("writable") {
        bind(source, &below(&root, inside), 0)?;
    }
    for (target, inside) in plan.pairs("link") {
        let link = below(&root, inside);
        parents(&link)
            .and_then(|()| symlink(path(target), &link))
            .told(format_args!("cannot link {}", link.display()))?;
    }
    sys::mount("none", &root, "", sys::MS_REMOUNT | sys::MS_BIND | sys::MS_RDONLY | quiet, "")
        .told("cannot make the root read-only")?;
    sys::pivot_into(&root).told("cannot enter the root")
}

fn below(root: &Path, inside: &CStr) -> PathBuf {
    let inside = path(inside);
    root.join(inside.strip_prefix("/").unwrap_or(&inside))
}

/// Bind one file or folder. The flags need a second call: bind ignores them.
fn bind(source: &CStr, target: &Path, access: c_ulong) -> Outcome<()> {
    let from = path(source);
    let flags = sys::MS_NOSUID | if from.starts_with("/dev") { 0 } else { access | sys::MS_NODEV };
    let work = || {
        if from.is_dir() {
            fs::create_dir_all(target)?;
        } else {
            parents(target)?;
            File::create(target)?;
        }
        sys::mount_from(source, target, sys::MS_BIND)?;
        sys::mount("none", target, "", sys::MS_REMOUNT | sys::MS_BIND | flags, "")
    };
    work().told(format_args!("cannot show {} in the jail", from.display()))
}

fn parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// In the child, PID 1 of the new namespace. Ends in the VMM or with a sentence on the VMM's log.
fn become_vmm(plan: &Plan, mut gate: File, taps: Vec<File>) -> ! {
    let mut letter = [0];
    if gate.read_exact(&mut letter).is_err() || letter != *b"g" {
        exit(EXEC_FAILED); // the launcher died before it wrote the pid down
    }
    let Err(Failure(why)) = execute(plan, taps);
    eprintln!("cannot become the VMM: {why}");
    exit(EXEC_FAILED);
}

enum Never {}

fn execute(plan: &Plan, taps: Vec<File>) -> Outcome<Never> {
    sys::dup2(plan.number("stderr")?, 2).told("no log")?;
    sys::setsid().told("no session")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").told("/dev/null")?;
    for standard in [0, 1] {
        sys::dup2(null.as_raw_fd(), standard).told("/dev/null")?;
    }
    let mut given = plan.all("fd").iter().map(|text| number(text)).collect::<Outcome<Vec<RawFd>>>()?;
    given.extend(taps.into_iter().map(IntoRawFd::into_raw_fd));
    arrange(&given).told("cannot arrange descriptors")?;
    lower_limits(plan)?;
    sys::give_up_privileges(plan.number("uid")?).told("cannot give up privileges")?;
    let mut environment = vec![c"LC_ALL=C.UTF-8".to_owned(), c"PATH=/usr/bin".to_owned()];
    let library = plan.one("preload")?;
    if !library.is_empty() {
        let setting = [b"LD_PRELOAD=", library.to_bytes()].concat();
        environment.push(CString::new(setting).or_else(|error| failed("the library", error.into()))?);
    }
    failed("cannot execute it", sys::execve(&plan.argv, &environment))
}

/// Give descriptors the numbers from FIRST_FD on and close everything else.
fn arrange(descriptors: &[RawFd]) -> io::Result<()> {
    let parked = descriptors.iter().map(|number| sys::park(*number)).collect::<io::Result<Vec<_>>>()?;
    let mut next = FIRST_FD;
    for number in parked {
        sys::dup2(number, next)?;
        next += 1;
    }
    sys::close_from(next)
}

fn lower_limits(plan: &Plan) -> Outcome<()> {
    sys::umask(0o077);
    let limits = [
        (sys::RLIMIT_CORE, 0),
        (sys::RLIMIT_NOFILE, plan.number("max_files")?),
        (sys::RLIMIT_NPROC, plan.number("max_processes")?),
        (sys::RLIMIT_MEMLOCK, 0),
    ];
    for (kind, value) in limits {
        sys::lower_limit(kind, value).told("cannot lower a limit")?;
    }
    Ok(())
}

/// The doors to Linux. Each call gets pointers to values that live as long as it lasts.
mod sys {
    use super::*;

    pub const CLONE_NEWNS: c_int = 0x0002_0000;
    pub const CLONE_NEWUTS: c_int = 0x0400_0000;
    pub const CLONE_NEWIPC: c_int = 0x0800_0000;
    pub const CLONE_NEWPID: c_int = 0x2000_0000;
    pub const CLONE_NEWNET: c_int = 0x4000_0000;
    pub const MS_RDONLY: c_ulong = 1;
    pub const MS_NOSUID: c_ulong = 2;
    pub const MS_NODEV: c_ulong = 4;
    pub const MS_REMOUNT: c_ulong = 32;
    pub const MS_BIND: c_ulong = 4096;
    pub const MS_REC: c_ulong = 16384;
    pub const MS_PRIVATE: c_ulong = 1 << 18;
    pub const O_NONBLOCK: c_int = 0o4000;
    pub const RLIMIT_CORE: c_int = 4;
    pub const RLIMIT_NPROC: c_int = 6;
    pub const RLIMIT_NOFILE: c_int = 7;
    pub const RLIMIT_MEMLOCK: c_int = 8;
    const MNT_DETACH: c_int = 2;
    const SYS_PIVOT_ROOT: c_long = 155;
    const SYS_CLOSE_RANGE: c_long = 436;
    const F_DUPFD_CLOEXEC: c_int = 1030;
    const O_CLOEXEC: c_int = 0o2000000;
    const TUNSETIFF: c_ulong = 0x4004_54CA;
    const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000; // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
    const PR_CAPBSET_READ: c_int = 23;
    const PR_CAPBSET_DROP: c_int = 24;
    const PR_SET_NO_NEW_PRIVS: c_int = 38;
    const PR_CAP_AMBIENT: c_int = 47;
    const PR_CAP_AMBIENT_CLEAR_ALL: c_ulong = 4;
    const NAME_SIZE: usize = 16;
    const CAPABILITIES: c_ulong = 64;

    unsafe extern "C" {
        #[link_name = "unshare"]
        fn c_unshare(flags: c_int) -> c_int;
        #[link_name = "setns"]
        fn c_setns(file: c_int, kind: c_int) -> c_int;
        #[link_name = "mount"]
        fn c_mount(
            source: *const c_char,
            target: *const c_char,
            kind: *const c_char,
            flags: c_ulong,
            options: *const c_void,
        ) -> c_int;
        fn umount2(target: *const c_char, flags: c_int) -> c_int;
        fn syscall(number: c_long, ...) -> c_long;
        fn ioctl(file: c_int, request: c_ulong, ...) -> c_int;
        fn fcntl(file: c_int, command: c_int, ...) -> c_int;
        fn prctl(option: c_int, ...) -> c_int;
        fn pipe2(ends: *mut c_int, flags: c_int) -> c_int;
        #[link_name = "fork"]
        fn c_fork() -> c_int;
        #[link_name = "setsid"]
        fn c_setsid() -> c_int;
        #[link_name = "dup2"]
        fn c_dup2(old: c_int, new: c_int) -> c_int;
        #[link_name = "umask"]
        fn c_umask(mask: u32) -> u32;
        fn getrlimit(kind: c_int, limit: *mut [u64; 2]) -> c_int;
        fn setrlimit(kind: c_int, limit: *const [u64; 2]) -> c_int;
        fn setgroups(count: usize, groups: *const u32) -> c_int;
        fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
        fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
        #[link_name = "execve"]
        fn c_execve(file: *const c_char, argv: *const *const c_char, environment: *const *const c_char) -> c_int;
    }

    fn checked(result: c_int) -> io::Result<c_int> {
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    fn text(path: &Path) -> io::Result<CString> {
        Ok(CString::new(path.as_os_str().as_bytes())?)
    }

    pub fn umask(mask: u32) {
        // SAFETY: takes and gives numbers.
        unsafe { c_umask(mask) };
    }

    pub fn unshare(flags: c_int) -> io::Result<()> {
        // SAFETY: takes a number.
        checked(unsafe { c_unshare(flags) }).map(drop)
    }

    pub fn setns(file: &File) -> io::Result<()> {
        // SAFETY: takes numbers; the file is open.
        checked(unsafe { c_setns(file.as_raw_fd(), 0) }).map(drop)
    }

    pub fn mount(source: &str, target: &Path, kind: &str, flags: c_ulong, options: &str) -> io::Result<()> {
        let (source, target, kind) = (CString::new(source)?, text(target)?, CString::new(kind)?);
        let options = CString::new(options)?;
        // SAFETY: strings that end with NUL; the kernel copies them.
        checked(unsafe { c_mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) })
            .map(drop)
    }

    pub fn mount_from(source: &CStr, target: &Path, flags: c_ulong) -> io::Result<()> {
        let target = text(target)?;
        // SAFETY: as above; a bind mount has no options.
        checked(unsafe { c_mount(source.as_ptr(), target.as_ptr(), c"".as_ptr(), flags, std::ptr::null()) }).map(drop)
    }

    /// Make the mount at `root` the root and let go of the old one (pivot_root(2), the "." form).
    pub fn pivot_into(root: &Path) -> io::Result<()> {
        std::env::set_current_dir(root)?;
        // SAFETY: strings that end with NUL.
        if unsafe { syscall(SYS_PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a string that ends with NUL.
        checked(unsafe { umount2(c".".as_ptr(), MNT_DETACH) })?;
        std::env::set_current_dir("/")
    }

    pub fn set_tap(file: &File, name: &CStr) -> io::Result<()> {
        let mut request = [0u8; 40]; // struct ifreq
        let name = name.to_bytes();
        if name.len() >= NAME_SIZE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        request[..name.len()].copy_from_slice(name);
        request[NAME_SIZE..NAME_SIZE + 2].copy_from_slice(&TAP_FLAGS.to_ne_bytes());
        // SAFETY: the kernel reads and writes one ifreq.
        checked(unsafe { ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) }).map(drop)
    }

    pub fn pipe() -> io::Result<(File, File)> {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two numbers.
        checked(unsafe { pipe2(ends.as_mut_ptr(), O_CLOEXEC) })?;
        // SAFETY: both are open and nobody else's.
        Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
    }

    pub fn fork() -> io::Result<c_int> {
        // SAFETY: this process has one thread.
        checked(unsafe { c_fork() })
    }

    pub fn setsid() -> io::Result<()> {
        // SAFETY: takes nothing.
        checked(unsafe { c_setsid() }).map(drop)
    }

    pub fn dup2(old: RawFd, new: RawFd) -> io::Result<()> {
        // SAFETY: takes numbers; what `new` was is not used again.
        checked(unsafe { c_dup2(old, new) }).map(drop)
    }

    pub fn park(number: RawFd) -> io::Result<RawFd> {
        // SAFETY: takes numbers.
        checked(unsafe { fcntl(number, F_DUPFD_CLOEXEC, PARKED_FDS) })
    }

    pub fn close_from(first: RawFd) -> io::Result<()> {
        // SAFETY: takes numbers; nothing above is used again.
        if unsafe { syscall(SYS_CLOSE_RANGE, c_long::from(first), c_long::from(u32::MAX), 0 as c_long) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Set both limits of a resource to `value`, or to the present hard limit where that is lower.
    pub fn lower_limit(kind: c_int, value: u64) -> io::Result<()> {
        let mut limit = [0; 2];
        // SAFETY: the kernel writes one struct rlimit.
        checked(unsafe { getrlimit(kind, &raw mut limit) })?;
        let wanted = [value.min(limit[1]); 2]; // "no limit" is the largest number
        // SAFETY: the kernel reads one struct rlimit.
        checked(unsafe { setrlimit(kind, &raw const wanted) }).map(drop)
    }

    /// Become an unprivileged user without supplementary groups, capabilities or a way back.
    pub fn give_up_privileges(user: u32) -> io::Result<()> {
        if user == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let none: c_ulong = 0;
        // SAFETY: these take numbers only.
        unsafe {
            checked(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, none, none, none))?;
            for capability in 0..CAPABILITIES {
                if prctl(PR_CAPBSET_READ, capability, none, none, none) == -1 {
                    break; // beyond the last one that this kernel knows
                }
                checked(prctl(PR_CAPBSET_DROP, capability, none, none, none))?;
            }
            checked(setgroups(0, std::ptr::null()))?;
            checked(setresgid(user, user, user))?;
            checked(setresuid(user, user, user))?; // leaving user 0 clears the permitted and effective sets
            checked(prctl(PR_SET_NO_NEW_PRIVS, 1 as c_ulong, none, none, none))?;
        }
        Ok(())
    }

    /// Returns only what went wrong.
    pub fn execve(argv: &[CString], environment: &[CString]) -> io::Error {
        let list = |words: &[CString]| -> Vec<*const c_char> {
            words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, variables) = (list(argv), list(environment));
        let Some(program) = argv.first() else { return io::ErrorKind::InvalidInput.into() };
        // SAFETY: lists of strings that end with NUL, each list with a null pointer.
        unsafe { c_execve(program.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
        io::Error::last_os_error()
    }
}
