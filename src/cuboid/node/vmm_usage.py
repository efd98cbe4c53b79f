"""What the pods' VMMs take of the host, by part as far as the driver tells; also of those that are paused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node.access import PodAccess, PodView
from cuboid.vmm.base import VmStats

log = get_log(__name__)
AT_ONCE = 8  # VMMs looked at at the same time


@dataclass(frozen=True)
class VmmUsage:
    view: PodView
    stats: VmStats

    def row(self) -> dict[str, Any]:
        """Bytes. `privateBytes` is the host's cost of this one pod; its parts are there if the driver tells them."""
        stats, meta = self.stats, self.view.pod.metadata
        own = stats.anonymous_bytes - stats.guest_bytes - stats.translation_bytes
        parts = {
            "guestBytes": stats.guest_bytes, "translationBytes": stats.translation_bytes, "vmmBytes": max(own, 0),
        }  # fmt: skip
        return {
            "namespace": meta.namespace, "pod": meta.name, "cpuSeconds": round(stats.cpu_seconds, 3),
            "residentBytes": stats.memory_bytes, "privateBytes": stats.anonymous_bytes,
            **(parts if stats.guest_bytes else {}),
        }  # fmt: skip


async def vmm_usage(access: PodAccess, namespace: str = "") -> list[VmmUsage]:
    """Of each pod that has a VMM, sorted by name."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(view: PodView) -> VmmUsage | None:
        async with limit:
            try:
                stats = await view.vmm_stats()
            except (CuboidError, OSError) as error:
                log.debug("a VMM gave no stats", pod=view.pod.metadata.name, error=str(error))
                return None
        return VmmUsage(view, stats) if stats is not None else None

    views = [view for view in access.pods() if namespace in ("", view.pod.metadata.namespace)]
    found = [usage for usage in await asyncio.gather(*map(one, views)) if usage is not None]
    return sorted(found, key=lambda usage: (usage.view.pod.metadata.namespace, usage.view.pod.metadata.name))
