//! The pod's machine: what `Setup` asks for, once after boot.

pub mod devices;
pub mod identity;
pub mod inventory;
pub mod names;
pub mod netlink;
pub mod network;
pub mod renew;
pub mod undo;
pub mod usage;
pub mod volumes;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::os::fd::AsFd;
use std::rc::Rc;

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::agent::Agent;
use crate::boot::RUN;
use crate::container::cgroup::Cgroup;
use crate::container::rootfs::VolumeMount;
use crate::container::{child, spawn};
use crate::error::{Code, Context, Failure, Outcome};
use crate::logs::Log;
use crate::pb;
use crate::sys::{files, mount, process};
use volumes::Volume;

/// The cgroup of the pod's first process; no container's name begins with a dot.
const INIT: &str = ".init";
const SHM_BYTES: u64 = 64 << 20;
const LOG_SPOOL_BYTES: u64 = 16 << 20;

/// The machine after set-up.
pub struct Pod {
    /// They change when the guest gets a new identity.
    pub names: RefCell<names::Names>,
    pub writable: String,
    pub shm: String,
    /// The first process of the pod, if containers share their processes.
    pub init: Option<spawn::Spawned>,
    images: RefCell<HashMap<String, String>>,
    /// One image at a time is added.
    adding: Mutex<()>,
    pub volumes: RefCell<HashMap<String, Volume>>,
    log_spool_bytes: u64,
    /// What watches the volumes; it ends with the pod.
    _watch: JoinSet<()>,
}

impl Pod {
    /// Where the image is mounted.
    pub fn image(&self, name: &str) -> Outcome<String> {
        let found = self.images.borrow().get(name).cloned();
        found.ok_or_else(|| Failure::new(Code::NotFound, format!("the pod has no image device named {name}")))
    }

    /// Mounts an image that was not there at set-up; one that is known already stays as it is.
    pub async fn add_image(&self, agent: &Rc<Agent>, image: &pb::Device) -> Outcome<()> {
        let _alone = self.adding.lock().await;
        if self.images.borrow().contains_key(&image.name) {
            return Ok(());
        }
        let number = self.images.borrow().len();
        let folder = mount_image(agent, number, image).await?;
        self.images.borrow_mut().insert(image.name.clone(), folder);
        Ok(())
    }

    pub fn volume(&self, name: &str) -> Outcome<Volume> {
        let found = self.volumes.borrow().get(name).cloned();
        found.ok_or_else(|| Failure::new(Code::NotFound, format!("the pod has no volume {name}")))
    }

    /// Where the volumes are that a container mounts.
    pub fn mounts(&self, wanted: &[pb::Mount]) -> Outcome<Vec<VolumeMount>> {
        let source = |mount: &pb::Mount| {
            let source = self.volume(&mount.volume)?.path;
            Ok(VolumeMount { source, mount: mount.clone() })
        };
        wanted.iter().map(source).collect()
    }

    pub fn new_log(&self, name: &str) -> Log {
        Log::new(format!("{}/logs/{name}", self.writable).into(), self.log_spool_bytes)
    }

    pub fn has_file(&self, path: &str) -> bool {
        fs::exists(path).unwrap_or(false)
    }
}

/// Durations of the parts of the set-up.
struct Phases {
    last: u64,
    found: HashMap<String, u64>,
}

impl Phases {
    fn end(&mut self, name: &str) {
        let now = files::since_boot_ns();
        self.found.insert(name.to_owned(), now - self.last);
        self.last = now;
    }
}

/// Does everything that the call asks for.
pub async fn run(agent: &Rc<Agent>, call: &pb::Setup) -> Outcome<(Pod, pb::SetupDone)> {
    let begin = files::since_boot_ns();
    let mut phases = Phases { last: begin, found: HashMap::from([("boot".to_owned(), begin)]) };
    // A device that is named by the kernel's name is a restored one's.
    let is_clone = call.interfaces.iter().any(|interface| !interface.device.is_empty());
    if is_clone { identity::reseed_clone(&call.entropy) } else { identity::reseed(&call.entropy) }?;
    identity::set_clock(call.now_unix_ns)?;
    let names = set_names(call)?;
    let boot_id = identity::write_ids(&call.machine_id, &call.boot_id)?;
    phases.end("identity");
    if !call.interfaces.is_empty() {
        agent.modules.borrow_mut().need("virtio_net")?;
    }
    network::set_up(&call.interfaces).await?;
    set_sysctls(&call.sysctls)?;
    phases.end("network");
    let images = mount_images(agent, &call.images).await?;
    phases.end("images");
    let writable = mount_writable(agent, call.writable.as_ref()).await?;
    phases.end("writable");
    let volumes = make_volumes(agent, &call.volumes, &writable).await?;
    phases.end("volumes");
    let mut watch = JoinSet::new();
    watch.spawn_local(usage::watch(call.volumes.clone(), writable.clone(), agent.reaper(), agent.events.clone()));
    let shm = make_shared_memory(call.shm_bytes)?;
    let init = if call.share_process_namespace { Some(start_init(agent).await?) } else { None };
    phases.end("rest");
    phases.found.insert("total".to_owned(), files::since_boot_ns() - begin);
    let pod = Pod {
        names: RefCell::new(names),
        writable,
        shm,
        init,
        images: RefCell::new(images),
        adding: Mutex::default(),
        volumes: RefCell::new(volumes),
        log_spool_bytes: if call.log_spool_bytes == 0 { LOG_SPOOL_BYTES } else { call.log_spool_bytes },
        _watch: watch,
    };
    let done = pb::SetupDone {
        kernel: process::kernel_release(),
        memory_bytes: process::total_memory(),
        phases_ns: phases.found,
        boot_id,
    };
    Ok((pod, done))
}

