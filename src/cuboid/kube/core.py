"""Strategies of the small kinds: Namespace, Node, ConfigMap, Secret, ServiceAccount, Event, Lease."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, Strategy

MAX_DATA = 1024 * 1024
"""Bytes of all values of a ConfigMap or Secret."""


class NamespaceStrategy(Strategy):
    has_status = True
    name_rule = staticmethod(syntax.dns_label)

    def prepare_create(self, new: Object, now: str) -> None:
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}
        self.default(new)

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        new["spec"] = old.get("spec", {})

    def default(self, new: Object) -> None:
        labels = new["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = new["metadata"].get("name", "")

    def started_deletion(self, new: Object) -> None:
        new["status"] = {**new.get("status", {}), "phase": "Terminating"}

    def holds(self, new: Object) -> bool:
        return bool(new.get("spec", {}).get("finalizers"))

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {**super().selectable(document), "status.phase": document.get("status", {}).get("phase", "")}


class NodeStrategy(Strategy):
    has_status = True

    def prepare_create(self, new: Object, now: str) -> None:
        new.setdefault("spec", {})
        new.setdefault("status", {})

    def validate_body(self, new: Object, fields: Fields) -> None:
        _validate_taints(new.get("spec", {}).get("taints", []), fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        spec, earlier = new.get("spec", {}), old.get("spec", {})
        for key, path in (("podCIDR", "podCIDRs"), ("providerID", "providerID")):
            if earlier.get(key) and spec.get(key) != earlier[key]:
                fields.forbidden(f"spec.{path}", f'node updates may not change {key} except from "" to valid')

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        unschedulable = document.get("spec", {}).get("unschedulable", False)
        return {**super().selectable(document), "spec.unschedulable": str(unschedulable).lower()}


_TAINT_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def _validate_taints(taints: list[Object], fields: Fields) -> None:
    """At `metadata.taints`, where Kubernetes looks for them in its words."""
    seen = set()
    for index, taint in enumerate(taints):
        path, key, effect = f"metadata.taints[{index}]", taint.get("key", ""), taint.get("effect", "")
        fields.all_invalid(f"{path}.key", key, syntax.qualified_name(key))
        fields.all_invalid(f"{path}.value", taint.get("value", ""), syntax.label_value(taint.get("value", "")))
        if not effect:
            fields.required(f"{path}.effect")
        elif effect not in _TAINT_EFFECTS:
            fields.unsupported(f"{path}.effect", effect, _TAINT_EFFECTS)
        if (key, effect) in seen:
            fields.duplicate(path, taint)
        seen.add((key, effect))


class _DataStrategy(Strategy):
    """ConfigMap and Secret: keys, sizes, `immutable`."""

    _data_fields: tuple[str, ...] = ("data",)

    def validate_body(self, new: Object, fields: Fields) -> None:
        total = 0
        for name in self._data_fields:
            for key, value in new.get(name, {}).items():
                fields.all_invalid(f"{name}[{key}]", key, syntax.config_key(key))
                total += self._size(name, key, value, fields)
        if total > MAX_DATA:
            fields.too_long("" if len(self._data_fields) > 1 else "data", MAX_DATA)

    def _size(self, name: str, key: str, value: str, fields: Fields) -> int:
        return len(value.encode())

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        if not old.get("immutable"):
            return
        if not new.get("immutable"):
            fields.forbidden("immutable", "field is immutable when `immutable` is set")
        for name in self._data_fields:
            if new.get(name, {}) != old.get(name, {}):
                fields.forbidden(name, "field is immutable when `immutable` is set")


def _decoded_size(path: str, value: str, fields: Fields) -> int:
    try:
        return len(base64.b64decode(value.replace("\n", ""), validate=True))
    except (binascii.Error, ValueError):
        fields.invalid(path, "<value omitted>", "must be base64 (RFC 4648)")
        return 0


class ConfigMapStrategy(_DataStrategy):
    _data_fields = ("data", "binaryData")

    def validate_body(self, new: Object, fields: Fields) -> None:
        super().validate_body(new, fields)
        for key in sorted(new.get("data", {}).keys() & new.get("binaryData", {}).keys()):
            fields.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")

    def _size(self, name: str, key: str, value: str, fields: Fields) -> int:
        return len(value.encode()) if name == "data" else _decoded_size(f"binaryData[{key}]", value, fields)


class SecretStrategy(_DataStrategy):
    def prepare_create(self, new: Object, now: str) -> None:
        self.default(new)

    def default(self, new: Object) -> None:
        """`stringData` is for writing only: it goes over into `data`."""
        new.setdefault("type", "Opaque")
        plain = new.pop("stringData", {})
        if plain:
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
            new["data"] = {**new.get("data", {}), **encoded}

    def _size(self, name: str, key: str, value: str, fields: Fields) -> int:
        return _decoded_size(f"data[{key}]", value, fields)

    def validate_body(self, new: Object, fields: Fields) -> None:
        super().validate_body(new, fields)
        kind, data = new["type"], new.get("data", {})
        for key in _SECRET_KEYS.get(kind, ()):
            if key not in data or (kind == "kubernetes.io/ssh-auth" and not data[key]):
                fields.required(f"data[{key}]")
            elif kind in _REGISTRY_SECRETS and not _is_json(data[key]):
                fields.invalid(f"data[{key}]", "<secret contents redacted>", "must be JSON")
        if kind == "kubernetes.io/basic-auth" and not data.keys() & set(_BASIC):
            for key in _BASIC:
                fields.required(f"data[{key}]")
        if kind == "kubernetes.io/service-account-token" and not new["metadata"].get("annotations", {}).get(_ACCOUNT):
            fields.required(f"metadata.annotations[{_ACCOUNT}]")

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_change(new, old, fields)
        if new.get("type") != old.get("type"):
            fields.invalid("type", new.get("type"), "field is immutable")

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {**super().selectable(document), "type": document.get("type", "")}


def _is_json(encoded: str) -> bool:
    """Whether a value in base64 is JSON; what is no base64 has been complained about."""
    try:
        json.loads(base64.b64decode(encoded))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return True


_ACCOUNT = "kubernetes.io/service-account.name"
_BASIC = ("username", "password")
_REGISTRY_SECRETS = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")
_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


class ServiceAccountStrategy(Strategy):
    pass


_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


class EventStrategy(Strategy):
    def prepare_create(self, new: Object, now: str) -> None:
        if new["apiVersion"] == "v1":
            new.setdefault("source", {})
            new.setdefault("reportingComponent", new["source"].get("component", ""))
            new.setdefault("reportingInstance", new["source"].get("host", ""))

    def validate_body(self, new: Object, fields: Fields) -> None:
        about = new.get("involvedObject", {})
        if "involvedObject" not in new:
            fields.required("involvedObject")
        namespace = new["metadata"].get("namespace", "")
        if (about.get("namespace") or "default") != namespace:
            fields.invalid("involvedObject.namespace", about.get("namespace", ""), "does not match event.namespace")
        if new.get("eventTime"):
            self._validate_new_style(new, fields)

    def _validate_new_style(self, new: Object, fields: Fields) -> None:
        for key, name in (
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
            ("action", "action"),
            ("reason", "reason"),
        ):
            if not new.get(key):
                fields.required(name)
        if new.get("type") not in ("Normal", "Warning"):
            fields.invalid("type", new.get("type", ""), "has invalid value: must be Normal or Warning")
        if len(new.get("message", "")) > 1024:
            fields.too_long("message", 1024)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        about = document.get("involvedObject", {})
        values = {f"involvedObject.{key}": str(about.get(key, "")) for key in _INVOLVED}
        source = document.get("source", {}).get("component") or document.get("reportingComponent", "")
        return {
            **super().selectable(document),
            **values,
            "reason": document.get("reason", ""),
            "reportingComponent": document.get("reportingComponent", ""),
            "source": source,
            "type": document.get("type", ""),
        }


class LeaseStrategy(Strategy):
    def validate_body(self, new: Object, fields: Fields) -> None:
        spec = new.get("spec", {})
        for key in ("leaseDurationSeconds", "leaseTransitions"):
            limit = 1 if key == "leaseDurationSeconds" else 0
            if key in spec and spec[key] < limit:
                fields.invalid(f"spec.{key}", spec[key], f"must be greater than {'or equal to ' if not limit else ''}0")
        if spec.get("preferredHolder") and not spec.get("strategy"):
            fields.forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined")
