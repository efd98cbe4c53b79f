"""Request bodies in Kubernetes' protobuf, which `kubectl create secret` and its like send without asking.

Only what such commands send is known, as rows of field numbers; an answer is always JSON, which these clients take.
The envelope is `k8s\\0` and a `runtime.Unknown`. Source of numbers: the generated.proto files of k8s.io/api 1.37.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cuboid.kube.status import bad_request, unsupported_media
from cuboid.lib.clock import rfc3339

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_MAX_VARINT = 10


@dataclass(frozen=True)
class _Field:
    """`type`: string, int, bool, bytes, time, map, bytemap, or the name of a message."""

    name: str
    type: str = "string"
    repeated: bool = False
    keep_zero: bool = False  # a pointer in Go: zero is something else than not set


_F = _Field
_META: dict[int, _Field] = {
    1: _F("name"),
    2: _F("generateName"),
    3: _F("namespace"),
    5: _F("uid"),
    6: _F("resourceVersion"),
    11: _F("labels", "map"),
    12: _F("annotations", "map"),
    13: _F("ownerReferences", "OwnerReference", repeated=True),
    14: _F("finalizers", repeated=True),
}
_MESSAGES: dict[str, dict[int, _Field]] = {
    "Unknown": {1: _F("typeMeta", "TypeMeta"), 2: _F("raw", "bytes")},
    "TypeMeta": {1: _F("apiVersion"), 2: _F("kind")},
    "ObjectMeta": _META,
    "OwnerReference": {
        1: _F("kind"),
        3: _F("name"),
        4: _F("uid"),
        5: _F("apiVersion"),
        6: _F("controller", "bool"),
        7: _F("blockOwnerDeletion", "bool"),
    },
    "v1/Namespace": {1: _F("metadata", "ObjectMeta")},
    "v1/ConfigMap": {
        1: _F("metadata", "ObjectMeta"),
        2: _F("data", "map"),
        3: _F("binaryData", "bytemap"),
        4: _F("immutable", "bool"),
    },
    "v1/Secret": {
        1: _F("metadata", "ObjectMeta"),
        2: _F("data", "bytemap"),
        3: _F("type"),
        4: _F("stringData", "map"),
        5: _F("immutable", "bool"),
    },
    "v1/ServiceAccount": {
        1: _F("metadata", "ObjectMeta"),
        3: _F("imagePullSecrets", "LocalObjectReference", repeated=True),
        4: _F("automountServiceAccountToken", "bool", keep_zero=True),
    },
    "LocalObjectReference": {1: _F("name")},
    "v1/DeleteOptions": {
        1: _F("gracePeriodSeconds", "int", keep_zero=True),
        2: _F("preconditions", "Preconditions"),
        4: _F("propagationPolicy"),
        5: _F("dryRun", repeated=True),
    },
    "Preconditions": {1: _F("uid"), 2: _F("resourceVersion")},
    "policy/v1/Eviction": {1: _F("metadata", "ObjectMeta"), 2: _F("deleteOptions", "v1/DeleteOptions")},
    "coordination.k8s.io/v1/Lease": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "LeaseSpec")},
    "LeaseSpec": {
        1: _F("holderIdentity"),
        2: _F("leaseDurationSeconds", "int"),
        3: _F("acquireTime", "time"),
        4: _F("renewTime", "time"),
        5: _F("leaseTransitions", "int", keep_zero=True),
    },
    "authentication.k8s.io/v1/SelfSubjectReview": {1: _F("metadata", "ObjectMeta")},
    "authorization.k8s.io/v1/SelfSubjectAccessReview": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "AccessSpec")},
    "authorization.k8s.io/v1/SelfSubjectRulesReview": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "RulesSpec")},
    "RulesSpec": {1: _F("namespace")},
    "AccessSpec": {1: _F("resourceAttributes", "ResourceAttributes"), 2: _F("nonResourceAttributes", "NonResource")},
    "ResourceAttributes": {
        1: _F("namespace"),
        2: _F("verb"),
        3: _F("group"),
        4: _F("version"),
        5: _F("resource"),
        6: _F("subresource"),
        7: _F("name"),
    },
    "NonResource": {1: _F("path"), 2: _F("verb")},
    "Time": {1: _F("seconds", "int"), 2: _F("nanos", "int")},
}


def decode(data: bytes) -> dict[str, Any]:
    """The object as JSON would have it. InvalidError when it is broken, UnsupportedError for a kind not known."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes' protobuf: its magic number is missing")
    envelope = _message(data[len(_MAGIC) :], "Unknown")
    type_meta = envelope.get("typeMeta", {})
    version, kind = type_meta.get("apiVersion", ""), type_meta.get("kind", "")
    # DeleteOptions come with the group of what is deleted
    name = "v1/DeleteOptions" if kind == "DeleteOptions" else f"{version}/{kind}"
    if name not in _MESSAGES or "/" not in name:
        raise unsupported_media(f"{version} {kind} is not taken as protobuf: send application/json")
    raw = base64.b64decode(envelope.get("raw", ""))
    return {"apiVersion": version, "kind": kind, **_message(raw, name)}


def _message(data: bytes, name: str) -> dict[str, Any]:
    fields = _MESSAGES[name]
    result: dict[str, Any] = {}
    for number, value in _wire(data):
        field = fields.get(number)
        if field is None:
            continue
        converted = _convert(field, value)
        if field.type in ("map", "bytemap"):
            result.setdefault(field.name, {}).update(converted)
        elif field.repeated:
            result.setdefault(field.name, []).append(converted)
        elif field.keep_zero or converted not in ("", 0, False, None):
            result[field.name] = converted
    return result


def _convert(field: _Field, value: int | bytes) -> Any:
    if field.type in ("int", "bool"):
        if not isinstance(value, int):
            raise _broken()
        return bool(value) if field.type == "bool" else value
    if not isinstance(value, bytes):
        raise _broken()
    if field.type == "string":
        return _text(value)
    if field.type == "bytes":
        return base64.b64encode(value).decode()
    if field.type == "time":
        moment = _message(value, "Time")
        return rfc3339(moment["seconds"]) if "seconds" in moment else None
    if field.type in ("map", "bytemap"):
        return _entry(value, field.type)
    return _message(value, field.type)


def _entry(data: bytes, kind: str) -> dict[str, str]:
    key, content = b"", b""
    for number, value in _wire(data):
        if isinstance(value, bytes):
            key, content = (value, content) if number == 1 else (key, value)
    return {_text(key): base64.b64encode(content).decode() if kind == "bytemap" else _text(content)}


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _broken() from error


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one message: wire types 0 (varint), 1, 2 (bytes) and 5."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value - (1 << 64) if value >> 63 else value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, place = _varint(data, place)
        if size is None or place + size > len(data):
            raise _broken()
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise _broken()


def _broken() -> Exception:
    return bad_request("the protobuf body is damaged")
