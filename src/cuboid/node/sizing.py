"""How big a pod's VM is. Pure.

Memory comes in classes, so that few templates serve many pods; the limits of containers stay exact inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cuboid.kube import quantity
from cuboid.kube.types import Container, Pod
from cuboid.lib.errors import InvalidError

if TYPE_CHECKING:  # they hold the core's rules, and the core asks for limits, which are reckoned from here
    from cuboid.node.settings import NodeSettings

MIB = 1 << 20
BLOCK_MIN_MIB = 64  # an ext4 smaller than this is of no use
GROWS_FROM_MIB, GROWS_BY = (
    512,
    25,
)  # beyond, a guest's kernel keeps 4 % more for pages' records and reserves (note 0013)
CLASSES_MIB = (64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
"""Sizes of VMs; above, three to each doubling, 25 to 28 % apart."""


@dataclass(frozen=True)
class Size:
    vcpus: int
    memory_mib: int  # of the VM: a class
    cpu_millis: int  # asked for, of all containers
    disk_bytes: int  # of the writable disk

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB


def size_of(
    pod: Pod, settings: NodeSettings, *, host_cpus: int, overhead_mib: int = 0, min_memory_mib: int = 0
) -> Size:
    """`overhead_mib`: what the guest's kernel and agent need, unless the settings name another amount.
    `min_memory_mib`: of the smallest VM that guest and driver bear. InvalidError for a container too small to start."""
    millis = _cpu(pod)
    needed = -(-_memory(pod, settings) // MIB) + (settings.guest_overhead_mib or overhead_mib)
    needed += max(needed - GROWS_FROM_MIB, 0) // GROWS_BY
    memory = memory_class(max(needed, min_memory_mib))
    return Size(min(max(-(-millis // 1000), 1), host_cpus), memory, millis, _disk(pod, settings))


def memory_class(needed: int) -> int:
    """The smallest class that has so many MiB."""
    for size in CLASSES_MIB:
        if size >= needed:
            return size
    doubled = CLASSES_MIB[-1]
    while doubled * 2 < needed:
        doubled *= 2
    return next(size for size in (doubled * 5 // 4, doubled * 25 // 16, doubled * 2) if size >= needed)


def _cpu(pod: Pod) -> int:
    whole = pod.spec.resources
    if whole and (text := whole.limits.get("cpu") or whole.requests.get("cpu")):
        return quantity.to_millis(text)
    return together(pod, lambda c: _amount(c, "cpu", quantity.to_millis))


def _memory(pod: Pod, settings: NodeSettings) -> int:
    whole = pod.spec.resources
    if whole and (text := whole.limits.get("memory")):
        return quantity.to_int(text)
    return together(pod, lambda c: _container_memory(c, settings)) + _memory_volumes(pod)


def _container_memory(container: Container, settings: NodeSettings) -> int:
    text = container.resources.limits.get("memory")
    if text is None:
        asked = quantity.to_int(container.resources.requests.get("memory", "0"))
        return max(asked, settings.container_mib * MIB)
    limit = quantity.to_int(text)
    if 0 < limit < settings.container_min_mib * MIB:
        raise InvalidError(
            f"memory smaller than the guest needs: container {container.name} has {text}, "
            f"at least {settings.container_min_mib}Mi are necessary",
            reason="InsufficientMemory",
        )
    return limit or settings.container_mib * MIB


def _memory_volumes(pod: Pod) -> int:
    dirs = [v.empty_dir for v in pod.spec.volumes if v.empty_dir and v.empty_dir.medium.startswith("Memory")]
    return sum(quantity.to_int(d.size_limit) for d in dirs if d.size_limit)


def together(pod: Pod, amount: Callable[[Container], int]) -> int:
    """Kubernetes' rule: the containers and sidecars together, or the largest init container with those before it."""
    sidecars = peak = 0
    for container in pod.spec.init_containers:
        mine = amount(container)
        peak = max(peak, sidecars + mine)
        sidecars += mine if container.restart_policy == "Always" else 0
    return max(peak, sidecars + sum(amount(container) for container in pod.spec.containers))


def _amount(container: Container, name: str, parse: Callable[[str], int]) -> int:
    text = container.resources.limits.get(name) or container.resources.requests.get(name)
    return parse(text) if text else 0


def _disk(pod: Pod, settings: NodeSettings) -> int:
    """The sum of the limits if every container has one, and the disk volumes' limits; else the default."""
    limits = [c.resources.limits.get("ephemeral-storage") for c in containers_of(pod)]
    if not all(limits):
        return settings.disk_mib * MIB
    dirs = [v.empty_dir.size_limit for v in pod.spec.volumes if v.empty_dir and not v.empty_dir.medium]
    total = sum(quantity.to_int(text) for text in [*limits, *dirs] if text)
    return max(total, BLOCK_MIN_MIB * MIB)


def containers_of(pod: Pod) -> Iterable[Container]:
    return [*pod.spec.init_containers, *pod.spec.containers]
