"""How `kubectl get` prints the kinds of `apps`. Source: kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.kube.columns import PLAIN, Column, age
from cuboid.kube.printing import templates as t

Raw = Mapping[str, Any]
_NAME, _AGE = PLAIN
_WIDE = (t.CONTAINERS, t.IMAGES, t.SELECTOR)


def _parts(document: Raw, now: float) -> tuple[str, Raw, Raw, str]:
    """Name, spec, status, age."""
    metadata = document["metadata"]
    stamp = age(metadata.get("creationTimestamp"), now)
    return metadata["name"], document.get("spec", {}), document.get("status", {}), stamp


def _wide(spec: Raw) -> list[str]:
    return [*t.containers(spec.get("template", {})), t.selector(spec.get("selector"))]


DEPLOYMENT = (_NAME, Column("Ready"), Column("Up-to-date"), Column("Available"), _AGE, *_WIDE)


def deployment(document: Raw, now: float) -> list[Any]:
    name, spec, status, born = _parts(document, now)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name, ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0), born, *_wide(spec)]


REPLICA_SET = (
    _NAME,
    Column("Desired", "integer"),
    Column("Current", "integer"),
    Column("Ready", "integer"),
    _AGE,
    *_WIDE,
)


def replica_set(document: Raw, now: float) -> list[Any]:
    name, spec, status, born = _parts(document, now)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name, *counts, born, *_wide(spec)]


STATEFUL_SET = (_NAME, Column("Ready"), _AGE, t.CONTAINERS, t.IMAGES)


def stateful_set(document: Raw, now: float) -> list[Any]:
    name, spec, status, born = _parts(document, now)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name, ready, born, *t.containers(spec.get("template", {}))]


DAEMON_SET = (
    _NAME, Column("Desired", "integer"), Column("Current", "integer"), Column("Ready", "integer"),
    Column("Up-to-date", "integer"), Column("Available", "integer"), Column("Node Selector"), _AGE, *_WIDE,
)  # fmt: skip
_DAEMON_COUNTS = (
    "desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable",
)  # fmt: skip


def daemon_set(document: Raw, now: float) -> list[Any]:
    name, spec, status, born = _parts(document, now)
    nodes = t.labels(spec.get("template", {}).get("spec", {}).get("nodeSelector"))
    return [name, *(status.get(key, 0) for key in _DAEMON_COUNTS), nodes, born, *_wide(spec)]


CONTROLLER_REVISION = (_NAME, Column("Controller"), Column("Revision"), _AGE)


def controller_revision(document: Raw, now: float) -> list[Any]:
    name, _, _, born = _parts(document, now)
    owner = objects.controller(document)
    return [name, _resource(owner) if owner else t.NONE, document.get("revision", 0), born]


def _resource(owner: Raw) -> str:
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = f"{owner.get('kind', '')}.{group}" if group else owner.get("kind", "")
    return f"{kind.lower()}/{owner.get('name', '')}"
