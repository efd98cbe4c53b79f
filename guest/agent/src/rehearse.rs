//! A pod that nobody sees: set up, started, ended and undone, so that everything a real one needs has run before.
//!
//! Code that runs for the first time in a machine is slow: it must be translated, or its pages faulted in. A clone of a
//! template has run nothing yet.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::channel::StreamHandle;
use crate::container::{Container, attach, start};
use crate::error::{Code, Failure, Outcome};
use crate::pb;
use crate::setup::identity;
use crate::setup::undo::Before;

/// A container that has not ended by itself after this time is killed.
const PATIENCE: Duration = Duration::from_secs(5);
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Leaves the guest as it was, whether the rehearsal succeeds or not; if even that fails, the guest is of no use.
pub async fn rehearse(agent: &Rc<Agent>, call: pb::Rehearse) -> Outcome<()> {
    let (Some(setup), Some(start)) = (call.setup, call.start) else {
        return Err(Failure::invalid("a rehearsal needs a set-up and a container"));
    };
    identity::reseed_clone(&setup.entropy)?;
    let before = Before::note(agent, &setup).await?;
    let name = start.name.clone();
    hide(agent, true);
    let result = perform(agent, setup, start).await;
    let undone = undo(agent, &name, before).await;
    hide(agent, false);
    result.and(undone)
}

fn hide(agent: &Agent, hidden: bool) {
    agent.events.mute(hidden);
    agent.rehearses.set(hidden);
}

async fn perform(agent: &Rc<Agent>, setup: pb::Setup, call: pb::StartContainer) -> Outcome<()> {
    let name = call.name.clone();
    agent.make_ready(setup).await?;
    start::start(agent, call).await?;
    let container = agent.containers.find(&name)?;
    // Listeners end when they are dropped.
    let _listeners = listen(&container);
    if !has_ended(&container, PATIENCE).await {
        container.cgroup.kill();
    }
    if has_ended(&container, KILLED_WITHIN).await {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, "the rehearsed container did not end when it was killed"))
}

/// Somebody who attaches and somebody who follows the log, as for a real container.
fn listen(container: &Rc<Container>) -> JoinSet<()> {
    let mut listeners = JoinSet::new();
    let attached = container.clone();
    listeners.spawn_local(async move {
        let call = pb::Attach { stdout: true, stderr: true, history: true, ..Default::default() };
        // Nobody is there whom a failure would tell anything.
        let _ = attach::attach(attached, call, StreamHandle::unheard()).await;
    });
    let log = container.log.clone();
    listeners.spawn_local(async move { log.send(0, true, &StreamHandle::unheard()).await });
    listeners
}

async fn has_ended(container: &Container, limit: Duration) -> bool {
    let mut ended = container.ended.subscribe();
    matches!(timeout(limit, ended.wait_for(|ended| *ended)).await, Ok(Ok(_)))
}

async fn undo(agent: &Rc<Agent>, name: &str, before: Before) -> Outcome<()> {
    let removed = agent.remove(&pb::RemoveContainer { name: name.to_owned(), keep_logs: false }).await;
    // One that never started is not there.
    removed.map(drop).or_else(|failure| if failure.code == Code::NotFound { Ok(()) } else { Err(failure) })?;
    agent.forget_pod();
    before.restore().await
}
