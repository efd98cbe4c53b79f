//! Forks: into namespaces and cgroups, with the child's failure brought back to the parent.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::sync::oneshot;

use super::child;
use super::io::Port;
use crate::error::{Context, Outcome};
use crate::reaper::{Ended, Reaper};
use crate::sys::{files, process};

/// Messages of a child are one sentence; a longer one is cut.
const MESSAGE_LIMIT: usize = 4_096;

/// A process between fork and exec.
pub struct Spawned {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub ended: oneshot::Receiver<Ended>,
    pub errors: Errors,
}

/// The pipe on which a child tells why it cannot become what was asked; it closes by itself on exec.
pub struct Errors(Port);

impl Errors {
    /// Waits until the program has been executed, or gives the reason why it was not.
    pub async fn executed(&self) -> Outcome<()> {
        let mut message = Vec::new();
        let mut piece = [0u8; 512];
        while message.len() < MESSAGE_LIMIT {
            match self.0.read(&mut piece).await.context("waiting for the process")? {
                0 => break,
                count => message.extend_from_slice(&piece[..count]),
            }
        }
        child::decode_failure(&message).map_or(Ok(()), Err)
    }
}

/// Forks `work` into the cgroup; it either executes a program or fails.
///
/// `join`: a pidfd of a process whose process namespace the child is to be in. The agent itself can only name the
/// namespace of its children to be, so it does, and takes that back at once.
pub fn spawn(
    reaper: &Reaper,
    namespaces: u64,
    join: Option<BorrowedFd<'_>>,
    cgroup: BorrowedFd<'_>,
    work: impl FnOnce() -> Outcome<Infallible>,
) -> Outcome<Spawned> {
    let (read, write) = files::pipe().context("making a pipe")?;
    let own = match join {
        Some(target) => Some(enter_processes(target)?),
        None => None,
    };
    let forked = process::fork(namespaces, cgroup);
    if let Ok(None) = forked {
        child::run(&write, work);
    }
    if let Some(Err(error)) = own.map(|own| process::join(own.as_fd(), libc::CLONE_NEWPID)) {
        crate::boot::fatal(&format!("coming back from a container's processes: {error}"));
    }
    drop(write);
    let child = forked.context("starting a process")?.ok_or_else(unreachable_child)?;
    let ended = reaper.watch(child.pid);
    let errors = Errors(Port::new(read, Interest::READABLE).context("watching a pipe")?);
    Ok(Spawned { pid: child.pid, pidfd: child.pidfd, ended, errors })
}

/// Gives the way back.
fn enter_processes(target: BorrowedFd<'_>) -> Outcome<File> {
    let own = File::open("/proc/self/ns/pid").context("opening the process namespace")?;
    process::join(target, libc::CLONE_NEWPID).context("entering the container's processes")?;
    Ok(own)
}

fn unreachable_child() -> crate::error::Failure {
    crate::error::Failure::system("starting a process", &io::Error::other("the child came back"))
}

/// Runs blocking work in a process of its own and waits for it: a slow device or server must not stop the agent.
pub async fn in_child(reaper: &Reaper, work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let cgroup = files::open_path("/sys/fs/cgroup").context("opening the cgroup")?;
    let spawned = spawn(reaper, 0, None, cgroup.as_fd(), || {
        work()?;
        process::exit_now(0)
    })?;
    spawned.errors.executed().await
}
