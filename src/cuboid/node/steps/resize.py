"""Other limits for a pod that runs: of its VMM on the host, and of its containers in the guest."""

from __future__ import annotations

from cuboid.kube.types import Container
from cuboid.lib.aio import within
from cuboid.lib.errors import CuboidError, UnsupportedError
from cuboid.node import limits, spec_container
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps.confine import VMM_SECONDS, host_memory
from cuboid.node.steps.containers import patiently
from cuboid.node.steps.host import text
from cuboid.node.steps.work import PodWork


async def apply_resources(work: PodWork, order: do.ApplyResources) -> ev.Event:
    """Idempotent. One container that cannot have its new limits yet keeps all of it from being done."""
    try:
        await _host(work)
        for name in order.names:
            await _guest(work, work.container(name))
    except (CuboidError, OSError) as error:
        return ev.ResizeFailed(at=work.now, attempt=order.attempt, reason="ResizeError", message=text(error))
    return ev.Resized(at=work.now, attempt=order.attempt, names=order.names)


async def _guest(work: PodWork, container: Container) -> None:
    given = spec_container.resources(container)
    await patiently(work, lambda guest: guest.set_resources(container.name, given))


async def _host(work: PodWork) -> None:
    """A pod that is still starting has its machine whole; its limits come when it has started."""
    if work.vm is None or not work.state().machine.confined:
        return
    overhead = work.tools.driver.capabilities().overhead_mib
    then = limits.started(work.given, work.size, overhead_mib=overhead, host_memory=host_memory())
    try:
        await within(VMM_SECONDS, work.vm.set_limits(then), "limiting the pod's VMM")
    except UnsupportedError:
        return  # those of the start, which are wider
