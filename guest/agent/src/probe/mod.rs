//! Probes, run in the guest: the host hears of changes only.

pub mod gauge;
pub mod grpc;
mod hpack;
pub mod http;
mod tls;

use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::agent::Agent;
use crate::container::{Container, exec};
use crate::error::{Failure, Outcome};
use crate::pb;
use crate::pb::event::Event;
use crate::pb::probe::{Action, Kind};
use gauge::{Gauge, Timing};

/// Bytes of a command's output that a failure's message holds.
const MESSAGE: usize = 1_024;

/// INVALID for a probe that does nothing.
pub fn check_actions(probes: &[pb::Probe]) -> Outcome<()> {
    if probes.iter().any(|probe| probe.action.is_none()) {
        return Err(Failure::invalid("a probe has no action"));
    }
    Ok(())
}

/// Runs all probes of a container until it is dropped: first the start, then the others.
pub async fn watch(agent: Rc<Agent>, container: Rc<Container>) {
    let of = |kind: Kind| container.call.probes.iter().filter(move |probe| probe.kind() == kind);
    for probe in of(Kind::Startup) {
        run(&agent, &container, probe).await;
    }
    // Tasks of this one: they end when it is dropped.
    let mut tasks = tokio::task::JoinSet::new();
    for probe in of(Kind::Liveness).chain(of(Kind::Readiness)) {
        let (agent, container, probe) = (agent.clone(), container.clone(), probe.clone());
        tasks.spawn_local(async move { run(&agent, &container, &probe).await });
    }
    while tasks.join_next().await.is_some() {}
}

/// One probe: for ever, or for a startup probe until it has succeeded.
async fn run(agent: &Agent, container: &Rc<Container>, probe: &pb::Probe) {
    let timing = Timing::of(probe);
    let mut gauge = Gauge::new(probe);
    sleep(Duration::from_millis(timing.initial_delay_ms)).await;
    let mut ticks = interval(Duration::from_millis(timing.period_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = check(agent, container, probe, timing.timeout_ms).await;
        let verdict = gauge.count(result.is_ok());
        let message = result.err().unwrap_or_default();
        let (name, attempt, kind) = (container.call.name.clone(), container.call.attempt, probe.kind().into());
        if verdict.first_failure {
            let (name, message) = (name.clone(), message.clone());
            agent.events.push(Event::ProbeFailed(pb::ProbeFailed { name, attempt, kind, message })).await;
        }
        let Some(success) = verdict.change else { continue };
        record(container, probe.kind(), success);
        agent.events.push(Event::Probe(pb::ProbeChanged { name, attempt, kind, success, message })).await;
        if success && probe.kind() == Kind::Startup {
            return;
        }
    }
}

fn record(container: &Container, kind: Kind, success: bool) {
    let mut health = container.health.get();
    match kind {
        Kind::Startup => health.started = success,
        Kind::Liveness => health.live = success,
        Kind::Readiness => health.ready = success,
    }
    container.health.set(health);
}

/// One try; the error says why it failed.
async fn check(agent: &Agent, container: &Rc<Container>, probe: &pb::Probe, timeout_ms: u64) -> Result<(), String> {
    if let Some(Action::Exec(action)) = &probe.action {
        return check_command(agent, container, action, timeout_ms).await;
    }
    let work = check_network(agent, probe.action.as_ref());
    let limit = Duration::from_millis(timeout_ms);
    timeout(limit, work).await.unwrap_or_else(|_| Err(format!("no answer within {timeout_ms} ms")))
}

async fn check_command(
    agent: &Agent,
    container: &Rc<Container>,
    action: &pb::ExecAction,
    timeout_ms: u64,
) -> Result<(), String> {
    let call = pb::Exec {
        args: action.args.clone(),
        timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        ..Default::default()
    };
    let result = exec::run_quietly(&agent.reaper(), container, &call, MESSAGE).await;
    let (code, output) = result.map_err(|failure| failure.message)?;
    if code == 0 { Ok(()) } else { Err(format!("exit code {code}: {}", output.trim_end())) }
}

async fn check_network(agent: &Agent, action: Option<&Action>) -> Result<(), String> {
    let own = agent.pod_ip();
    let host = |wanted: &str| if wanted.is_empty() { own.clone() } else { wanted.to_owned() };
    match action {
        Some(Action::Http(action)) => http::check(action, &host(&action.host), number(action.port)?).await,
        Some(Action::Tcp(action)) => {
            let port = number(action.port)?;
            let connection = TcpStream::connect((host(&action.host), port)).await;
            connection.map(drop).map_err(|error| http::refused(port, &error))
        }
        Some(Action::Grpc(action)) => grpc::check(&action.service, &host(""), number(action.port)?).await,
        Some(Action::Exec(_)) | None => Err("the probe has no action".to_owned()),
    }
}

fn number(port: u32) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| format!("{port} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_without_an_action_is_refused() {
        let tcp = pb::Probe { action: Some(Action::Tcp(pb::TcpAction::default())), ..Default::default() };
        assert!(check_actions(std::slice::from_ref(&tcp)).is_ok());
        assert!(check_actions(&[tcp, pb::Probe::default()]).is_err());
    }

    #[test]
    fn a_port_is_one_to_65535() {
        assert_eq!(number(80), Ok(80));
        assert!(number(0).is_err() && number(65_536).is_err());
    }
}
