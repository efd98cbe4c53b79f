"""Request bodies in Kubernetes' protobuf, which typed clients (`kubectl create deployment` too) send without asking.

An answer is always JSON, which these clients take. The envelope is `k8s\\0` and a `runtime.Unknown`. The numbers of
fields are in protobuf.json, which tools/gen_numbers.py writes. Go writes fields that are no pointers even when they are
zero, where JSON leaves them out; zeros are dropped but for fields in which zero says something else than nothing.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

import msgspec

from cuboid.kube.status import bad_request, unsupported_media
from cuboid.lib.clock import rfc3339, rfc3339_micro

MEDIA = "application/vnd.kubernetes.protobuf"
MAX_DEPTH = 100
"""Messages within messages."""
_MAGIC = b"k8s\x00"
_MAX_VARINT = 10
_POINTERS = frozenset(
    """
    activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation attachRequired
    automountServiceAccountToken averageUtilization backoffLimit backoffLimitPerIndex blockOwnerDeletion
    completions containerPort controller currentHealthy currentNumberScheduled default defaultMode
    desiredHealthy desiredNumberScheduled desiredReplicas disruptionsAllowed enableServiceLinks exitCode
    expectedPods expirationSeconds failedJobsHistoryLimit fsGroup gracePeriodSeconds hostUsers immutable
    leaseTransitions lun manualSelector maxFailedIndexes maximum maxItems maxLength maxProperties maxReplicas
    maxSkew minimum minItems minLength minProperties minReplicas mode numberMisscheduled numberReady optional
    orphanDependents parallelism partition port priority privileged progressDeadlineSeconds
    readOnlyRootFilesystem ready replicas restartCount revision revisionHistoryLimit runAsGroup runAsNonRoot
    runAsUser served serving setHostnameAsFQDN shareProcessNamespace stabilizationWindowSeconds started
    startingDeadlineSeconds status storage storageClassName successfulJobsHistoryLimit suspend terminating
    terminationGracePeriodSeconds tolerationSeconds ttlSecondsAfterFinished value volumeAttributesClassName
    weight x-kubernetes-preserve-unknown-fields
    """.split()
)
"""Fields that are pointers in Go, or written in JSON whatever they are."""
_UNKNOWN = {1: ("typeMeta", "TypeMeta", False), 2: ("raw", "bytes", False)}
_TYPE_META = {1: ("apiVersion", "string", False), 2: ("kind", "string", False)}
Fields = Mapping[int, tuple[str, str, bool]]  # name in JSON ("": its fields are the owner's), type, repeated


@functools.cache
def _table() -> tuple[Mapping[str, str], Mapping[str, Fields]]:
    """Messages by `apiVersion/kind`, and their fields by number."""
    raw = msgspec.json.decode(resources.files("cuboid.server").joinpath("protobuf.json").read_bytes())
    messages: dict[str, Fields] = {"Unknown": _UNKNOWN, "TypeMeta": _TYPE_META}
    for name, fields in raw["messages"].items():
        messages[name] = {int(number): (row[0], row[1], len(row) > 2) for number, row in fields.items()}
    return raw["kinds"], messages


def decode(data: bytes) -> dict[str, Any]:
    """The object as JSON would have it. InvalidError when it is broken, UnsupportedError for a kind not known."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes' protobuf: its magic number is missing")
    envelope = _message(data[len(_MAGIC) :], "Unknown", 0)
    type_meta = envelope.get("typeMeta", {})
    version, kind = type_meta.get("apiVersion", ""), type_meta.get("kind", "")
    # DeleteOptions come with the group of what is deleted
    name = _table()[0].get("v1/DeleteOptions" if kind == "DeleteOptions" else f"{version}/{kind}")
    if name is None:
        raise unsupported_media(f"{version} {kind} is not taken as protobuf: send application/json")
    raw = base64.b64decode(envelope.get("raw", ""))
    return {"apiVersion": version, "kind": kind, **_message(raw, name, 1)}


def _message(data: bytes, name: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise bad_request("the protobuf body is nested too deeply")
    fields = _table()[1].get(name, {})
    result: dict[str, Any] = {}
    for number, value in _wire(data):
        field = fields.get(number)
        if field is None:
            continue
        key, kind, repeated = field
        if kind.startswith("map:"):
            result.setdefault(key, {}).update(_entry(value, kind[4:], depth))
            continue
        converted = _convert(kind, value, depth)
        if not key:
            result.update(converted)
        elif repeated:
            result.setdefault(key, []).append(converted)
        elif converted is not None and (key in _POINTERS or converted not in ("", 0, False)):
            result[key] = converted
    return result


def _convert(kind: str, value: int | bytes, depth: int) -> Any:
    if kind == "double":
        return _double(value)
    if kind in ("int32", "int64", "uint32", "uint64", "bool"):
        if not isinstance(value, int):
            raise _broken()
        return bool(value) if kind == "bool" else value
    if not isinstance(value, bytes):
        raise _broken()
    if kind == "string":
        return _text(value)
    if kind == "bytes":
        return base64.b64encode(value).decode()
    special = _SPECIAL.get(kind.rpartition(".")[2])
    made = _message(value, kind, depth + 1)
    return special(made) if special else made


def _double(value: int | bytes) -> float:
    if not isinstance(value, bytes) or len(value) != 8:
        raise _broken()
    found: float = struct.unpack("<d", value)[0]
    return found


def _moment(form: Callable[[float], str]) -> Callable[[dict[str, Any]], str | None]:
    def convert(made: dict[str, Any]) -> str | None:
        seconds = made.get("seconds")
        if seconds is None:
            return None
        try:
            return form(seconds + made.get("nanos", 0) / 1e9)
        except (OverflowError, ValueError, OSError) as error:
            raise _broken() from error

    return convert


def _raw(made: dict[str, Any]) -> Any:
    """JSON within a message."""
    try:
        return msgspec.json.decode(base64.b64decode(made.get("raw", "")) or b"null")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _broken() from error


def _int_or_string(made: dict[str, Any]) -> int | str:
    found: int | str = made.get("str_val", "") if made.get("type") else made.get("int_val", 0)
    return found


_SPECIAL: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Quantity": lambda made: made.get("string") or "0",
    "Time": _moment(rfc3339),
    "MicroTime": _moment(rfc3339_micro),
    "IntOrString": _int_or_string,
    "FieldsV1": _raw,
    "RawExtension": _raw,
    "JSON": _raw,
    "JSONSchemaPropsOrArray": lambda made: made.get("schema") or made.get("j_son_schemas") or {},
    "JSONSchemaPropsOrBool": lambda made: made.get("schema") or bool(made.get("allows")),
}


def _entry(value: int | bytes, kind: str, depth: int) -> dict[str, Any]:
    if not isinstance(value, bytes):
        raise _broken()
    key, content = "", None
    for number, part in _wire(value):
        if number == 1:
            key = str(_convert("string", part, depth))
        elif number == 2:
            content = _convert(kind, part, depth)
    return {key: _EMPTY.get(kind, {}) if content is None else content}


_EMPTY: Mapping[str, Any] = {"string": "", "bytes": "", "bool": False, "int32": 0, "int64": 0}


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
