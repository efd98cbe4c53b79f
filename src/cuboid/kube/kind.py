"""A kind of object as the server sees it: where it is served, how it is structured, printed and treated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube import schema
from cuboid.kube.columns import Column
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
class Scale:
    """Where the replicas are, as `.spec.replicas`; and the selector of its pods as text, "" where there is none."""

    spec_path: str
    status_path: str
    selector_path: str = ""


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
    structure: schema.Node | None = None  # of a kind whose schema is not built in
    custom_schema: Mapping[str, Any] | None = None  # the same as it was given, for OpenAPI
    singular_name: str = ""  # where it is not the kind in lower case
    list_name: str = ""  # where it is not the kind with "List"
    converted: bool = False  # what is stored is not what goes out, though no other version is stored
    scale: Scale | None = None  # where it is not as in the built-in kinds
    warning: str = ""  # for everyone who uses it

    @property
    def singular(self) -> str:
        return self.singular_name or self.kind.lower()

    @property
    def list_kind(self) -> str:
        return self.list_name or f"{self.kind}List"

    @property
    def verbatim(self) -> bool:
        """What is stored goes out as it is."""
        return not self.storage[1] and not self.converted

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_as(self) -> tuple[str, str]:
        return self.storage if self.storage[1] else (self.group, self.plural)

    @property
    def schema(self) -> schema.Node:
        return self.structure or schema.node(self.definition)

    @property
    def has_status(self) -> bool:
        return any(sub.name == "status" for sub in self.subresources)


def status_of(kind: str) -> Subresource:
    return Subresource("status", kind, ("get", "patch", "update"))


SCALE = Subresource("scale", "Scale", ("get", "patch", "update"), "autoscaling", "v1")
