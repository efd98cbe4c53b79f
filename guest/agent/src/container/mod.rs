//! Containers: their life from start to removal, and the processes that run beside their first one.

pub mod attach;
pub mod capabilities;
pub mod cgroup;
pub mod child;
pub mod exec;
pub mod exercise;
pub mod history;
pub mod io;
pub mod layers;
pub mod limits;
pub mod rootfs;
pub mod seccomp;
pub mod spawn;
pub mod start;
pub mod user;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::error::{Code, Context, Failure, Outcome};
use crate::logs::Log;
use crate::pb;
use crate::rooted::Rooted;
use crate::sys::process;
use cgroup::Cgroup;
use history::History;
use io::Port;
use layers::Layers;
use rootfs::Terminals;

/// Results of the probes that count now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub started: bool,
    pub ready: bool,
    pub live: bool,
}

/// One attempt of a container.
pub struct Container {
    pub call: pb::StartContainer,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub layers: Layers,
    pub terminals: Terminals,
    pub log: Rc<Log>,
    pub started_ns: u64,
    /// None until it ended.
    pub exit: RefCell<Option<pb::ExitStatus>>,
    /// What the start came to; None while it is under way.
    pub started: watch::Sender<Option<Outcome<pb::Started>>>,
    /// True when it ended and all its output has been read.
    pub ended: watch::Sender<bool>,
    pub stdin: RefCell<Option<Rc<Port>>>,
    /// The terminal, or standard output.
    pub output: Rc<Port>,
    pub history: History,
    pub listeners: RefCell<Vec<mpsc::Sender<(u8, Bytes)>>>,
    pub health: Cell<Health>,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    pub fn name(&self) -> &str {
        &self.call.name
    }

    /// CONFLICT unless it runs.
    pub fn require_running(&self) -> Outcome<()> {
        if self.is_running() {
            return Ok(());
        }
        Err(Failure::new(Code::Conflict, format!("the container {} does not run", self.name())))
    }

    /// Its files, as it sees them while it runs, and without volumes afterwards.
    pub fn root(&self) -> Outcome<Rooted> {
        let path = if self.is_running() { format!("/proc/{}/root", self.pid) } else { self.layers.root() };
        // O_PATH does not follow the last link of /proc; a folder does.
        Rooted::open(&format!("{path}/.")).context("opening the container's root")
    }

    pub fn signal(&self, number: i32, all: bool) -> Outcome<()> {
        self.require_running()?;
        if all {
            for pid in self.cgroup.processes() {
                // One that ended meanwhile needs no signal.
                let _ = process::kill(pid, number);
            }
            return Ok(());
        }
        process::kill_fd(self.pidfd.as_fd(), number).context_with(|| format!("sending signal {number}"))
    }

    pub fn resize(&self, rows: u32, columns: u32) -> Outcome<()> {
        if !self.call.tty {
            return Err(Failure::new(Code::Conflict, format!("the container {} has no terminal", self.name())));
        }
        self.output.resize(rows, columns).context("sizing the terminal")
    }

    pub fn state(&self) -> pb::ContainerState {
        let health = self.health.get();
        let exit = self.exit.borrow().clone();
        pb::ContainerState {
            name: self.call.name.clone(),
            attempt: self.call.attempt,
            running: exit.is_none(),
            pid: self.pid as u32,
            started_unix_ns: self.started_ns,
            exit,
            started_probe_ok: health.started,
            ready_probe_ok: health.ready,
            live_probe_ok: health.live,
            log_end_offset: self.log.end_offset(),
        }
    }
}

/// The containers of the pod by name (the latest attempt of each), and their logs.
#[derive(Default)]
pub struct Containers {
    all: RefCell<BTreeMap<String, Rc<Container>>>,
    logs: RefCell<BTreeMap<String, Rc<Log>>>,
}

impl Containers {
    pub fn find(&self, name: &str) -> Outcome<Rc<Container>> {
        let found = self.all.borrow().get(name).cloned();
        found.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no container {name}")))
    }

    pub fn get(&self, name: &str) -> Option<Rc<Container>> {
        self.all.borrow().get(name).cloned()
    }

    pub fn list(&self) -> Vec<Rc<Container>> {
        self.all.borrow().values().cloned().collect()
    }

    pub fn insert(&self, container: Rc<Container>) {
        self.all.borrow_mut().insert(container.call.name.clone(), container);
    }

    pub fn remove(&self, name: &str) {
        self.all.borrow_mut().remove(name);
    }

    /// Takes this attempt out, unless a later one is in its place.
    pub fn forget(&self, container: &Rc<Container>) {
        let mut all = self.all.borrow_mut();
        if all.get(container.name()).is_some_and(|found| Rc::ptr_eq(found, container)) {
            all.remove(container.name());
        }
    }

    pub fn log(&self, name: &str) -> Outcome<Rc<Log>> {
        let found = self.logs.borrow().get(name).cloned();
        found.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no log of a container {name}")))
    }

    pub fn log_or_new(&self, name: &str, make: impl FnOnce() -> Log) -> Rc<Log> {
        self.logs.borrow_mut().entry(name.to_owned()).or_insert_with(|| Rc::new(make())).clone()
    }

    /// Followers get the rest; then the log is gone.
    pub fn remove_log(&self, name: &str) {
        if let Some(log) = self.logs.borrow_mut().remove(name) {
            log.close();
        }
    }
}

/// Whether a name can be a file's: letters, digits, ".", "_", "-"; 1 to 253; no dot first.
pub fn check_name(name: &str) -> Outcome<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=253).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fine) {
        return Ok(());
    }
    Err(Failure::invalid(format!("{name:?} cannot be a name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_paths() {
        assert!(check_name("web-1.a_b").is_ok());
        for bad in ["", ".", "..", "a/b", "../x", ".hidden", "a b", "ü", &"x".repeat(254)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
