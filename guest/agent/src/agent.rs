//! Answers the host's calls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Mutex;
use tokio::task::spawn_local;

use crate::channel::{EventLog, Handler, StreamHandle};
use crate::container::exec::{self, Execs};
use crate::container::{Containers, attach, start};
use crate::error::{Code, Failure, Outcome};
use crate::modules::OnDemand;
use crate::pb;
use crate::pb::call::Call;
use crate::pb::reply::Reply;
use crate::reaper::Reaper;
use crate::setup::devices::Devices;
use crate::setup::{self, Pod};
use crate::{boot, copy, forward, rehearse, stats};

/// A set-up that was done: its call and its answer, for a host that asks again.
struct Ready {
    call: pb::Setup,
    done: pb::SetupDone,
    pod: Rc<Pod>,
}

/// The state of the guest. One thread: no locks but the one that keeps two set-ups apart.
pub struct Agent {
    pub containers: Containers,
    pub execs: Execs,
    pub events: EventLog,
    pub modules: RefCell<OnDemand>,
    pub devices: Devices,
    /// Whether what happens now happens for a rehearsal.
    pub rehearses: Cell<bool>,
    reaper: Reaper,
    ready: RefCell<Option<Ready>>,
    /// Empty before set-up: in a template there is none.
    boot_id: RefCell<String>,
    setting_up: Mutex<()>,
}

/// The agent as the channel's handler.
pub struct Calls(pub Rc<Agent>);

impl Handler for Calls {
    fn call(&self, call: Call, stream: StreamHandle) {
        let agent = self.0.clone();
        spawn_local(async move {
            if let Err(failure) = agent.serve(call, &stream).await {
                stream.reply(failure.into_reply()).await;
            }
        });
    }

    fn boot_id(&self) -> String {
        self.0.boot_id.borrow().clone()
    }
}

fn empty() -> Reply {
    Reply::Empty(pb::Empty {})
}

impl Agent {
    pub fn new(events: EventLog) -> Self {
        Self {
            containers: Containers::default(),
            execs: Execs::default(),
            events,
            modules: RefCell::default(),
            devices: Devices::default(),
            rehearses: Cell::new(false),
            reaper: Reaper::default(),
            ready: RefCell::new(None),
            boot_id: RefCell::default(),
            setting_up: Mutex::new(()),
        }
    }

    pub fn reaper(&self) -> Reaper {
        self.reaper.clone()
    }

    /// The pod's address; the loopback one if it has none.
    pub fn pod_ip(&self) -> String {
        let known = self.ready.borrow().as_ref().map(|ready| ready.pod.names.borrow().pod_ip.clone());
        known.filter(|ip| !ip.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned())
    }

    /// CONFLICT before set-up.
    pub fn pod(&self) -> Outcome<Rc<Pod>> {
        let pod = self.ready.borrow().as_ref().map(|ready| ready.pod.clone());
        pod.ok_or_else(|| Failure::new(Code::Conflict, "the pod has not been set up"))
    }

    /// Calls that stream answer by themselves; the others give their answer.
    async fn serve(self: &Rc<Self>, call: Call, stream: &StreamHandle) -> Outcome<()> {
        match call {
            Call::Exec(call) => {
                let container = self.containers.find(&call.container)?;
                exec::exec(&self.reaper, &self.execs, container, call, stream.clone()).await
            }
            Call::Attach(call) => attach::attach(self.containers.find(&call.container)?, call, stream.clone()).await,
            Call::Logs(call) => {
                self.containers.log(&call.container)?.send(call.offset, call.follow, stream).await;
                Ok(())
            }
            Call::CopyIn(call) => copy::receive(&*self.containers.find(&call.container)?, &call, stream).await,
            Call::CopyOut(call) => copy::send(&*self.containers.find(&call.container)?, &call, stream).await,
            Call::PortForward(call) => forward::serve(&call, &self.pod_ip(), stream).await,
            other => {
                let reply = self.answer(other).await?;
                stream.reply(reply).await;
                Ok(())
            }
        }
    }

    async fn answer(self: &Rc<Self>, call: Call) -> Outcome<Reply> {
        match call {
            Call::Setup(call) => self.set_up(call).await.map(Reply::Setup),
            Call::StartContainer(call) => self.start(call).await.map(Reply::Started),
            Call::RemoveContainer(call) => self.remove(&call).await.map(Reply::Removed),
            Call::Signal(call) => self.signal(&call).map(|()| empty()),
            Call::Resize(call) => self.resize(&call).map(|()| empty()),
            Call::SetResources(call) => self.set_resources(&call).map(|()| empty()),
            Call::AckLogs(call) => self.acknowledge(&call).map(|()| empty()),
            Call::WriteVolume(call) => self.write_volume(&call).map(|()| empty()),
            Call::Stats(_) => Ok(Reply::Stats(stats::collect(self, &*self.pod()?))),
            Call::List(_) => Ok(Reply::State(self.state())),
            Call::SetTime(call) => self.set_time(&call).map(|()| empty()),
            Call::Rehearse(call) => self.rehearse(call).await.map(|()| empty()),
            Call::Renew(call) => self.renew(&call).await.map(|()| empty()),
            Call::Shutdown(_) => boot::shut_down(),
            _ => Err(Failure::new(Code::Unsupported, "this agent does not know the call")),
        }
    }

