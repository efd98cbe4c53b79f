//! Starting a container, and what follows until it has ended.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;

use super::cgroup::Cgroup;
use super::child::{self, Program, Stdio};
use super::exercise::exercise;
use super::history::History;
use super::io::{Ends, Output, PIECE, Port};
use super::layers::Layers;
use super::rootfs::{FileMount, Terminals, View, VolumeMount};
use super::{Container, Health, check_name, io, spawn};
use crate::agent::Agent;
use crate::boot::RUN;
use crate::error::{Code, Context, Failure, Outcome};
use crate::logs::Log;
use crate::logs::cri::Cutter;
use crate::pb;
use crate::reaper::Ended;
use crate::setup::{Pod, identity, names};
use crate::stats::now_ns;
use crate::sys::process;

const MESSAGE_LIMIT: u64 = 4_096;
/// (file of the agent, where containers see it, whether one of the image's own counts more)
const OWN_FILES: [(&str, &str, bool); 5] = [
    (names::HOSTS, "/etc/hosts", false),
    (names::HOSTNAME, "/etc/hostname", false),
    (names::RESOLVER, "/etc/resolv.conf", false),
    (identity::MACHINE_ID, "/etc/machine-id", true),
    (identity::BOOT_ID, "/proc/sys/kernel/random/boot_id", false),
];

/// Starts it, or answers as the first call did when it is the same (name, attempt).
pub async fn start(agent: &Rc<Agent>, call: pb::StartContainer) -> Outcome<pb::Started> {
    check_name(&call.name)?;
    crate::probe::check_actions(&call.probes)?;
    let pod = agent.pod()?;
    let previous = agent.containers.get(&call.name);
    if let Some(previous) = &previous {
        if previous.call.attempt == call.attempt {
            return outcome_of(previous).await;
        }
        check_successor(previous, &call)?;
    }
    if let Some(device) = &call.image_device {
        pod.add_image(agent, device).await?;
        if agent.containers.get(&call.name).map(|found| found.call.attempt) != previous.as_ref().map(|p| p.call.attempt)
        {
            return Err(Failure::new(Code::Conflict, format!("the container {} was started meanwhile", call.name)));
        }
    }
    let mut left = match &previous {
        Some(_) => Vec::new(),
        None => Layers::left(&pod.writable, &call.name),
    };
    let kept = match &previous {
        Some(previous) if call.keep_root => Some(previous.layers.kept_for(&call.name, call.attempt)),
        None if call.keep_root => left.pop().map(|newest| newest.kept_for(&call.name, call.attempt)),
        _ => None,
    };
    let layers = kept.unwrap_or_else(|| Layers::new(&pod.writable, &call.name, call.attempt));
    for old in left.into_iter().filter(|old| old.store() != layers.store()) {
        let reaper = agent.reaper();
        spawn_local(async move { old.remove(&reaper).await });
    }
    if let Some(previous) = previous {
        previous.layers.unmount();
        if !call.keep_root {
            let (reaper, old) = (agent.reaper(), previous.layers.clone());
            spawn_local(async move { old.remove(&reaper).await });
        }
    }
    let container = launch(agent, &pod, call, layers)?;
    outcome_of(&container).await
}

/// The container whose processes are to be this one's as well.
fn process_target(agent: &Agent, call: &pb::StartContainer) -> Outcome<Option<Rc<Container>>> {
    if call.process_target.is_empty() {
        return Ok(None);
    }
    let target = agent.containers.find(&call.process_target)?;
    target.require_running()?;
    Ok(Some(target))
}

fn check_successor(previous: &Container, call: &pb::StartContainer) -> Outcome<()> {
    if previous.is_running() {
        return Err(Failure::new(Code::Conflict, format!("the container {} runs already", call.name)));
    }
    if call.attempt < previous.call.attempt {
        let newest = previous.call.attempt;
        return Err(Failure::new(
            Code::Conflict,
            format!("attempt {} of {} is older than {newest}", call.attempt, call.name),
        ));
    }
    Ok(())
}

