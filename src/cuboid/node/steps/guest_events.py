"""Events of a guest as events of the sandbox core. All of it is hostile input: sizes and times are bounded."""

from __future__ import annotations

import asyncio
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
BURST, EVENTS_PER_SECOND = 100, 10.0  # of one guest


class Pace:
    """A token bucket. Each event costs the host a flush of its disk and maybe a write to the API server's store."""

    def __init__(self, now: float) -> None:
        self._tokens = float(BURST)
        self._at = now

    def delay(self, now: float) -> float:
        """Seconds that one more event has to wait."""
        self._tokens = min(BURST, self._tokens + (now - self._at) * EVENTS_PER_SECOND) - 1
        self._at = now
        return max(-self._tokens / EVENTS_PER_SECOND, 0.0)


def hook(work: PodWork) -> EventHook:
    """Acknowledged to the guest when the event is in the pod's durable record; a guest in a hurry is kept waiting."""
    pace = Pace(work.tools.clock.monotonic())

    async def on_event(event: pb.Event) -> None:
        if wait := pace.delay(work.tools.clock.monotonic()):
            await asyncio.sleep(wait)
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
    if kind == "volume_over_limit":
        return _over_limit(work, event.volume_over_limit)
    if kind == "warning":
        work.tools.recorder.warning(work.pod, "GuestWarning", cast(pb.Warning, event.warning).message[:1024])
    elif kind == "oom":
        process = event.oom.process[:64]
        work.tools.recorder.warning(work.pod, "OOMKilling", f"the guest ended {process} for memory")
    return None


def _over_limit(work: PodWork, told: pb.VolumeOverLimit) -> ev.Evicted | None:
    """The limit as the pod's author wrote it; a guest cannot have a pod evicted for a volume that has none."""
    for volume in work.pod.spec.volumes:
        if volume.name == told.volume and volume.empty_dir is not None and volume.empty_dir.size_limit:
            limit = volume.empty_dir.size_limit
            return ev.Evicted(
                at=work.now, message=f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{limit}".'
            )
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


def found(container: pb.ContainerState, now: float) -> ev.FoundContainer:
    end = container.exit
    return ev.FoundContainer(
        name=container.name, attempt=container.attempt, running=container.running,
        started_at=seconds(container.started_unix_ns, now), startup_ok=container.started_probe_ok,
        readiness_ok=container.ready_probe_ok, liveness_ok=container.live_probe_ok, code=end.code & 0xFF,
        signal=_signal(end.signal), oom=end.oom_killed, finished_at=seconds(end.finished_unix_ns, now),
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
