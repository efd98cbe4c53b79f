"""The pod's VM made to stand still, and to go on."""

from __future__ import annotations

import os

from cuboid.guest import agent_pb2 as pb
from cuboid.lib.aio import within
from cuboid.lib.errors import CuboidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps.containers import patiently
from cuboid.node.steps.host import text
from cuboid.node.steps.work import PodWork
from cuboid.vmm.base import Vm

log = get_log(__name__)
VMM_SECONDS = 10.0  # for a VMM to do as told
NETWORK_SECONDS = 5.0
ENTROPY = 32  # bytes


async def pause_vm(work: PodWork, order: do.PauseVm) -> ev.Event:
    """Idempotent. From its first moment the guest's silence is no fault."""
    await _hold(work, frozen=True)
    try:
        await within(VMM_SECONDS, _vm(work).pause(), "pausing the pod's machine")
    except (CuboidError, OSError) as error:
        await _hold(work, frozen=False)
        return ev.VmPauseFailed(at=work.now, attempt=order.attempt, reason="FailedPause", message=text(error))
    return ev.VmPaused(at=work.now, attempt=order.attempt)


async def resume_vm(work: PodWork, order: do.ResumeVm) -> ev.Event:
    """Idempotent."""
    try:
        await within(VMM_SECONDS, _vm(work).resume(), "resuming the pod's machine")
    except (CuboidError, OSError) as error:
        return ev.VmResumeFailed(at=work.now, attempt=order.attempt, reason="FailedResume", message=text(error))
    await _hold(work, frozen=False)
    return ev.VmResumed(at=work.now, attempt=order.attempt)


async def set_clock(work: PodWork, order: do.SetClock) -> ev.Event:
    """A guest that does not take the time keeps its own, and the pod's events say so."""
    try:
        await patiently(work, lambda guest: guest.set_time(_time(work)))
    except (CuboidError, OSError) as error:
        log.warning("a guest's clock is off after a pause", pod=work.pod.metadata.name, error=text(error))
        work.tools.recorder.warning(work.pod, "ClockNotSet", f"The pod's clock is off after its pause: {text(error)}")
    return ev.ClockSet(at=work.now, attempt=order.attempt)


def _time(work: PodWork) -> pb.SetTime:
    return pb.SetTime(now_unix_ns=int(work.now * 1e9), entropy=os.urandom(ENTROPY))


def _vm(work: PodWork) -> Vm:
    if work.vm is None:
        raise NotFoundError("the pod's VM is gone")
    return work.vm


async def _hold(work: PodWork, *, frozen: bool) -> None:
    """Whoever would take the guest's silence for its end is told better, or that it has to answer again."""
    if frozen:
        work.tools.refresher.forget(work.uid)  # Setup tells it of the pod again
    if work.guest is not None:
        work.guest.hold(frozen)
    try:
        await within(NETWORK_SECONDS, work.tools.network.hold(work.network_id, frozen=frozen), "telling the network")
    except (CuboidError, OSError) as error:
        log.warning("the network is not told of a pause", pod=work.pod.metadata.name, error=text(error))