async fn outcome_of(container: &Container) -> Outcome<pb::Started> {
    let mut started = container.started.subscribe();
    let result = started.wait_for(Option::is_some).await.map(|value| value.clone());
    result.ok().flatten().unwrap_or_else(|| Err(Failure::new(Code::Failed, "the start was given up")))
}

/// Everything up to the fork, in one step; then the tasks that see to the rest.
fn launch(agent: &Rc<Agent>, pod: &Rc<Pod>, call: pb::StartContainer, layers: Layers) -> Outcome<Rc<Container>> {
    let begin = now_ns();
    let image = pod.image(&call.image)?;
    let program = program_of(&call);
    let volumes = pod.mounts(&call.mounts)?;
    agent.modules.borrow_mut().need("overlay")?;
    layers.mount(&image)?;
    let result = launch_mounted(agent, pod, call, &layers, program, volumes, begin);
    if result.is_err() {
        layers.unmount();
    }
    result
}

fn launch_mounted(
    agent: &Rc<Agent>,
    pod: &Rc<Pod>,
    call: pb::StartContainer,
    layers: &Layers,
    program: Program,
    volumes: Vec<VolumeMount>,
    begin: u64,
) -> Outcome<Rc<Container>> {
    let (cgroup, cgroup_fd) = cgroup_of(&call)?;
    let limit = cgroup.cpu_limit(&call.resources.unwrap_or_default())?;
    let terminals = Terminals::create()?;
    let (stdio, mut ends, console) = open_stdio(&call, &terminals)?;
    // The container alone holds it, so that it can be closed.
    let stdin = ends.stdin.take().filter(|_| call.stdin);
    let view = view_of(pod, &call, layers, &terminals, console, volumes)?;
    let exercises = agent.rehearses.get();
    let hostname = Some(call.hostname.clone()).filter(|name| !name.is_empty() && *name != pod.names.borrow().hostname);
    let mounted = now_ns();
    let target = process_target(agent, &call)?;
    let join = target.as_ref().map(|target| target.pidfd.as_fd());
    let join = join.or_else(|| pod.init.as_ref().map(|init| init.pidfd.as_fd()));
    let namespaces = libc::CLONE_NEWNS | if join.is_some() { 0 } else { libc::CLONE_NEWPID };
    let spawned = spawn::spawn(&agent.reaper(), namespaces as u64, join, cgroup_fd.as_fd(), || {
        enter_container(&view, hostname.as_deref())?;
        if exercises {
            exercise(program.args.first().map_or("", String::as_str));
        }
        child::become_program(&program, &stdio, limit.as_ref())
    })?;
    drop(stdio);
    let forked = now_ns();
    let log = agent.containers.log_or_new(&call.name, || pod.new_log(&call.name));
    let spawn::Spawned { pid, pidfd, ended, errors } = spawned;
    let container = Rc::new(Container {
        pid,
        pidfd,
        cgroup,
        layers: layers.clone(),
        terminals,
        log,
        started_ns: now_ns(),
        exit: RefCell::new(None),
        started: watch::Sender::new(None),
        ended: watch::Sender::new(false),
        stdin: RefCell::new(stdin),
        output: ends.stdout.clone(),
        history: History::new(call.await_attach),
        listeners: RefCell::default(),
        health: Cell::new(first_health(&call)),
        call,
    });
    agent.containers.insert(container.clone());
    let phases = HashMap::from([("mount".to_owned(), mounted - begin), ("fork".to_owned(), forked - mounted)]);
    let life = Life { agent: agent.clone(), container: container.clone(), ends, phases, forked };
    spawn_local(life.run(errors, ended));
    Ok(container)
}

/// Its name tells whose process the kernel's log speaks of (see `oom`).
fn cgroup_of(call: &pb::StartContainer) -> Outcome<(Cgroup, OwnedFd)> {
    let resources = call.resources.unwrap_or_default();
    let cgroup = Cgroup::create(&format!("{}.{}", call.name, call.attempt), &resources)?;
    let fd = cgroup.open().context("opening the container's cgroup")?;
    Ok((cgroup, fd))
}

