"""Packing endpoints into slices with as few writes as possible. Pure.

Source of the order of steps: k8s.io/endpointslice, reconciler.reconcileByPortMapping.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import ENDPOINT_SLICES
from cuboid.kube.controller.instructions import Create, Delete, Instruction, Update

Object = dict[str, Any]
Raw = Mapping[str, Any]

MOST = 100
"""Endpoints of one slice."""
SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
_SUFFIX = 5


@dataclass(frozen=True)
class Group:
    """Endpoints that serve at the same ports and are addressed alike."""

    address_type: str
    ports: Sequence[Object]
    endpoints: Sequence[Object]

    @property
    def key(self) -> str:
        return group_key(self.address_type, self.ports)


@dataclass(frozen=True)
class Frame:
    """What all slices of one service have in common."""

    namespace: str
    prefix: str
    owner: Object
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)


def group_key(address_type: str, ports: Iterable[Raw]) -> str:
    parts = [[p.get("name", ""), p.get("port"), p.get("protocol", "TCP"), p.get("appProtocol", "")] for p in ports]
    return json.dumps([address_type, sorted(parts, key=str)])


@dataclass
class _Slice:
    """An existing slice on its way to what it shall be."""

    document: Object
    endpoints: list[Object]
    changed: bool

    @property
    def room(self) -> int:
        return MOST - len(self.endpoints)


def pack(existing: Sequence[Object], groups: Iterable[Group], frame: Frame) -> list[Instruction]:
    """Creations first, then updates, deletions last: no endpoint is missing in between."""
    mine = [slice_ for slice_ in existing if _owned(slice_, frame)]
    foreign = [slice_ for slice_ in existing if not _owned(slice_, frame)]
    by_key: dict[str, list[Object]] = {}
    for slice_ in mine:
        by_key.setdefault(group_key(slice_["addressType"], slice_.get("ports") or []), []).append(slice_)
    kept: list[_Slice] = []
    new: list[tuple[Group, list[Object]]] = []
    gone: list[Object] = []
    for group in groups:
        if not group.endpoints:
            continue
        stay, rest, empty = _place(by_key.pop(group.key, []), group)
        kept += stay
        gone += empty
        new += [(group, rest[start : start + MOST]) for start in range(0, len(rest), MOST)]
    gone += [slice_ for left in by_key.values() for slice_ in left]
    if not kept and not new:
        gone = _placeholder(gone, kept, new)
    return _instructions(kept, new, [*gone, *foreign], existing, frame)


def _owned(slice_: Raw, frame: Frame) -> bool:
    refs = slice_["metadata"].get("ownerReferences") or []
    return any(ref.get("uid") == frame.owner["uid"] for ref in refs)


def _place(slices: Sequence[Object], group: Group) -> tuple[list[_Slice], list[Object], list[Object]]:
    """The slices that stay, endpoints that need new ones, and slices that have become empty."""
    wanted = {_identity(endpoint): endpoint for endpoint in group.endpoints}
    stay = [_remaining(slice_, wanted) for slice_ in slices]
    rest = [endpoint for endpoint in group.endpoints if _identity(endpoint) in wanted]
    for slice_ in stay:  # those that are written anyway
        if slice_.changed and (slice_.endpoints or len(rest) >= MOST):
            rest = _fill(slice_, rest)
    last = len(rest) % MOST
    fits = [slice_ for slice_ in stay if slice_.room >= last]
    if last and fits:  # the fullest that takes what is left
        _fill(min(fits, key=lambda slice_: slice_.room), rest[-last:])
        rest = rest[:-last]
    empty = [slice_.document for slice_ in stay if not slice_.endpoints]
    return [slice_ for slice_ in stay if slice_.endpoints], rest, empty


def _remaining(document: Object, wanted: dict[str, Object]) -> _Slice:
    """What of a slice is still wanted, brought up to date; taken out of `wanted`."""
    before = document.get("endpoints") or []
    now = [wanted.pop(identity) for endpoint in before if (identity := _identity(endpoint)) in wanted]
    return _Slice(document, now, before != now)


def _fill(slice_: _Slice, rest: list[Object]) -> list[Object]:
    count = min(slice_.room, len(rest))
    slice_.endpoints += rest[:count]
    slice_.changed = slice_.changed or count > 0
    return rest[count:]


def _identity(endpoint: Raw) -> str:
    ref = endpoint.get("targetRef") or {}
    return f"{ref.get('uid', '')}/{','.join(endpoint['addresses'])}"


def _placeholder(gone: list[Object], kept: list[_Slice], new: list[tuple[Group, list[Object]]]) -> list[Object]:
    """A service without endpoints has one empty slice, so that it is seen to have none."""
    for slice_ in gone:
        if not slice_.get("endpoints") and not slice_.get("ports"):
            kept.append(_Slice(slice_, [], False))
            return [other for other in gone if other is not slice_]
    new.append((Group("IPv4", (), ()), []))
    return gone


def _instructions(
    kept: Iterable[_Slice], new: Iterable[tuple[Group, list[Object]]], gone: Iterable[Object],
    existing: Iterable[Object], frame: Frame,
) -> list[Instruction]:  # fmt: skip
    taken = {objects.name(slice_) for slice_ in existing}
    made: list[Instruction] = []
    for group, endpoints in new:
        name = _free_name(frame, taken)
        taken.add(name)
        body: Object = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": frame.namespace, **_metadata(frame, {})},
            "addressType": group.address_type, "ports": list(group.ports), "endpoints": endpoints,
        }  # fmt: skip
        made.append(Create(ENDPOINT_SLICES, body, frame.namespace))
    for slice_ in kept:
        meta = slice_.document["metadata"]
        wanted = _metadata(frame, meta)
        if slice_.changed or any((meta.get(key) or {}) != value for key, value in wanted.items()):
            body = slice_.document | {"metadata": {**meta, **wanted}, "endpoints": slice_.endpoints}
            made.append(Update(ENDPOINT_SLICES, body))
    for document in gone:
        made.append(Delete(ENDPOINT_SLICES, objects.name(document), frame.namespace, uid=objects.uid(document)))
    return made


def _metadata(frame: Frame, before: Raw) -> Object:
    """Labels and annotations are the service's; the time of the last change, if another wrote it, is none of ours."""
    made: Object = {"labels": dict(frame.labels), "ownerReferences": [frame.owner]}
    if frame.annotations or before.get("annotations"):
        made["annotations"] = dict(frame.annotations)
    return made


def _free_name(frame: Frame, taken: set[str]) -> str:
    """The same for the same objects: a creation that was carried out unseen is not repeated under another name."""
    number = 0
    while True:
        digest = hashlib.sha256(f"{frame.owner['uid']}/{number}".encode()).hexdigest()[:_SUFFIX]
        name = f"{frame.prefix[: 253 - _SUFFIX - 1]}-{digest}"
        if name not in taken:
            return name
        number += 1
