"""What the pod's VMM may take of the host: more while the pod starts, its limits from then on."""

from __future__ import annotations

import os

from cuboid.lib.aio import within
from cuboid.lib.errors import CuboidError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.node import limits
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps.host import text
from cuboid.node.steps.work import PodWork
from cuboid.vmm.base import HostLimits

log = get_log(__name__)
VMM_SECONDS = 10.0


def host_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def start_limits(work: PodWork) -> HostLimits:
    overhead = work.tools.driver.capabilities().overhead_mib
    return limits.at_start(work.given, work.size, overhead_mib=overhead, host_memory=host_memory())


async def confine(work: PodWork, _: do.Confine) -> None:
    """Idempotent. A driver that cannot change limits leaves those of the start."""
    first, overhead = start_limits(work), work.tools.driver.capabilities().overhead_mib
    then = limits.started(work.given, work.size, overhead_mib=overhead, host_memory=host_memory())
    if work.vm is None or then == first:
        return
    try:
        await within(VMM_SECONDS, work.vm.set_limits(then), "limiting the pod's VMM")
    except UnsupportedError as error:
        log.debug("limits stay as at the start", pod=work.pod.metadata.name, error=text(error))
    except (CuboidError, OSError) as error:
        log.warning("limits stay as at the start", pod=work.pod.metadata.name, error=text(error))
