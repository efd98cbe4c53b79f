"""The node agent's metrics in Prometheus' text format: its own, and what its pods use under cAdvisor's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cuboid.guest import agent_pb2 as pb
from cuboid.node.usage import Usage

START_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120)  # seconds


class NodeMetrics:
    """The agent's own numbers; `text` adds what pods use. Reasons are the sandbox core's: they are few."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.pods = Gauge("cuboid_node_pods", "Pods of this node", registry=self.registry)
        self.starts = Counter("cuboid_pod_starts", "Pods started", ["driver", "start"], registry=self.registry)
        self.warm_takes = Counter(
            "cuboid_warm_takes", "Starts that could take a machine made ahead", ["result"], registry=self.registry
        )
        self.warm_seconds = Histogram(
            "cuboid_warm_make_seconds", "Making a machine ahead", buckets=START_BUCKETS, registry=self.registry
        )
        self.failures = Counter("cuboid_pod_failures", "Pods that failed", ["reason"], registry=self.registry)
        self.start_seconds = Histogram(
            "cuboid_pod_start_seconds", "From admission to the first start of all containers", ["start"],
            buckets=START_BUCKETS, registry=self.registry,
        )  # fmt: skip

    def started(self, driver: str, start: str, seconds: float) -> None:
        """A machine and its containers came up, `seconds` after the start's beginning."""
        self.starts.labels(driver, start).inc()
        self.start_seconds.labels(start).observe(seconds)

    def warm(self, what: str, seconds: float) -> None:
        """`hit`, `miss`, or `made` with the seconds that it took."""
        if what == "made":
            self.warm_seconds.observe(seconds)
        else:
            self.warm_takes.labels(what).inc()

    def failed(self, reason: str) -> None:
        self.failures.labels(reason).inc()

    def text(self, usages: list[Usage]) -> bytes:
        """All metrics in Prometheus' text format."""
        pods = CollectorRegistry()
        pods.register(_PodCollector(usages))
        return generate_latest(self.registry) + generate_latest(pods)


_CONTAINER: tuple[tuple[str, str, bool, Callable[[pb.ContainerStats], float]], ...] = (
    ("container_cpu_usage_seconds", "CPU time used", True, lambda c: c.cpu_ns / 1e9),
    ("container_memory_working_set_bytes", "Memory that cannot be given back", False, lambda c: c.memory_bytes),
    ("container_memory_usage_bytes", "Memory with caches", False, lambda c: c.memory_usage_bytes),
    ("container_memory_rss", "Resident anonymous memory", False, lambda c: c.rss_bytes),
    ("container_spec_memory_limit_bytes", "Memory limit", False, lambda c: c.memory_limit_bytes),
    ("container_processes", "Processes", False, lambda c: c.pids),
    ("container_fs_reads_bytes", "Bytes read from disks", True, lambda c: c.read_bytes),
    ("container_fs_writes_bytes", "Bytes written to disks", True, lambda c: c.written_bytes),
    ("container_fs_usage_bytes", "Bytes in the writable layer", False, lambda c: c.disk_bytes),
    ("container_oom_events", "Processes killed for memory", True, lambda c: c.oom_kills),
)  # names as of cAdvisor, without the `_total` that counters get
_INTERFACE: tuple[tuple[str, str, Callable[[pb.InterfaceStats], float]], ...] = (
    ("container_network_receive_bytes", "Bytes received", lambda i: i.rx_bytes),
    ("container_network_transmit_bytes", "Bytes sent", lambda i: i.tx_bytes),
    ("container_network_receive_packets", "Packets received", lambda i: i.rx_packets),
    ("container_network_transmit_packets", "Packets sent", lambda i: i.tx_packets),
    ("container_network_receive_packets_dropped", "Packets dropped on arrival", lambda i: i.rx_dropped),
    ("container_network_transmit_packets_dropped", "Packets not sent", lambda i: i.tx_dropped),
)


class _PodCollector:
    def __init__(self, usages: list[Usage]) -> None:
        self._usages = usages

    def collect(self) -> Iterator[Metric]:
        for name, text, counts, value in _CONTAINER:
            labels = ["namespace", "pod", "container"]
            family = CounterMetricFamily(name, text, labels=labels) if counts else _gauge(name, text, labels)
            for usage in self._usages:
                for container in usage.stats.containers:
                    family.add_metric([*_names(usage), container.name], value(container))
            yield family
        for name, text, read in _INTERFACE:
            total = CounterMetricFamily(name, text, labels=["namespace", "pod", "interface"])
            for usage in self._usages:
                for interface in usage.stats.interfaces[:16]:
                    total.add_metric([*_names(usage), interface.name[:16]], read(interface))
            yield total


def _gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _names(usage: Usage) -> tuple[str, str]:
    return usage.view.pod.metadata.namespace, usage.view.pod.metadata.name
