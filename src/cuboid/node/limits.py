"""What a pod may take of its host: CPU, memory, operations of its disks, and who goes first when memory runs out. Pure.

CPU. Inside the machine each container has its own limit, as anywhere. But root in the machine may lift what its
kernel keeps, so the VMM has a limit as well: that of all containers, and `VMM_MILLIS` for the guest's kernel and the
devices. It applies once the pod has started. Until then the VMM has its virtual CPUs whole: a pod of 0.05 CPUs would
else take twenty times as long to start, for work that is ours and not its tenant's and that is not billed;
`START_SECONDS` bound it. The same holds for its share of a busy host's CPUs (the weight, by what the pod requests):
until then it is that of a pod that requests its virtual CPUs whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from cuboid.kube import names, quantity
from cuboid.kube.types import Container, Pod, ResourceRequirements
from cuboid.lib.errors import InvalidError
from cuboid.net import bandwidth
from cuboid.node.sizing import Size, containers_of, together
from cuboid.vmm.base import Disk, HostLimits

VMM_MILLIS = 100  # thousandths of a core for what is not the containers'
START_SECONDS = 30.0  # after which a machine that has not started all of its containers is limited like one that has
PIDS = 256  # processes and threads of a VMM
LEAST_SHARES, MOST_SHARES = 2, 262_144  # of cgroup v1, in which Kubernetes reckons
GUARANTEED_SCORE, BEST_EFFORT_SCORE = -997, 1000  # oom_score_adj, the kubelet's
COUNTED = ("cpu", "memory")
LEAST_OPERATIONS, LEAST_BYTES, MOST = 1, 4096, 10**12  # per second


@dataclass(frozen=True)
class DiskLimits:
    """Of each writable disk of a pod; 0: none."""

    iops: int = 0
    bytes_per_second: int = 0

    def on(self, disk: Disk) -> Disk:
        if disk.read_only:
            return disk
        return replace(disk, iops=self.iops, bytes_per_second=self.bytes_per_second)


def check(pod: Pod) -> None:
    """InvalidError names the annotation that cannot be read."""
    disk_limits(pod)
    bandwidth.of_annotations(pod.metadata.annotations)


# --- disks -----------------------------------------------------------------------------------------------------------


def disk_limits(pod: Pod) -> DiskLimits:
    """InvalidError for a value that is no quantity, or out of bounds."""
    annotations = pod.metadata.annotations
    return DiskLimits(
        _rate(annotations, names.DISK_IOPS, LEAST_OPERATIONS, "operations per second, like 500"),
        _rate(annotations, names.DISK_BANDWIDTH, LEAST_BYTES, "bytes per second, like 20Mi"),
    )


def _rate(annotations: Mapping[str, str], name: str, least: int, what: str) -> int:
    text = annotations.get(name)
    if text is None:
        return 0
    try:
        value = quantity.parse(text)
    except InvalidError:
        value = Fraction(-1)
    if not least <= value <= MOST:
        raise InvalidError(f"the annotation {name} is {text[:40]!r}, not within {least} and 1T", hint=f"write {what}")
    return int(value)


# --- CPU and memory --------------------------------------------------------------------------------------------------


def at_start(pod: Pod, size: Size, *, overhead_mib: int, host_memory: int) -> HostLimits:
    """The VMM's limits until the pod has started. `overhead_mib` is the VMM's own memory, `host_memory` in bytes."""
    whole = size.vcpus * 1000
    return HostLimits(
        cpu_millis=whole + VMM_MILLIS, cpu_weight=max(_weight(pod), cpu_weight(whole)), pids=PIDS,
        memory_mib=size.memory_mib + overhead_mib, oom_score=oom_score(pod, host_memory),
    )  # fmt: skip


def started(pod: Pod, size: Size, *, overhead_mib: int, host_memory: int) -> HostLimits:
    """The VMM's limits from then on. A container without a limit may use the machine's CPUs whole."""
    first = at_start(pod, size, overhead_mib=overhead_mib, host_memory=host_memory)
    most = min(first.cpu_millis, (cpu_limit(pod) or first.cpu_millis) + VMM_MILLIS)
    return replace(first, cpu_millis=most, cpu_weight=_weight(pod))


def _weight(pod: Pod) -> int:
    return cpu_weight(requested_millis(pod))


def cpu_limit(pod: Pod) -> int:
    """Thousandths of a core that all containers together may use; 0 if one of them has no limit."""
    whole = pod.spec.resources
    if whole and whole.limits.get("cpu"):
        return quantity.to_millis(whole.limits["cpu"])
    limits = [_millis(container, "limits") for container in containers_of(pod)]
    return together(pod, lambda c: _millis(c, "limits")) if all(limits) else 0


def requested_millis(pod: Pod) -> int:
    """Thousandths of a core asked for. A limit alone is a request as well, as in Kubernetes."""
    whole = pod.spec.resources
    if whole and (text := whole.requests.get("cpu") or whole.limits.get("cpu")):
        return quantity.to_millis(text)
    return together(pod, lambda c: _millis(c, "requests") or _millis(c, "limits"))


def _millis(container: Container, kind: str) -> int:
    given = getattr(container.resources, kind).get("cpu")
    return quantity.to_millis(given) if given else 0


def cpu_weight(millis: int) -> int:
    """The cgroup v2 weight of so many thousandths of a core: Kubernetes' way, by v1's shares; none asked for is 1."""
    shares = min(max(millis * 1024 // 1000, LEAST_SHARES), MOST_SHARES)
    return 1 + (shares - LEAST_SHARES) * 9999 // (MOST_SHARES - LEAST_SHARES)


def oom_score(pod: Pod, host_memory: int) -> int:
    """oom_score_adj of the VMM by the kubelet's rule (GetContainerOOMScoreAdjust), for the pod as one.

    Guaranteed pods go last, those that ask for nothing first, others the sooner the less they ask for.
    """
    asked = _resources(pod)
    if all(_guaranteed(given) for given in asked):
        return GUARANTEED_SCORE
    if not any(_amount(given, name) for both in asked for given in (both.limits, both.requests) for name in COUNTED):
        return BEST_EFFORT_SCORE
    share = 1000 * _requested_memory(pod) // max(host_memory, 1)
    return min(max(1000 - share, 1000 + GUARANTEED_SCORE), BEST_EFFORT_SCORE - 1)


def _resources(pod: Pod) -> list[ResourceRequirements]:
    """What is asked for: of the pod as a whole if it says so, else of each container."""
    whole = pod.spec.resources
    return [whole] if whole and (whole.limits or whole.requests) else [c.resources for c in containers_of(pod)]


def _guaranteed(asked: ResourceRequirements) -> bool:
    return all(
        (limit := _amount(asked.limits, name)) and _amount(asked.requests, name) in (0, limit) for name in COUNTED
    )


def _requested_memory(pod: Pod) -> int:
    whole = pod.spec.resources
    if whole and (whole.limits or whole.requests):
        return _memory(whole)
    return together(pod, lambda container: _memory(container.resources))


def _memory(asked: ResourceRequirements) -> int:
    return int(_amount(asked.requests, "memory") or _amount(asked.limits, "memory"))


def _amount(given: Mapping[str, str], name: str) -> Fraction:
    return quantity.parse(given[name]) if given.get(name) else Fraction(0)
