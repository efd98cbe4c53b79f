"""YAML bodies of requests: the values that JSON has, read from a hostile stranger.

Read event by event, without recursion, so that neither depth nor aliases cost more than the limits below. Scalars are
resolved as Kubernetes' decoder does (YAML 1.1). No tags, no merge keys, one document.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from cuboid.kube.status import bad_request

MAX_DEPTH = 200
"""Nesting of maps and lists."""
MAX_NODES = 300_000
"""Values of one document, those that aliases repeat counted each time."""
MAX_TEXT = 6 * 1024 * 1024
"""Characters of all its values, counted likewise: a line of aliases would make terabytes of one long text."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")
_FALSE = ("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF")
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_TAGS = (None, "!", *(f"tag:yaml.org,2002:{name}" for name in "str int float bool null map seq".split()))
_MISSING = object()


@dataclass
class _Open:
    """A map or list that is being read."""

    value: dict[str, Any] | list[Any]
    path: str
    anchor: str | None
    first: tuple[int, int]  # number of values and of characters before it
    key: Any = _MISSING


@dataclass
class Reader:
    """One document; `duplicates` are the paths of keys that came twice."""

    duplicates: list[str] = field(default_factory=list)
    result: Any = None
    _stack: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[Any, int, int]] = field(default_factory=dict)  # value, its values and characters
    _nodes: int = 0
    _text: int = 0
    _documents: int = 0

    def read(self, data: bytes) -> Any:
        """bad_request for what is no YAML, or more than a body may hold."""
        try:
            for event in _events(data):
                self._take(event)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
            raise bad_request(f"error converting YAML to JSON: {_first_line(error)}") from error
        return self.result

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise bad_request("the body holds more than one YAML document")
        elif isinstance(event, yaml.AliasEvent):
            name = event.anchor or ""
            value, size, text = self._anchors.get(name, (_MISSING, 0, 0))
            if value is _MISSING:
                raise bad_request(f"error converting YAML to JSON: unknown anchor {name[:50]!r}")
            self._count(size, text)
            self._place(copy.deepcopy(value))
        elif isinstance(event, yaml.ScalarEvent):
            self._count(1, len(event.value))
            value = _scalar(event)
            self._remember(event.anchor, value, (self._nodes - 1, self._text - len(event.value)))
            self._place(value)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = self._stack.pop()
            self._remember(done.anchor, done.value, done.first)
            self._place(done.value)

    def _open(self, event: Any) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise bad_request("the body is nested too deeply")
        _check_tag(event)
        self._count(1, 0)
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Open(value, self._path(), event.anchor, (self._nodes - 1, self._text)))

    def _path(self) -> str:
        """Of what comes next."""
        if not self._stack:
            return ""
        holder = self._stack[-1]
        if isinstance(holder.value, list):
            return f"{holder.path}[{len(holder.value)}]"
        return f"{holder.path}.{holder.key}" if holder.path else str(holder.key)

    def _count(self, nodes: int, text: int) -> None:
        self._nodes += nodes
        self._text += text
        if self._nodes > MAX_NODES:
            raise bad_request(f"the body holds more than {MAX_NODES} values")
        if self._text > MAX_TEXT:
            raise bad_request(f"the body holds more than {MAX_TEXT} characters")

    def _remember(self, anchor: str | None, value: Any, first: tuple[int, int]) -> None:
        """`first`: what there was before it."""
        if anchor is not None:
            self._anchors[anchor] = (value, self._nodes - first[0], self._text - first[1])

    def _place(self, value: Any) -> None:
        if not self._stack:
            self.result = value
            return
        holder = self._stack[-1]
        if isinstance(holder.value, list):
            holder.value.append(value)
        elif holder.key is _MISSING:
            holder.key = _key(value)
            if holder.key in holder.value:
                self.duplicates.append(self._path())
        else:
            holder.value[holder.key] = value
            holder.key = _MISSING


def _events(data: bytes) -> Iterator[Any]:
    yield from yaml.parse(data, Loader=_LOADER)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _check_tag(event: Any) -> None:
    if event.tag not in _TAGS:
        raise bad_request(f"error converting YAML to JSON: the tag {event.tag[:50]!r} is not known")


def _key(value: Any) -> str:
    """JSON has text as keys only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if value == "<<":
            raise bad_request("error converting YAML to JSON: merge keys are not taken")
        return value
    if isinstance(value, int | float):
        return str(value)
    raise bad_request("error converting YAML to JSON: a key that is no text")


def _scalar(event: Any) -> Any:
    _check_tag(event)
    text: str = event.value
    if not event.implicit[0]:  # quoted, or with a tag
        return text if event.tag in (None, "!", "tag:yaml.org,2002:str") else _plain(text)
    return _plain(text)


def _plain(text: str) -> Any:
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) <= 64 and _INTEGER.fullmatch(text):
        return _integer(text)
    if len(text) <= 64 and _FLOAT.fullmatch(text):
        found = float(text)
        return found if math.isfinite(found) else text
    return text


def _integer(text: str) -> Any:
    digits = text.replace("_", "")
    sign, bare = (-1, digits[1:]) if digits.startswith("-") else (1, digits.lstrip("+"))
    if len(bare) > 1 and bare[0] == "0" and bare[1] not in "xob":
        bare = "0o" + bare[1:]
    try:
        return sign * int(bare, 0)
    except ValueError:
        return text
