"""Whether the machine that a pod has can give it what it asks for now. Pure."""

from __future__ import annotations

from collections.abc import Callable

from cuboid.kube.types import Pod
from cuboid.lib.errors import InvalidError
from cuboid.node.sizing import Size

DEFERRED, INFEASIBLE = "Deferred", "Infeasible"  # Kubernetes' reasons of the condition PodResizePending


def refusal(pod: Pod, has: Size, size_of: Callable[[Pod], Size], host_mib: int) -> tuple[str, str] | None:
    """Reason and message, or None: a machine of the size `has` is large enough for the pod as it is now."""
    try:
        needs = size_of(pod)
    except InvalidError as error:
        return INFEASIBLE, str(error)
    if needs.memory_mib <= has.memory_mib and needs.vcpus <= has.vcpus:
        return None
    if needs.memory_mib > host_mib:
        return INFEASIBLE, (
            f"Node didn't have enough capacity: memory, requested: {needs.memory_mib} MiB, capacity: {host_mib} MiB"
        )
    return DEFERRED, (
        f"the pod's machine has {has.memory_mib} MiB and {_cpus(has.vcpus)}, and {needs.memory_mib} MiB and "
        f"{_cpus(needs.vcpus)} are needed: a machine does not grow while it runs; stop the pod and start it again"
    )


def _cpus(count: int) -> str:
    return f"{count} CPU" if count == 1 else f"{count} CPUs"
