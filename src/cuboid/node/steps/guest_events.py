"""Events of a guest as events of the sandbox core. All of it is hostile input: sizes and times are bounded."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import EventHook
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node.sandbox import events as ev
from cuboid.node.steps.work import PodWork

log = get_log(__name__)
CHECKS = {
    pb.Probe.STARTUP: ev.Check.STARTUP, pb.Probe.LIVENESS: ev.Check.LIVENESS, pb.Probe.READINESS: ev.Check.READINESS,
}  # fmt: skip
MESSAGE_LIMIT = 4096
FALLBACK_BYTES, FALLBACK_LINES = 2048, 80  # of the log as a termination message, Kubernetes' numbers
CLOCK_SKEW = 3600.0  # seconds that a guest's time may differ from ours before ours is taken


def hook(work: PodWork) -> EventHook:
    """Acknowledged to the guest when the event is in the pod's durable record."""

    async def on_event(event: pb.Event) -> None:
        converted = await convert(work, event)
        if converted is not None:
            await work.submit(converted)

    return on_event


async def convert(work: PodWork, event: pb.Event) -> ev.Event | None:
    kind = event.WhichOneof("event")
    if kind == "exited":
        return await _exited(work, event.exited)
    if kind == "probe" and event.probe.kind in CHECKS:
        told = event.probe
        return ev.ProbeChanged(
            at=work.now, name=told.name, attempt=told.attempt, check=CHECKS[told.kind], ok=told.success,
            message=told.message[:MESSAGE_LIMIT],
        )  # fmt: skip
    if kind == "probe_failed" and event.probe_failed.kind in CHECKS:
        failed = event.probe_failed
        return ev.ProbeFailed(
            at=work.now, name=failed.name, attempt=failed.attempt, check=CHECKS[failed.kind],
            message=failed.message[:MESSAGE_LIMIT],
        )  # fmt: skip
    if kind == "warning":
        work.tools.recorder.warning(work.pod, "GuestWarning", cast(pb.Warning, event.warning).message[:1024])
    elif kind == "oom":
        process = event.oom.process[:64]
        work.tools.recorder.warning(work.pod, "OOMKilling", f"the guest ended {process} for memory")
    return None


async def _exited(work: PodWork, exited: pb.ContainerExited) -> ev.Exited:
    status = exited.exit
    message = status.message[:MESSAGE_LIMIT]
    if status.code and not message and _wants_log(work, exited.name):
        message = await _log_end(work, exited.name)
    return ev.Exited(
        at=work.now, name=exited.name, attempt=exited.attempt, code=status.code & 0xFF, signal=_signal(status.signal),
        oom=status.oom_killed, started_at=seconds(status.started_unix_ns, work.now),
        finished_at=seconds(status.finished_unix_ns, work.now), message=message,
    )  # fmt: skip


def _signal(number: int) -> int:
    return number if 0 < number < 128 else 0


def seconds(nanoseconds: int, now: float) -> float:
    """A guest's time in seconds, if it is believable, else ours; 0 stays 0."""
    moment = nanoseconds / 1e9
    return moment if not moment or now - 10 * 365 * 86_400 < moment < now + CLOCK_SKEW else now


def found(container: pb.ContainerState) -> ev.FoundContainer:
    end = container.exit
    return ev.FoundContainer(
        name=container.name, attempt=container.attempt, running=container.running,
        started_at=container.started_unix_ns / 1e9, startup_ok=container.started_probe_ok,
        readiness_ok=container.ready_probe_ok, liveness_ok=container.live_probe_ok, code=end.code & 0xFF,
        signal=_signal(end.signal), oom=end.oom_killed, finished_at=end.finished_unix_ns / 1e9,
        message=end.message[:MESSAGE_LIMIT],
    )  # fmt: skip


def _wants_log(work: PodWork, name: str) -> bool:
    containers = [*work.pod.spec.init_containers, *work.pod.spec.containers]
    return any(c.name == name and c.termination_message_policy == "FallbackToLogsOnError" for c in containers)


async def _log_end(work: PodWork, name: str) -> str:
    """The end of the container's log, once it is on the host."""
    pump = work.pumps.get(name)
    if pump is None or work.guest is None:
        return ""
    try:
        known = await work.guest.list()
        offsets = [c.log_end_offset for c in known.containers if c.name == name]
        if offsets:
            await pump.wait_for(offsets[0], timeout=1.0)
        return log_text(work.log_folder(name) / "0.log")
    except (CuboidError, OSError) as error:
        log.info("no log for the termination message", container=name, error=str(error))
        return ""


def log_text(path: Path) -> str:
    """The last lines of a log in CRI form, without its prefixes."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - FALLBACK_BYTES * 4))
        lines = file.read().decode(errors="replace").splitlines()[-FALLBACK_LINES:]
    texts = [line.split(" ", 3)[3] for line in lines if line.count(" ") >= 3]
    return "\n".join(texts).encode()[-FALLBACK_BYTES:].decode(errors="ignore")
