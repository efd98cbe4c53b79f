//! Running another process in a container.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_local;

use super::cgroup::Cgroup;
use super::child::{self, Program};
use super::io::{Ends, Output, PIECE, Port};
use super::{Container, attach, io, spawn};
use crate::channel::StreamHandle;
use crate::error::{Code, Context, Failure, Outcome};
use crate::pb;
use crate::reaper::{Ended, Reaper};
use crate::stats::now_ns;
use crate::sys::process;

/// Between SIGHUP and SIGKILL for a process whose host has gone.
const GRACE: Duration = Duration::from_secs(1);

/// A process that an exec runs.
pub struct Running {
    pidfd: OwnedFd,
    pid: i32,
    terminal: Option<Rc<Port>>,
}

/// The execs under way by their stream.
#[derive(Default)]
pub struct Execs(RefCell<HashMap<u32, Rc<Running>>>);

impl Execs {
    pub fn find(&self, stream: u32) -> Outcome<Rc<Running>> {
        let found = self.0.borrow().get(&stream).cloned();
        found.ok_or_else(|| Failure::new(Code::NotFound, format!("stream {stream} runs no process")))
    }
}

impl Running {
    pub fn signal(&self, number: i32) -> Outcome<()> {
        process::kill_fd(self.pidfd.as_fd(), number).context_with(|| format!("sending signal {number}"))
    }

    pub fn resize(&self, rows: u32, columns: u32) -> Outcome<()> {
        let terminal = self.terminal.as_ref();
        let terminal = terminal.ok_or_else(|| Failure::new(Code::Conflict, "the process has no terminal"))?;
        terminal.resize(rows, columns).context("sizing the terminal")
    }

    /// SIGHUP, and SIGKILL after a while, to the process and those of its group.
    async fn hang_up(&self, ended: &mut tokio::sync::oneshot::Receiver<Ended>) {
        let _ = process::kill(-self.pid, libc::SIGHUP);
        let _ = self.signal(libc::SIGHUP);
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            self.kill();
        }
    }

    fn kill(&self) {
        // It may have ended already.
        let _ = process::kill(-self.pid, libc::SIGKILL);
        let _ = self.signal(libc::SIGKILL);
    }
}

/// A process in a container, with its streams.
pub struct Started {
    pub spawned: spawn::Spawned,
    pub ends: Ends,
}

/// Forks the process that `call` asks for into the container.
pub fn start(reaper: &Reaper, container: &Container, call: &pb::Exec) -> Outcome<Started> {
    container.require_running()?;
    let program = program_of(container, call);
    let (stdio, ends) = if call.tty {
        let (master, slave, _) = container.terminals.open(call.rows, call.cols)?;
        io::terminal(master, slave)?
    } else {
        io::pipes(call.stdin)?
    };
    let manages_cgroups = container.call.security.as_ref().is_some_and(|security| security.privileged);
    let cgroup = if manages_cgroups { Cgroup::open_of(container.pid) } else { container.cgroup.open() };
    let cgroup = cgroup.context("opening the container's cgroup")?;
    let target = container.pidfd.as_fd();
    let spawned = spawn::spawn(reaper, 0, Some(target), cgroup.as_fd(), || {
        child::prepare()?;
        child::enter(target)?;
        child::become_program(&program, &stdio, None)
    })?;
    Ok(Started { spawned, ends })
}

/// The container's own settings, with what the call adds or changes.
fn program_of(container: &Container, call: &pb::Exec) -> Program {
    let own = &container.call;
    let mut security = own.security.clone().unwrap_or_default();
    security.privileged |= call.privileged;
    let wanted = call.user.clone().filter(|user| *user != pb::User::default());
    Program {
        args: call.args.clone(),
        env: own.env.iter().chain(&call.env).cloned().collect(),
        cwd: if call.cwd.is_empty() { own.cwd.clone() } else { call.cwd.clone() },
        user: wanted.or_else(|| own.user.clone()).unwrap_or_default(),
        security,
        rlimits: own.rlimits.clone(),
    }
}

