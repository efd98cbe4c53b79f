"""Resources that are answered and not stored, as discovery and OpenAPI tell of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cuboid.kube import columns
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy


@dataclass(frozen=True)
class Virtual:
    """A resource that is answered and not stored. `definition` names its schema, where there is one."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...]
    definition: str = ""


def _review(group: str, kind: str, *, namespaced: bool = False) -> Virtual:
    return Virtual(
        f"{group}.k8s.io", "v1", kind, f"{kind.lower()}s", namespaced, ("create",), f"io.k8s.api.{group}.v1.{kind}"
    )


VIRTUAL = (
    Virtual("", "v1", "Binding", "bindings", True, ("create",), "io.k8s.api.core.v1.Binding"),
    _review("authentication", "SelfSubjectReview"),
    _review("authentication", "TokenReview"),
    _review("authorization", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization", "SelfSubjectAccessReview"),
    _review("authorization", "SelfSubjectRulesReview"),
    _review("authorization", "SubjectAccessReview"),
    Virtual("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, ("get", "list")),
    Virtual("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True, ("get", "list")),
)
_USAGE = {
    "type": "object",
    "description": "The memory usage is the memory working set.",
    "additionalProperties": {"type": "string"},
}
_MOMENT = {
    "timestamp": {"type": "string", "format": "date-time", "description": "The end of the time that was looked at."},
    "window": {"type": "string", "description": "The length of the time that was looked at."},
}
_CONTAINERS = {
    "type": "array",
    "description": "Metrics for all containers are collected within the same time window.",
    "items": {"type": "object", "properties": {"name": {"type": "string"}, "usage": _USAGE}},
}


def _metrics(kind: str, plural: str, *, namespaced: bool, **fields: Any) -> Kind:
    schema = {
        "type": "object",
        "description": f"{kind} sets resource usage metrics.",
        "properties": {**_MOMENT, **fields},
    }
    return Kind(
        "metrics.k8s.io", "v1beta1", kind, plural, namespaced, "", Strategy(), columns.PLAIN, columns.plain,
        verbs=("get", "list"), custom_schema=schema,
    )  # fmt: skip


METRICS: tuple[Kind, ...] = (
    _metrics("NodeMetrics", "nodes", namespaced=False, usage=_USAGE),
    _metrics("PodMetrics", "pods", namespaced=True, containers=_CONTAINERS),
)
"""The metrics among `VIRTUAL` once more, in the form in which OpenAPI describes kinds."""