fn view_of(
    pod: &Pod,
    call: &pb::StartContainer,
    layers: &Layers,
    terminals: &Terminals,
    console: Option<u32>,
    volumes: Vec<VolumeMount>,
) -> Outcome<View> {
    Ok(View {
        root: layers.root(),
        devpts: terminals.instance.try_clone().context("sharing the terminals")?,
        console,
        shm: pod.shm.clone(),
        security: call.security.clone().unwrap_or_default(),
        volumes,
        tmpfs: call.tmpfs.clone(),
        devices: call.devices.clone(),
        files: own_files(pod, call)?,
    })
}

/// What counts until a probe has spoken: without one, all is well.
fn first_health(call: &pb::StartContainer) -> Health {
    let has_probe = |kind: pb::probe::Kind| call.probes.iter().any(|probe| probe.kind() == kind);
    Health { started: !has_probe(pb::probe::Kind::Startup), ready: !has_probe(pb::probe::Kind::Readiness), live: true }
}

fn program_of(call: &pb::StartContainer) -> Program {
    Program {
        args: call.args.clone(),
        env: call.env.clone(),
        cwd: call.cwd.clone(),
        user: call.user.clone().unwrap_or_default(),
        security: call.security.clone().unwrap_or_default(),
        rlimits: call.rlimits.clone(),
    }
}

/// (the child's side, ours, the terminal's number if there is one)
fn open_stdio(call: &pb::StartContainer, terminals: &Terminals) -> Outcome<(Stdio, Ends, Option<u32>)> {
    if !call.tty {
        let (stdio, ends) = io::pipes(call.stdin)?;
        return Ok((stdio, ends, None));
    }
    let (master, slave, number) = terminals.open(call.tty_rows, call.tty_cols)?;
    let (stdio, ends) = io::terminal(master, slave)?;
    Ok((stdio, ends, Some(number)))
}

/// Files of the agent that the container sees: names and addresses, and the one for its last words.
fn own_files(pod: &Pod, call: &pb::StartContainer) -> Outcome<Vec<FileMount>> {
    let file = |(source, path, only_if_empty): (&str, &str, bool)| FileMount {
        source: source.to_owned(),
        path: path.to_owned(),
        only_if_empty,
    };
    let mut files: Vec<_> = OWN_FILES.into_iter().filter(|(source, ..)| pod.has_file(source)).map(file).collect();
    if !call.termination_message_path.is_empty() {
        let source = message_file(call);
        fs::create_dir_all(format!("{RUN}/termination")).context("making the termination message")?;
        fs::write(&source, "").context("making the termination message")?;
        // Whoever the container runs as may write it.
        fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .context("making the termination message")?;
        files.push(FileMount { source, path: call.termination_message_path.clone(), only_if_empty: false });
    }
    Ok(files)
}

fn message_file(call: &pb::StartContainer) -> String {
    format!("{RUN}/termination/{}.{}", call.name, call.attempt)
}

fn read_message(call: &pb::StartContainer) -> String {
    if call.termination_message_path.is_empty() {
        return String::new();
    }
    let path = message_file(call);
    let content = crate::rooted::Rooted::open("/").and_then(|root| root.read(&path, MESSAGE_LIMIT));
    // It may hold secrets and takes memory: it goes as soon as it has been read.
    let _ = fs::remove_file(&path);
    String::from_utf8_lossy(&content.unwrap_or_default()).into_owned()
}

/// In the child.
fn enter_container(view: &View, hostname: Option<&str>) -> Outcome<()> {
    child::prepare()?;
    process::unshare(libc::CLONE_NEWCGROUP).context("making the cgroup namespace")?;
    if let Some(hostname) = hostname {
        child::rename_host(hostname)?;
    }
    view.enter()
}

/// What sees a container through to its end.
struct Life {
    agent: Rc<Agent>,
    container: Rc<Container>,
    ends: Ends,
    phases: HashMap<String, u64>,
    forked: u64,
}