/// Serves an exec to its end: streams, time limit, exit status.
pub async fn exec(
    reaper: &Reaper,
    execs: &Execs,
    container: Rc<Container>,
    call: pb::Exec,
    stream: StreamHandle,
) -> Outcome<()> {
    let begin = now_ns();
    let Started { spawned, ends } = start(reaper, &container, &call)?;
    let spawn::Spawned { pid, pidfd, mut ended, errors } = spawned;
    errors.executed().await?;
    let terminal = call.tty.then(|| ends.stdout.clone());
    let running = Rc::new(Running { pidfd, pid, terminal });
    execs.0.borrow_mut().insert(stream.id(), running.clone());
    let exit = serve(&running, ends, &call, &stream, &mut ended, begin).await;
    execs.0.borrow_mut().remove(&stream.id());
    match exit {
        Some(exit) => stream.reply(pb::reply::Reply::Exit(exit)).await,
        None => running.hang_up(&mut ended).await,
    }
    Ok(())
}

/// None: the host is gone.
async fn serve(
    running: &Running,
    ends: Ends,
    call: &pb::Exec,
    stream: &StreamHandle,
    ended: &mut tokio::sync::oneshot::Receiver<Ended>,
    begin: u64,
) -> Option<pb::ExitStatus> {
    let (done, gone) = watch::channel(false);
    let Ends { stdin, stdout, stderr } = ends;
    let mut pumps = vec![spawn_local(pump(Output::new(stdout, gone.clone()), 1, stream.clone()))];
    pumps.extend(stderr.map(|port| spawn_local(pump(Output::new(port, gone), 2, stream.clone()))));
    let finish = async {
        let (result, timed_out) = wait(running, call.timeout_ms, ended).await;
        done.send_replace(true);
        for pump in pumps {
            // A pump does not panic: a panic ends the machine.
            let _ = pump.await;
        }
        exit_status(result, timed_out, begin)
    };
    tokio::select! {
        exit = finish => Some(exit),
        () = attach::feed(stream, stdin, || {}) => None,
    }
}

async fn wait(running: &Running, timeout_ms: u32, ended: &mut tokio::sync::oneshot::Receiver<Ended>) -> (Ended, bool) {
    const LOST: Ended = Ended { code: 255, signal: 0 };
    if timeout_ms > 0 {
        let limit = Duration::from_millis(u64::from(timeout_ms));
        match tokio::time::timeout(limit, &mut *ended).await {
            Ok(result) => return (result.unwrap_or(LOST), false),
            Err(_elapsed) => running.kill(),
        }
        return (ended.await.unwrap_or(LOST), true);
    }
    (ended.await.unwrap_or(LOST), false)
}

fn exit_status(ended: Ended, timed_out: bool, begin: u64) -> pb::ExitStatus {
    pb::ExitStatus {
        code: ended.code,
        signal: ended.signal,
        timed_out,
        started_unix_ns: begin,
        finished_unix_ns: now_ns(),
        ..Default::default()
    }
}

async fn pump(mut output: Output, channel: u8, stream: StreamHandle) {
    let mut buffer = vec![0u8; PIECE];
    loop {
        let count = output.read(&mut buffer).await;
        if count == 0 || stream.send(channel, &buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// For a probe: runs to its end or the time limit; (exit code, the first bytes of its output).
pub async fn run_quietly(
    reaper: &Reaper,
    container: &Container,
    call: &pb::Exec,
    keep: usize,
) -> Outcome<(i32, String)> {
    let Started { spawned, ends } = start(reaper, container, call)?;
    let spawn::Spawned { pid, pidfd, mut ended, errors } = spawned;
    errors.executed().await?;
    let running = Running { pidfd, pid, terminal: None };
    let (done, gone) = watch::channel(false);
    let text = Rc::new(RefCell::new(Vec::new()));
    let listen = |port| spawn_local(collect(Output::new(port, gone.clone()), text.clone(), keep));
    let readers: Vec<_> = [Some(ends.stdout), ends.stderr].into_iter().flatten().map(listen).collect();
    let (result, timed_out) = wait(&running, call.timeout_ms, &mut ended).await;
    done.send_replace(true);
    for reader in readers {
        // A reader does not panic: a panic ends the machine.
        let _ = reader.await;
    }
    if timed_out {
        return Err(Failure::new(Code::Failed, format!("the command took longer than {} ms", call.timeout_ms)));
    }
    let text = String::from_utf8_lossy(&text.borrow()).into_owned();
    Ok((result.code, text))
}

async fn collect(mut output: Output, text: Rc<RefCell<Vec<u8>>>, keep: usize) {
    let mut buffer = [0u8; 4_096];
    loop {
        let count = output.read(&mut buffer).await;
        if count == 0 {
            return;
        }
        let mut text = text.borrow_mut();
        let room = keep.saturating_sub(text.len());
        text.extend_from_slice(&buffer[..count.min(room)]);
    }
}