fn set_names(call: &pb::Setup) -> Outcome<names::Names> {
    let names = names::Names::of(call);
    process::set_domainname(&call.domainname).context("setting the domain name")?;
    names.publish()?;
    if let Some(text) = names::resolver(call.resolver.as_ref()) {
        files::rewrite(names::RESOLVER, text.as_bytes()).context("writing the name servers")?;
    }
    Ok(names)
}

fn set_sysctls(wanted: &HashMap<String, String>) -> Outcome<()> {
    for (name, value) in wanted {
        fs::write(sysctl_path(name)?, value).context_with(|| format!("setting the sysctl {name}"))?;
    }
    Ok(())
}

/// "net.core.somaxconn", or with slashes where a part has a dot.
fn sysctl_path(name: &str) -> Outcome<String> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(Failure::invalid(format!("{name} is no sysctl")));
    }
    Ok(format!("/proc/sys/{path}"))
}

async fn mount_images(agent: &Rc<Agent>, wanted: &[pb::Device]) -> Outcome<HashMap<String, String>> {
    if !wanted.is_empty() {
        agent.modules.borrow_mut().need("virtio_blk")?;
        agent.modules.borrow_mut().need("erofs")?;
    }
    let mut found = HashMap::new();
    for (number, image) in wanted.iter().enumerate() {
        found.insert(image.name.clone(), mount_image(agent, number, image).await?);
    }
    Ok(found)
}

async fn mount_image(agent: &Rc<Agent>, number: usize, image: &pb::Device) -> Outcome<String> {
    let device = agent.devices.find(&image.serial).await?;
    let folder = format!("{RUN}/images/{number}");
    devices::mount_at(&device, &folder, "erofs", libc::MS_RDONLY | libc::MS_NOATIME)?;
    Ok(folder)
}

/// The writable device, or memory if there is none.
async fn mount_writable(agent: &Rc<Agent>, device: Option<&pb::Device>) -> Outcome<String> {
    let folder = format!("{RUN}/writable");
    match device.filter(|device| !device.serial.is_empty()) {
        Some(device) => {
            agent.modules.borrow_mut().need("virtio_blk")?;
            agent.modules.borrow_mut().need("ext4")?;
            let path = agent.devices.find(&device.serial).await?;
            devices::mount_at(&path, &folder, "ext4", libc::MS_NOATIME)?;
        }
        None => {
            fs::create_dir_all(&folder).context("making the writable folder")?;
            mount::mount("tmpfs", &folder, "tmpfs", 0, "mode=755").context("mounting the writable folder")?;
        }
    }
    fs::create_dir_all(format!("{folder}/logs")).context("making the log folder")?;
    Ok(folder)
}

async fn make_volumes(agent: &Rc<Agent>, wanted: &[pb::Volume], writable: &str) -> Outcome<HashMap<String, Volume>> {
    let mut found = HashMap::new();
    for volume in wanted {
        match &volume.source {
            Some(pb::volume::Source::Nfs(nfs)) => {
                let module = if volumes::nfs_kind(nfs)? == "nfs" { "nfsv3" } else { "nfsv4" };
                agent.modules.borrow_mut().need(module)?;
            }
            Some(pb::volume::Source::Block(block)) => {
                agent.modules.borrow_mut().need("virtio_blk")?;
                agent.modules.borrow_mut().need(&block.fs_type)?;
            }
            _ => {}
        }
        found.insert(volume.name.clone(), volumes::make(agent, volume, writable).await?);
    }
    Ok(found)
}

fn make_shared_memory(bytes: u64) -> Outcome<String> {
    let folder = format!("{RUN}/shm");
    let what = "mounting the shared memory";
    fs::create_dir_all(&folder).context(what)?;
    let options = format!("mode=1777,size={}", if bytes == 0 { SHM_BYTES } else { bytes });
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount::mount("shm", &folder, "tmpfs", flags, &options).context(what)?;
    Ok(folder)
}

/// The first process of a shared process namespace: it reaps what the containers leave behind, and does nothing else.
async fn start_init(agent: &Rc<Agent>) -> Outcome<spawn::Spawned> {
    let cgroup = Cgroup::create(INIT, &pb::Resources::default())?;
    let cgroup = cgroup.open().context("opening the first process's cgroup")?;
    let flags = (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64;
    spawn::spawn(&agent.reaper(), flags, None, cgroup.as_fd(), idle)
}

fn idle() -> Outcome<Infallible> {
    child::prepare()?;
    // Containers see this process: nothing of the agent stays open in it.
    process::close_from(3);
    process::rest_and_reap()
}
