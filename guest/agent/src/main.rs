//! PID 1. See the library.

use std::rc::Rc;

use cuboid_agent::agent::{Agent, Calls};
use cuboid_agent::channel::{EventLog, Mux, VirtioPort, VsockPort};
use cuboid_agent::error::{Context, Outcome};
use cuboid_agent::sys::process;
use cuboid_agent::{boot, modules, oom};
use tokio::task::{LocalSet, spawn_local};

fn main() {
    if std::process::id() != 1 {
        eprintln!("cuboid-agent: this is the first process of a guest; it does nothing elsewhere");
        std::process::exit(2);
    }
    boot::install_panic_hook();
    process::return_large_buffers();
    if let Err(failure) = run() {
        boot::fatal(&failure.message);
    }
    boot::fatal("the channel ended");
}

fn run() -> Outcome<()> {
    let options = boot::prepare()?;
    let signals = process::child_signals().context("blocking SIGCHLD")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    LocalSet::new().block_on(&runtime, async move {
        let events = EventLog::default();
        let agent = Rc::new(Agent::new(events.clone()));
        let reaper = agent.reaper();
        spawn_local(async move {
            if let Err(error) = reaper.run(signals).await {
                boot::fatal(&format!("waiting for processes: {error}"));
            }
        });
        spawn_local(oom::watch(events.clone()));
        let mux = Mux::new(Rc::new(Calls(agent)), events);
        if let Some(number) = options.vsock {
            modules::OnDemand::default().need("vmw_vsock_virtio_transport")?;
            mux.run(VsockPort::listen(number).context("listening for the host")?).await;
        } else {
            let port = boot::find_port(&options).await?;
            mux.run(VirtioPort::open(&port).context("opening the channel's port")?).await;
        }
        Ok(())
    })
}
