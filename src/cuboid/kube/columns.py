"""How `kubectl get` prints each kind: column definitions and the cells of one object, as kube-apiserver makes them.

Source: kubernetes/pkg/printers/internalversion. A `priority` of 1 is shown with `-o wide` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import events
from cuboid.kube.pod_phase import pod_summary
from cuboid.lib.clock import parse_rfc3339

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    name: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""

    def definition(self) -> dict[str, Any]:
        form = "name" if self.name == "Name" else self.format
        return {
            "name": self.name,
            "type": self.type,
            "format": form,
            "description": self.description,
            "priority": self.priority,
        }


_NAME = Column("Name", description="Name must be unique within a namespace.")
_AGE = Column("Age", description="Time since the object was created.")


def age(stamp: str | None, now: float) -> str:
    """`kubectl`'s short durations: 5s, 3m20s, 2h, 4d, 2y35d; `<unknown>` without a time."""
    if not stamp:
        return "<unknown>"
    return duration(now - parse_rfc3339(stamp))


def duration(seconds: float) -> str:
    """Source: k8s.io/apimachinery/pkg/util/duration, HumanDuration."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d") if days < 2920 else f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}" + (f"{small}{small_unit}" if small else "")


def _meta(document: Raw) -> tuple[str, str | None]:
    metadata = document["metadata"]
    return metadata["name"], metadata.get("creationTimestamp")


PLAIN = (_NAME, _AGE)


def plain(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    return [name, age(created, now)]


CONFIG_MAP = (_NAME, Column("Data", "integer"), _AGE)


def config_map(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    return [name, len(document.get("data", {})) + len(document.get("binaryData", {})), age(created, now)]


SECRET = (_NAME, Column("Type"), Column("Data", "integer"), _AGE)


def secret(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    return [name, document.get("type", ""), len(document.get("data", {})), age(created, now)]


SERVICE_ACCOUNT = (_NAME, Column("Secrets", "integer", 1), _AGE)


def service_account(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    return [name, len(document.get("secrets", [])), age(created, now)]


NAMESPACE = (_NAME, Column("Status"), _AGE)


def namespace(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    return [name, document.get("status", {}).get("phase", ""), age(created, now)]


LEASE = (_NAME, Column("Holder"), _AGE)


def lease(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    return [name, document.get("spec", {}).get("holderIdentity", ""), age(created, now)]


EVENT = (
    Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object"), Column("Subobject", priority=1),
    Column("Source", priority=1), Column("Message"), Column("First Seen", priority=1),
    Column("Count", priority=1), Column("Name", priority=1),
)  # fmt: skip


def event(document: Raw, now: float) -> list[Any]:
    core = events.to_core(document) if "regarding" in document or "note" in document else document
    about = core.get("involvedObject", {})
    source = core.get("source", {})
    first = core.get("firstTimestamp") or core.get("eventTime")
    last = core.get("series", {}).get("lastObservedTime") or core.get("lastTimestamp") or first
    origin = core.get("reportingComponent") or source.get("component", "")
    return [
        age(last, now), core.get("type", ""), core.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}", about.get("fieldPath", ""),
        ", ".join(filter(None, (origin, source.get("host") or core.get("reportingInstance", "")))),
        core.get("message", "").strip(), age(first, now), core.get("count", 1), core["metadata"]["name"],
    ]  # fmt: skip


NODE = (
    _NAME, Column("Status"), Column("Roles"), _AGE, Column("Version"), Column("Internal-IP", priority=1),
    Column("External-IP", priority=1), Column("OS-Image", priority=1), Column("Kernel-Version", priority=1),
    Column("Container-Runtime", priority=1),
)  # fmt: skip


def node(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    status = document.get("status", {})
    info = status.get("nodeInfo", {})
    addresses = {item.get("type"): item.get("address", "") for item in reversed(status.get("addresses", []))}
    return [
        name, _node_status(document), _node_roles(document["metadata"].get("labels", {})), age(created, now),
        info.get("kubeletVersion", ""), addresses.get("InternalIP", "<none>"), addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>", info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


def _node_status(document: Raw) -> str:
    conditions = document.get("status", {}).get("conditions", [])
    ready = next((item for item in conditions if item.get("type") == "Ready"), None)
    parts = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if document.get("spec", {}).get("unschedulable"):
        parts.append("SchedulingDisabled")
    return ",".join(parts)


def _node_roles(labels: Mapping[str, str]) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in labels if key.startswith(prefix)}
    return ",".join(sorted(roles - {""})) or "<none>"


POD = (
    _NAME, Column("Ready"), Column("Status"), Column("Restarts"), _AGE, Column("IP", priority=1),
    Column("Node", priority=1), Column("Nominated Node", priority=1), Column("Readiness Gates", priority=1),
)  # fmt: skip


def pod(document: Raw, now: float) -> list[Any]:
    name, created = _meta(document)
    status, spec = document.get("status", {}), document.get("spec", {})
    summary = pod_summary(document)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({age(summary.last_restart, now)} ago)"
    return [
        name, f"{summary.ready}/{summary.total}", summary.reason, restarts, age(created, now),
        status.get("podIP") or "<none>", spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>", _gates(spec, status.get("conditions", [])),
    ]  # fmt: skip


def _gates(spec: Raw, conditions: Iterable[Raw]) -> str:
    gates = [gate.get("conditionType") for gate in spec.get("readinessGates", [])]
    if not gates:
        return "<none>"
    true = {item.get("type") for item in conditions if item.get("status") == "True"}
    return f"{sum(gate in true for gate in gates)}/{len(gates)}"