impl Life {
    async fn run(mut self, errors: spawn::Errors, ended: oneshot::Receiver<Ended>) {
        let result = errors.executed().await;
        self.phases.insert("exec".to_owned(), now_ns() - self.forked);
        if let Err(failure) = result {
            return self.give_up(failure).await;
        }
        let (done, gone) = watch::channel(false);
        let pumps = self.pumps(&gone);
        let started = pb::Started {
            pid: self.container.pid as u32,
            started_unix_ns: self.container.started_ns,
            phases_ns: std::mem::take(&mut self.phases),
        };
        self.container.started.send_replace(Some(Ok(started)));
        let probes = spawn_local(crate::probe::watch(self.agent.clone(), self.container.clone()));
        // The reaper lives as long as the agent.
        let ended = ended.await.unwrap_or(Ended { code: 255, signal: 0 });
        probes.abort();
        self.container.cgroup.kill();
        done.send_replace(true);
        for pump in pumps {
            // A pump does not panic: a panic ends the machine.
            let _ = pump.await;
        }
        self.conclude(ended).await;
    }

    fn pumps(&self, gone: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<()>> {
        let pump = |port: &Rc<Port>, channel: u8, name| {
            let output = Output::new(port.clone(), gone.clone());
            spawn_local(pump(self.container.clone(), output, channel, Cutter::new(name)))
        };
        let mut pumps = vec![pump(&self.ends.stdout, 1, "stdout")];
        pumps.extend(self.ends.stderr.iter().map(|port| pump(port, 2, "stderr")));
        pumps
    }

    /// The program was never executed: nothing of this attempt stays.
    async fn give_up(self, failure: Failure) {
        self.container.cgroup.remove().await;
        self.container.layers.unmount();
        if !self.container.call.keep_root {
            // Nothing was written to it by a program.
            let _ = fs::remove_dir_all(self.container.layers.store());
        }
        read_message(&self.container.call);
        self.container.exit.replace(Some(pb::ExitStatus::default()));
        self.agent.containers.forget(&self.container);
        self.container.ended.send_replace(true);
        self.container.started.send_replace(Some(Err(failure)));
    }

    async fn conclude(self, ended: Ended) {
        let container = &self.container;
        let exit = pb::ExitStatus {
            code: ended.code,
            signal: ended.signal,
            oom_killed: ended.code == 128 + libc::SIGKILL && container.cgroup.oom_kills() > 0,
            finished_unix_ns: now_ns(),
            message: read_message(&container.call),
            timed_out: false,
            started_unix_ns: container.started_ns,
        };
        container.stdin.take();
        container.exit.replace(Some(exit.clone()));
        container.listeners.borrow_mut().clear();
        container.ended.send_replace(true);
        let (name, attempt) = (container.call.name.clone(), container.call.attempt);
        let event = pb::ContainerExited { name, attempt, exit: Some(exit) };
        self.agent.events.push(pb::event::Event::Exited(event)).await;
        container.cgroup.remove().await;
    }
}

/// Takes one stream of a container to its log and to who listens.
async fn pump(container: Rc<Container>, mut output: Output, channel: u8, mut cutter: Cutter) {
    let (mut buffer, mut scratch) = (vec![0u8; PIECE], Vec::with_capacity(PIECE * 2));
    let log: Rc<Log> = container.log.clone();
    loop {
        let count = output.read(&mut buffer).await;
        if count == 0 {
            break;
        }
        container.history.wait_room(count).await;
        tell(&container, channel, &buffer[..count]).await;
        log.write(&mut cutter, &buffer[..count], &mut scratch).await;
    }
    log.finish(&mut cutter).await;
}

/// What goes to the history and to whom is decided in one step: somebody who attaches gets each byte just once.
async fn tell(container: &Container, channel: u8, bytes: &[u8]) {
    container.history.add(channel, bytes);
    if container.listeners.borrow().is_empty() {
        return;
    }
    let listeners = container.listeners.borrow().clone();
    let bytes = Bytes::copy_from_slice(bytes);
    for listener in listeners {
        // One that left does not listen any more.
        let _ = listener.send((channel, bytes.clone())).await;
    }
    container.listeners.borrow_mut().retain(|listener| !listener.is_closed());
}
