"""What pods and the host use, in the form of a kubelet's `/stats/summary` and as flat rows."""

from __future__ import annotations

import os
import time
from typing import Any

from cuboid.guest import agent_pb2 as pb
from cuboid.lib.clock import rfc3339
from cuboid.node.access import PodView
from cuboid.node.usage import Usage


def summary(usages: list[Usage], node: str, started: float) -> dict[str, Any]:
    """`/stats/summary` as kubelets give it."""
    now = rfc3339(time.time())
    return {
        "node": {"nodeName": node, "startTime": rfc3339(started), **_host(now)},
        "pods": [_pod_summary(usage, now) for usage in usages],
    }


def _host(now: str) -> dict[str, Any]:
    memory = _meminfo()
    total, free = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    cpu = {"time": now, "usageNanoCores": _host_rate.nano_cores(), "usageCoreNanoSeconds": _host_cpu_ns()}
    used = total - memory.get("MemFree", 0)
    return {
        "cpu": cpu,
        "memory": {"time": now, "availableBytes": free, "usageBytes": used, "workingSetBytes": total - free},
    }


def _meminfo() -> dict[str, int]:
    with open("/proc/meminfo") as file:  # noqa: PTH123 - read whole, each time
        rows = (line.split() for line in file)
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) >= 2}


def _host_cpu_ns() -> int:
    with open("/proc/stat") as file:  # noqa: PTH123
        user, nice, system, _, _, irq, softirq = (int(n) for n in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


class _HostRate:
    """The host's CPU use between two questions; over the time since boot for the first one."""

    def __init__(self) -> None:
        self._at, self._cpu = 0.0, 0

    def nano_cores(self) -> int:
        at, cpu = time.clock_gettime(time.CLOCK_BOOTTIME), _host_cpu_ns()
        rate = int((cpu - self._cpu) / max(at - self._at, 0.001))
        self._at, self._cpu = at, cpu
        return max(rate, 0)


_host_rate = _HostRate()


def _pod_summary(usage: Usage, now: str) -> dict[str, Any]:
    metadata, stats = usage.view.pod.metadata, usage.stats
    used = max(stats.memory_total_bytes - stats.memory_available_bytes, 0)
    return {
        "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "startTime": usage.view.pod.status.start_time,
        "containers": [_container_summary(c, usage, now) for c in stats.containers],
        "cpu": {"time": now, "usageNanoCores": usage.pod_rate, "usageCoreNanoSeconds": stats.cpu_ns},
        "memory": {
            "time": now,
            "availableBytes": stats.memory_available_bytes,
            "usageBytes": used,
            "workingSetBytes": used,
        },
        "network": _network(stats, now),
        "volume": [{"time": now, "name": v.name, **_file_system(v.total_bytes, v.used_bytes)} for v in stats.volumes],
        "ephemeral-storage": {"time": now, **_file_system(stats.writable_total_bytes, stats.writable_used_bytes)},
    }


def _file_system(total: int, used: int) -> dict[str, int]:
    return {"capacityBytes": total, "usedBytes": used, "availableBytes": max(total - used, 0)}


def _container_summary(container: pb.ContainerStats, usage: Usage, now: str) -> dict[str, Any]:
    rate = usage.container_rates.get(container.name, 0)
    memory = {"time": now, "usageBytes": container.memory_usage_bytes, "workingSetBytes": container.memory_bytes}
    memory["rssBytes"] = container.rss_bytes
    if container.memory_limit_bytes:
        memory["availableBytes"] = max(container.memory_limit_bytes - container.memory_bytes, 0)
    return {
        "name": container.name,
        "startTime": _started_at(usage.view, container.name),
        "cpu": {"time": now, "usageNanoCores": rate, "usageCoreNanoSeconds": container.cpu_ns},
        "memory": memory,
        "rootfs": {"time": now, "usedBytes": container.disk_bytes},
        "process_stats": {"process_count": container.pids},
    }


def _started_at(view: PodView, container: str) -> str | None:
    status = view.pod.status
    for one in [*status.container_statuses, *status.init_container_statuses]:
        if one.name == container and one.state.running:
            return one.state.running.started_at
    return None


def _network(stats: pb.Stats, now: str) -> dict[str, Any]:
    interfaces = [
        {"name": i.name, "rxBytes": i.rx_bytes, "txBytes": i.tx_bytes, "rxErrors": 0, "txErrors": 0}
        for i in stats.interfaces
    ]
    return {"time": now, **(interfaces[0] if interfaces else {}), "interfaces": interfaces}


def rows(usages: list[Usage]) -> list[dict[str, Any]]:
    """One flat row per container: `/cuboid/v1/stats/{namespace}`."""
    return [
        {
            "namespace": usage.view.pod.metadata.namespace,
            "pod": usage.view.pod.metadata.name,
            "container": c.name,
            "cpuMillicores": usage.container_rates.get(c.name, 0) / 1_000_000,
            "cpuNanoseconds": c.cpu_ns,
            "memoryBytes": c.memory_bytes,
            "memoryLimitBytes": c.memory_limit_bytes,
            "pids": c.pids,
            "readBytes": c.read_bytes,
            "writtenBytes": c.written_bytes,
            "diskBytes": c.disk_bytes,
            "oomKills": c.oom_kills,
            "rxBytes": sum(i.rx_bytes for i in usage.stats.interfaces),
            "txBytes": sum(i.tx_bytes for i in usage.stats.interfaces),
        }
        for usage in usages
        for c in usage.stats.containers
    ]
