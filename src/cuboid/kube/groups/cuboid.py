"""Rows of `cuboid.dev`: what Cuboid adds to the API. On a real cluster they are custom resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cuboid.kube import columns as c
from cuboid.kube import syntax, tenants
from cuboid.kube.fields import Fields
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.strategy import Object, SpecStrategy, Strategy
from cuboid.lib.clock import parse_rfc3339

_HASH = re.compile(r"[0-9a-f]{64}")
_KINDS = ("User", "Group")
MAX_NAMESPACES = 100
MAX_WEIGHT = 100


class TenantStrategy(SpecStrategy):
    name_rule = staticmethod(syntax.dns_label)

    def prepare_create(self, new: Object, now: str) -> None:
        super().prepare_create(new, now)
        finalizers = new["metadata"].setdefault("finalizers", [])
        if tenants.FINALIZER not in finalizers:
            finalizers.append(tenants.FINALIZER)
        new["status"] = {"phase": "Pending"}

    def default(self, new: Object) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("weight", 1)
        for member in spec.get("members", []):
            member.setdefault("role", "edit")

    def validate_body(self, new: Object, fields: Fields) -> None:
        spec = new["spec"]
        _usable(new["metadata"].get("name", ""), "metadata.name", fields)
        for index, name in enumerate(spec.get("namespaces", [])):
            path = f"spec.namespaces[{index}]"
            fields.all_invalid(path, name, syntax.dns_label(name))
            _usable(name, path, fields)
        if len(spec.get("namespaces", [])) > MAX_NAMESPACES:
            fields.too_many("spec.namespaces", len(spec["namespaces"]), MAX_NAMESPACES)
        if not 1 <= spec["weight"] <= MAX_WEIGHT:
            fields.invalid("spec.weight", spec["weight"], f"must be between 1 and {MAX_WEIGHT}, inclusive")
        for index, member in enumerate(spec.get("members", [])):
            _validate_member(member, f"spec.members[{index}]", fields)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {**super().selectable(document), "status.phase": document.get("status", {}).get("phase", "")}


def _usable(name: str, path: str, fields: Fields) -> None:
    if name in tenants.RESERVED or name.startswith("kube-"):
        fields.invalid(path, name, "is a namespace of the platform")


def _validate_member(member: Object, path: str, fields: Fields) -> None:
    name = member.get("name", "")
    if not name:
        fields.required(f"{path}.name")
    elif name.startswith("system:"):
        fields.invalid(f"{path}.name", name, "belongs to the platform")
    for key, known in (("kind", _KINDS), ("role", tenants.ROLES)):
        if member.get(key) not in known:
            fields.unsupported(f"{path}.{key}", member.get(key, ""), known)


class TokenStrategy(Strategy):
    def default(self, new: Object) -> None:
        new.setdefault("spec", {}).setdefault("role", "edit")

    def prepare_create(self, new: Object, now: str) -> None:
        self.default(new)
        new["metadata"].setdefault("labels", {})[tenants.LABEL] = new["spec"].get("tenant", "")

    def validate_body(self, new: Object, fields: Fields) -> None:
        spec = new["spec"]
        if not spec.get("tenant"):
            fields.required("spec.tenant")
        if spec["role"] not in tenants.ROLES:
            fields.unsupported("spec.role", spec["role"], tenants.ROLES)
        if not _HASH.fullmatch(spec.get("sha256", "")):
            fields.invalid("spec.sha256", "<value omitted>", "must be 64 hexadecimal digits in lower case")
        if not spec.get("expirationTimestamp"):
            fields.required("spec.expirationTimestamp", "a token ends some day")

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        if new.get("spec") != old.get("spec"):
            fields.forbidden("spec", "a token does not change: delete it and make another")


_TENANT_COLUMNS = (
    c.Column("Name", description="Name must be unique within a namespace."),
    c.Column("Phase"),
    c.Column("Namespaces", "integer"),
    c.Column("Weight", "integer"),
    c.Column("Age"),
    c.Column("Message", priority=1),
)
_TOKEN_COLUMNS = (
    c.Column("Name", description="Name must be unique within a namespace."),
    c.Column("Tenant"),
    c.Column("Role"),
    c.Column("Expires"),
    c.Column("Age"),
)


def _tenant(document: Mapping[str, Any], now: float) -> list[Any]:
    metadata, status, spec = document["metadata"], document.get("status", {}), document.get("spec", {})
    made = c.age(metadata.get("creationTimestamp"), now)
    count = len(status.get("namespaces", []))
    return [metadata["name"], status.get("phase", ""), count, spec.get("weight", 1), made, status.get("message", "")]


def _token(document: Mapping[str, Any], now: float) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec", {})
    made = c.age(metadata.get("creationTimestamp"), now)
    return [metadata["name"], spec.get("tenant", ""), spec.get("role", ""), _ends(spec, now), made]


def _ends(spec: Mapping[str, Any], now: float) -> str:
    if "expirationTimestamp" not in spec:
        return "<unknown>"
    left = parse_rfc3339(spec["expirationTimestamp"]) - now
    return f"in {c.duration(left)}" if left > 0 else "expired"


ROWS: tuple[Kind, ...] = (
    Kind(
        tenants.GROUP,
        "v1",
        "Tenant",
        "tenants",
        False,
        "dev.cuboid.v1.Tenant",
        TenantStrategy(),
        _TENANT_COLUMNS,
        _tenant,
        subresources=(status_of("Tenant"),),
    ),
    Kind(
        tenants.GROUP,
        "v1",
        "Token",
        "tokens",
        False,
        "dev.cuboid.v1.Token",
        TokenStrategy(),
        _TOKEN_COLUMNS,
        _token,
    ),
)
