//! What happens between fork and exec: the child becomes the process that was asked for, or says why it cannot.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message;

use super::capabilities::{self, Granted};
use super::cgroup::Pending;
use super::user::{self, Identity};
use super::{limits, seccomp};
use crate::error::{Code, Context, Failure, Outcome};
use crate::pb;
use crate::rooted::Rooted;
use crate::sys::{self, files, process, security, tty};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process that is to be: the same for a container's first and for an exec's.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: pb::User,
    pub security: pb::Security,
    pub rlimits: Vec<pb::Rlimit>,
}

/// Standard input, output and error of the child.
pub enum Stdio {
    Terminal(OwnedFd),
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
}

impl Stdio {
    /// Puts them in place, in a session of their own.
    fn install(&self) -> io::Result<()> {
        process::new_session()?;
        match self {
            Self::Terminal(slave) => {
                tty::control(slave.as_fd())?;
                (0..3).try_for_each(|number| process::place(slave.as_fd(), number))
            }
            Self::Pipes { stdin, stdout, stderr } => {
                match stdin {
                    Some(pipe) => process::place(pipe.as_fd(), 0)?,
                    None => process::place(fs::File::open("/dev/null")?.as_fd(), 0)?,
                }
                process::place(stdout.as_fd(), 1)?;
                process::place(stderr.as_fd(), 2)
            }
        }
    }
}

/// Runs `work` in the child; if it comes back, tells the parent why and ends the process.
pub fn run(errors: &OwnedFd, work: impl FnOnce() -> Outcome<Infallible>) -> ! {
    let Err(failure) = work();
    let error = pb::Error { code: failure.code.into(), message: failure.message, errno: failure.errno };
    // The parent takes silence for success, so a failure to tell ends as an exit code instead.
    let _ = files::write(errors.as_fd(), &error.encode_to_vec());
    process::exit_now(127)
}

/// What a child wrote before it ended, if anything.
pub fn decode_failure(bytes: &[u8]) -> Option<Failure> {
    if bytes.is_empty() {
        return None;
    }
    let error = pb::Error::decode(bytes).unwrap_or_default();
    Some(Failure { code: error.code(), message: error.message, errno: error.errno })
}

/// Clean signals, no umask, and within reach of the OOM killer. Needs the agent's /proc.
pub fn prepare() -> Outcome<()> {
    process::reset_signals();
    process::set_umask(0);
    fs::write("/proc/self/oom_score_adj", "0").context("setting the OOM score")
}

/// Becomes the program; the root is the container's by now. `limit` counts from the program's first instruction on.
pub fn become_program(program: &Program, stdio: &Stdio, limit: Option<&Pending>) -> Outcome<Infallible> {
    let identity = find_identity(&program.user)?;
    let environment = with_defaults(&program.env, &identity.home, matches!(stdio, Stdio::Terminal(_)));
    enter_folder(&program.cwd, &identity)?;
    for (resource, soft, hard) in limits::resolve(&program.rlimits)? {
        let what = || format!("setting limit {resource} to {soft}, {hard}");
        process::set_limit(resource, soft, hard).context_with(what)?;
    }
    give_terminal(stdio, &identity)?;
    stdio.install().context("setting up stdin, stdout and stderr")?;
    process::set_umask(0o022);
    restrict(&program.security, &identity)?;
    if let Some(limit) = limit {
        limit.apply()?;
    }
    execute(&program.args, &environment)
}

/// The terminal is the user's, so that programs can open it again.
fn give_terminal(stdio: &Stdio, identity: &Identity) -> Outcome<()> {
    let Stdio::Terminal(slave) = stdio else { return Ok(()) };
    std::os::unix::fs::fchown(slave, Some(identity.uid), None).context("giving the terminal to the user")
}

fn find_identity(wanted: &pb::User) -> Outcome<Identity> {
    let root = Rooted::open("/").context("opening the root")?;
    let text = |path: &str| {
        let content = root.read(path, user::FILE_LIMIT).unwrap_or_default();
        String::from_utf8_lossy(&content).into_owned()
    };
    user::identify(wanted, &text("/etc/passwd"), &text("/etc/group"))
}

/// The environment with PATH and HOME, TERM for a terminal, and the later of two values of one name.
fn with_defaults(env: &[String], home: &str, terminal: bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::with_capacity(env.len() + 2);
    let mut places = std::collections::HashMap::new();
    for entry in env {
        let name = entry.split('=').next().unwrap_or_default();
        match places.get(name) {
            Some(place) => found[*place] = entry.clone(),
            None => {
                places.insert(name, found.len());
                found.push(entry.clone());
            }
        }
    }
    let wanted = [("PATH", DEFAULT_PATH), ("HOME", home), ("TERM", "xterm")];
    for (name, value) in &wanted[..if terminal { 3 } else { 2 }] {
        if !places.contains_key(*name) {
            found.push(format!("{name}={value}"));
        }
    }
    found
}

fn enter_folder(cwd: &str, identity: &Identity) -> Outcome<()> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    let what = || format!("entering the working directory {cwd}");
    match std::env::set_current_dir(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.context_with(what),
    }
    let root = Rooted::open("/").context_with(what)?;
    let made = root.make_folder(cwd, 0o755).context_with(|| format!("making the working directory {cwd}"))?;
    std::env::set_current_dir(cwd).context_with(what)?;
    drop(made);
    // Made for the user, as Docker does; a read-only place was there before.
    std::os::unix::fs::chown(".", Some(identity.uid), Some(identity.gid)).context_with(what)
}

