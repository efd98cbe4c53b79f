"""The table of kinds: adding one is a row here and, where it behaves specially, a strategy.

A row says where the kind is served, which schema it has, how it is printed (`kubectl get`) and what may be selected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube import columns as c
from cuboid.kube import events, schema
from cuboid.kube.columns import Column
from cuboid.kube.core import (
    ConfigMapStrategy,
    EventStrategy,
    LeaseStrategy,
    NamespaceStrategy,
    NodeStrategy,
    SecretStrategy,
    ServiceAccountStrategy,
)
from cuboid.kube.pods import PodStrategy
from cuboid.kube.strategy import Strategy

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Subresource:
    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True)
class Kind:
    """One row. `storage` is the (group, plural) under which objects are kept: two versions may share it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    definition: str
    strategy: Strategy
    columns: tuple[Column, ...]
    cells: Callable[[Mapping[str, Any], float], list[Any]]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    storage: tuple[str, str] = ("", "")
    to_storage: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document
    from_storage: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document
    verbs: tuple[str, ...] = field(default=VERBS)

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_as(self) -> tuple[str, str]:
        return self.storage if self.storage[1] else (self.group, self.plural)

    @property
    def schema(self) -> schema.Node:
        return schema.node(self.definition)

    @property
    def has_status(self) -> bool:
        return any(sub.name == "status" for sub in self.subresources)


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, ("get", "patch", "update"))


_CORE = "io.k8s.api.core.v1."
_POD_SUBRESOURCES = (
    _status("Pod"),
    Subresource("attach", "PodAttachOptions", ("create", "get")),
    Subresource("binding", "Binding", ("create",)),
    Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
    Subresource("exec", "PodExecOptions", ("create", "get")),
    Subresource("log", "Pod", ("get",)),
    Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
)

KINDS: tuple[Kind, ...] = (
    Kind(
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        True,
        _CORE + "ConfigMap",
        ConfigMapStrategy(),
        c.CONFIG_MAP,
        c.config_map,
        ("cm",),
    ),
    Kind("", "v1", "Event", "events", True, _CORE + "Event", EventStrategy(), c.EVENT, c.event, ("ev",)),
    Kind(
        "",
        "v1",
        "Namespace",
        "namespaces",
        False,
        _CORE + "Namespace",
        NamespaceStrategy(),
        c.NAMESPACE,
        c.namespace,
        ("ns",),
        subresources=(Subresource("finalize", "Namespace", ("update",)), _status("Namespace")),
        verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
    ),
    Kind(
        "",
        "v1",
        "Node",
        "nodes",
        False,
        _CORE + "Node",
        NodeStrategy(),
        c.NODE,
        c.node,
        ("no",),
        subresources=(_status("Node"),),
    ),
    Kind(
        "",
        "v1",
        "Pod",
        "pods",
        True,
        _CORE + "Pod",
        PodStrategy(),
        c.POD,
        c.pod,
        ("po",),
        ("all",),
        subresources=_POD_SUBRESOURCES,
    ),
    Kind("", "v1", "Secret", "secrets", True, _CORE + "Secret", SecretStrategy(), c.SECRET, c.secret),
    Kind(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        True,
        _CORE + "ServiceAccount",
        ServiceAccountStrategy(),
        c.SERVICE_ACCOUNT,
        c.service_account,
        ("sa",),
    ),
    Kind(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        True,
        "io.k8s.api.coordination.v1.Lease",
        LeaseStrategy(),
        c.LEASE,
        c.lease,
    ),
    Kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        True,
        "io.k8s.api.events.v1.Event",
        EventStrategy(),
        c.EVENT,
        c.event,
        ("ev",),
        storage=("", "events"),
        to_storage=events.to_core,
        from_storage=events.from_core,
    ),
)

_BY_PLACE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}


def find(group: str, version: str, plural: str) -> Kind | None:
    return _BY_PLACE.get((group, version, plural))


def stored() -> tuple[Kind, ...]:
    """One row per storage."""
    return tuple(kind for kind in KINDS if not kind.storage[1])