    async fn set_up(self: &Rc<Self>, call: pb::Setup) -> Outcome<pb::SetupDone> {
        let _alone = self.setting_up.lock().await;
        if let Some(ready) = &*self.ready.borrow() {
            if ready.call == call {
                return Ok(ready.done.clone());
            }
            return Err(Failure::new(Code::Conflict, "the pod has been set up differently already"));
        }
        self.make_ready(call).await
    }

    /// Does the set-up. The caller has made sure that there is none.
    pub async fn make_ready(self: &Rc<Self>, call: pb::Setup) -> Outcome<pb::SetupDone> {
        let (pod, done) = setup::run(self, &call).await?;
        self.boot_id.replace(done.boot_id.clone());
        self.ready.replace(Some(Ready { call, done: done.clone(), pod: Rc::new(pod) }));
        Ok(done)
    }

    /// As if there had been no set-up.
    pub fn forget_pod(&self) {
        self.ready.take();
        self.boot_id.take();
    }

    async fn rehearse(self: &Rc<Self>, call: pb::Rehearse) -> Outcome<()> {
        let _alone = self.setting_up.lock().await;
        if self.ready.borrow().is_some() {
            return Err(Failure::new(Code::Conflict, "the pod has been set up: it is too late to rehearse"));
        }
        rehearse::rehearse(self, call).await
    }

    async fn renew(&self, call: &pb::Renew) -> Outcome<()> {
        let _alone = self.setting_up.lock().await;
        if let Some(fresh) = setup::renew::renew(&*self.pod()?, call).await? {
            self.boot_id.replace(fresh);
        }
        Ok(())
    }

    fn set_time(&self, call: &pb::SetTime) -> Outcome<()> {
        setup::identity::reseed(&call.entropy)?;
        setup::identity::set_clock(call.now_unix_ns)
    }

    /// A host may say both at once: what comes while the pod is being set up waits until it is.
    async fn start(self: &Rc<Self>, call: pb::StartContainer) -> Outcome<pb::Started> {
        drop(self.setting_up.lock().await);
        start::start(self, call).await
    }

    pub async fn remove(self: &Rc<Self>, call: &pb::RemoveContainer) -> Outcome<pb::RemovedContainer> {
        let container = self.containers.get(&call.name);
        if container.is_none() {
            // Only a log may be left; without one there is nothing of that name.
            self.containers.log(&call.name)?;
        }
        if let Some(container) = container {
            if container.is_running() {
                container.cgroup.kill();
                let mut ended = container.ended.subscribe();
                // The container outlives the wait: it is held here.
                let _ = ended.wait_for(|ended| *ended).await;
            }
            container.layers.remove(&self.reaper).await?;
            self.containers.forget(&container);
        }
        if !call.keep_logs {
            self.containers.remove_log(&call.name);
        }
        Ok(pb::RemovedContainer {})
    }

    fn signal(&self, call: &pb::Signal) -> Outcome<()> {
        if !(1..=64).contains(&call.number) {
            return Err(Failure::invalid(format!("{} is no signal", call.number)));
        }
        if call.exec_stream != 0 {
            return self.execs.find(call.exec_stream)?.signal(call.number);
        }
        self.containers.find(&call.container)?.signal(call.number, call.all)
    }

    fn resize(&self, call: &pb::Resize) -> Outcome<()> {
        if call.stream != 0 {
            return self.execs.find(call.stream)?.resize(call.rows, call.cols);
        }
        self.containers.find(&call.container)?.resize(call.rows, call.cols)
    }

    fn set_resources(&self, call: &pb::SetResources) -> Outcome<()> {
        let container = self.containers.find(&call.container)?;
        container.require_running()?;
        container.cgroup.change(call.resources.as_ref().unwrap_or(&pb::Resources::default()))
    }

    fn acknowledge(&self, call: &pb::AckLogs) -> Outcome<()> {
        self.containers.log(&call.container)?.acknowledge(call.offset);
        Ok(())
    }

    fn write_volume(&self, call: &pb::WriteVolume) -> Outcome<()> {
        let volume = self.pod()?.volume(&call.volume)?;
        if !volume.is_files {
            return Err(Failure::new(
                Code::Conflict,
                format!("the files of volume {} are not the host's", call.volume),
            ));
        }
        setup::volumes::write_files(&volume, &call.files)
    }

    fn state(&self) -> pb::State {
        pb::State {
            set_up: self.ready.borrow().is_some(),
            containers: self.containers.list().iter().map(|container| container.state()).collect(),
            last_event: self.events.last(),
        }
    }
}