/// Gives up what the process may not do, and becomes the user.
fn restrict(wanted: &pb::Security, identity: &Identity) -> Outcome<()> {
    let Granted { set, ambient } = capabilities::granted(wanted)?;
    let what = "dropping privileges";
    if wanted.no_new_privileges {
        security::no_new_privileges().context(what)?;
    }
    if !wanted.privileged && !wanted.seccomp_unconfined {
        security::install_filter(&seccomp::filter(set)).context("installing the system call filter")?;
    }
    security::bound_capabilities(set, capabilities::LAST).context(what)?;
    security::keep_capabilities().context(what)?;
    process::become_user(identity.uid, identity.gid, &identity.groups)
        .context_with(|| format!("becoming user {}:{}", identity.uid, identity.gid))?;
    // Without an ambient set, an exec of somebody other than root gives all of them up.
    let ambient = if identity.uid == 0 { 0 } else { ambient };
    security::set_capabilities(set, ambient, capabilities::LAST).context(what)
}

fn execute(args: &[String], env: &[String]) -> Outcome<Infallible> {
    let name = args.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure::new(Code::CommandNotFound, "the image and the pod name no command"))?;
    let strings = |list: &[String]| -> Outcome<Vec<CString>> {
        list.iter().map(|text| sys::cstring(text.as_str())).collect::<io::Result<_>>().context("reading the arguments")
    };
    let (arguments, environment) = (strings(args)?, strings(env)?);
    let mut refusal = None;
    for candidate in candidates(name, env) {
        let Err(error) = process::execute(&candidate, &arguments, &environment);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) if !exists(&candidate) => {}
            _ => {
                let denied = error.raw_os_error() == Some(libc::EACCES);
                refusal.get_or_insert((candidate, error));
                if !denied {
                    break;
                }
            }
        }
    }
    Err(match refusal {
        Some((path, error)) => refused(&path, &error),
        None => Failure::new(Code::CommandNotFound, not_found(name)),
    })
}

fn exists(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file())
}

fn not_found(name: &str) -> String {
    if name.contains('/') {
        format!("{name}: there is no such file in the image")
    } else {
        format!("{name}: not found in the container's PATH")
    }
}

/// Paths to try in turn: the name itself if it has a slash, else one for each part of PATH.
fn candidates(name: &str, env: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let folder = |part: &str| if part.is_empty() { ".".to_owned() } else { part.to_owned() };
    path.split(':').map(|part| format!("{}/{name}", folder(part))).collect()
}

fn refused(path: &str, error: &io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(0);
    let is_folder = fs::metadata(path).is_ok_and(|found| found.is_dir());
    let (code, why) = match errno {
        libc::ENOENT => (Code::CommandNotFound, "its interpreter or loader is missing".to_owned()),
        libc::EACCES if is_folder => (Code::CommandNotExecutable, "it is a directory".to_owned()),
        libc::EACCES => (Code::CommandNotExecutable, "permission denied: it is not executable".to_owned()),
        libc::ENOEXEC => (Code::CommandNotExecutable, "it is no program for this machine".to_owned()),
        libc::ENOMEM => (Code::NoMemory, "out of memory".to_owned()),
        _ => (Code::CommandNotExecutable, crate::error::reason(error)),
    };
    Failure { code, message: format!("{path} cannot be run: {why}"), errno }
}

/// Enters a running container: its mounts and cgroups (`container` is a pidfd of its first process).
pub fn enter(container: BorrowedFd<'_>) -> Outcome<()> {
    let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWUTS;
    process::join(container, kinds).context("entering the container")?;
    // setns changes the root to that of the namespace, which is the container's.
    std::env::set_current_dir("/").context("entering the container's root")
}

/// The name of the machine, for a container that wants another than the pod's.
pub fn rename_host(hostname: &str) -> Outcome<()> {
    process::unshare(libc::CLONE_NEWUTS).context("leaving the pod's host name")?;
    process::set_hostname(hostname).context("setting the host name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn path_and_home_are_there_and_the_last_value_counts() {
        let env = with_defaults(&owned(&["A=1", "B=2", "A=3"]), "/root", false);
        assert_eq!(env, ["A=3", "B=2", &format!("PATH={DEFAULT_PATH}"), "HOME=/root"]);
        assert_eq!(with_defaults(&owned(&["PATH=/x", "HOME=/h"]), "/root", true), ["PATH=/x", "HOME=/h", "TERM=xterm"]);
    }

    #[test]
    fn a_command_is_looked_for_in_each_part_of_path() {
        assert_eq!(candidates("sh", &owned(&["PATH=/a::/b"])), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(candidates("./sh", &owned(&["PATH=/a"])), ["./sh"]);
    }

    #[test]
    fn the_sentence_names_the_file_and_the_code_is_docker_s() {
        let missing = execute(&owned(&["surely-not-there"]), &owned(&["PATH=/bin"])).unwrap_err();
        assert_eq!(missing.code, Code::CommandNotFound);
        assert_eq!(missing.message, "surely-not-there: not found in the container's PATH");
        let folder = execute(&owned(&["/etc"]), &[]).unwrap_err();
        assert_eq!(
            (folder.code, folder.message.as_str()),
            (Code::CommandNotExecutable, "/etc cannot be run: it is a directory")
        );
        let file = execute(&owned(&["/etc/passwd"]), &[]).unwrap_err();
        assert_eq!(file.message, "/etc/passwd cannot be run: permission denied: it is not executable");
        assert_eq!(execute(&[], &[]).unwrap_err().code, Code::CommandNotFound);
    }

    #[test]
    fn a_failure_survives_the_pipe() {
        let error = pb::Error { code: Code::UserNotFound.into(), message: "no".into(), errno: 2 };
        let failure = decode_failure(&error.encode_to_vec()).unwrap();
        assert_eq!((failure.code, failure.errno), (Code::UserNotFound, 2));
        assert_eq!(decode_failure(b""), None);
        assert!(decode_failure(b"\xff\xff").is_some());
    }
}
