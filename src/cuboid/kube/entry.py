"""One object in memory: the bytes that are stored, and what selectors ask for.

Most of the server's memory is these, so an entry holds the stored bytes once and nothing that can be had from them
cheaply. The version is not in the stored bytes; it is put in when they go out. Labels that many objects share are
kept once; selectable fields are looked up when a selector first names one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cuboid.kube import selectors
from cuboid.kube.selectors import Selector
from cuboid.kube.store import Key
from cuboid.lib.errors import InvalidError

encode = msgspec.json.encode
decode = msgspec.json.decode
FieldsOf = Callable[[Mapping[str, Any]], dict[str, str]]
MAX_SHARED = 20_000
"""Sets of labels kept for sharing; then it starts anew."""
_FIRST = ("apiVersion", "kind", "metadata")
_HEAD = re.compile(rb'\{(?:"apiVersion":"[^"\\]*",)?(?:"kind":"[^"\\]*",)?"metadata":\{(?=")')
_VERSION = b'"resourceVersion":'


class _Owner(msgspec.Struct):
    uid: str = ""


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None
    ownerReferences: list[_Owner] | None = None


class _Document(msgspec.Struct):
    metadata: _Metadata


_head_of = msgspec.json.Decoder(_Document).decode
_shared: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
_names: dict[tuple[str, ...], tuple[str, ...]] = {}
_NONE: Mapping[str, str] = {}


def stored(document: Mapping[str, Any]) -> bytes:
    """The bytes of an object as they are kept: type and metadata first, and no version in it."""
    ordered = {key: document[key] for key in _FIRST if key in document}
    ordered |= document
    metadata = document["metadata"]
    if "resourceVersion" in metadata:
        ordered["metadata"] = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    return encode(ordered)


class Entry:
    """`value` is what is stored. Nothing in it changes: lists and pages keep references."""

    __slots__ = ("_cut", "_fields", "_fields_of", "key", "labels", "owners", "rv", "value")

    def __init__(self, key: Key, rv: int, value: bytes, fields_of: FieldsOf) -> None:
        """InvalidError if the bytes are no object."""
        try:
            self._read(key, value)
        except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
            what = f"{key.resource} {key.namespace}/{key.name}"
            raise InvalidError(f"what is stored as {what} is no object: {error}") from error
        self.key = key
        self.rv = rv
        self._fields: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._fields_of = fields_of

    def _read(self, key: Key, value: bytes) -> None:
        head = _HEAD.match(value)
        if head is None or _VERSION in value:  # written by an older version, or the word is elsewhere in the object
            value = stored(decode(value))
            head = _HEAD.match(value)
        if head is None:
            raise InvalidError(f"what is stored as {key.resource} {key.namespace}/{key.name} has no metadata")
        metadata = _head_of(value).metadata
        owners = metadata.ownerReferences
        self.value = value
        self.labels: Mapping[str, str] = _share(metadata.labels) if metadata.labels else _NONE
        self.owners: tuple[str, ...] = tuple(owner.uid for owner in owners) if owners else ()
        self._cut = head.end()

    @property
    def raw(self) -> bytes:
        """The bytes that go out."""
        value, cut = self.value, self._cut
        return b'%b"resourceVersion":"%d",%b' % (value[:cut], self.rv, value[cut:])

    @property
    def fields(self) -> Mapping[str, str]:
        """Values of the fields that a selector may name."""
        if self._fields is None:
            found = self._fields_of(decode(self.value))
            names = tuple(found)
            values = tuple(self._known(value) for value in found.values())
            self._fields = (_names.setdefault(names, names), values)
        return dict(zip(*self._fields, strict=True))

    def _known(self, value: str) -> str:
        if value == self.key.name:
            return self.key.name
        return sys.intern(value)

    def select_by(self, fields_of: FieldsOf) -> None:
        self._fields_of, self._fields = fields_of, None

    def object(self) -> dict[str, Any]:
        """A fresh copy."""
        document: dict[str, Any] = decode(self.value)
        document["metadata"]["resourceVersion"] = str(self.rv)
        return document


def _share(labels: dict[str, str]) -> Mapping[str, str]:
    if len(_shared) >= MAX_SHARED:
        _shared.clear()
    return _shared.setdefault(tuple(labels.items()), labels)


class Filter:
    """What of a resource is wanted: a namespace ("" for all) and selectors. `name` is the one that the fields insist
    on, "" for any. Equal filters have equal `same`."""

    __slots__ = ("fields", "labels", "name", "namespace", "same")

    def __init__(self, namespace: str = "", labels: Selector = (), fields: Selector = ()) -> None:
        self.namespace = namespace
        self.labels = labels
        self.fields = fields
        self.name = next(
            (value for one in fields if one.key == "metadata.name" and one.operator == "=" for value in one.values), ""
        )
        self.same = (namespace, labels, fields)

    def __call__(self, entry: Entry) -> bool:
        return (
            (not self.namespace or entry.key.namespace == self.namespace)
            and (not self.name or entry.key.name == self.name)
            and (not self.labels or selectors.matches(self.labels, entry.labels))
            and (not self.fields or selectors.match_fields(self.fields, entry.fields))
        )


class Change:
    """One event of one resource, with the state before it."""

    __slots__ = ("entry", "previous", "rv", "type")

    def __init__(self, kind: str, entry: Entry, previous: Entry | None) -> None:
        self.type = kind
        self.entry = entry
        self.previous = previous
        self.rv = entry.rv

    def seen_by(self, wanted: Filter) -> str:
        """The type for a watcher with this filter, "" for no event: leaving a selection is a deletion."""
        now = self.type != "DELETED" and wanted(self.entry)
        before = wanted(self.previous) if self.previous is not None else self.type != "ADDED" and wanted(self.entry)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else ""

    def line(self, kind: str) -> bytes:
        """As a watch sends it."""
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), self.entry.raw)
