"""Bodies of requests as values: JSON, YAML or protobuf, with the fields that come twice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from cuboid.kube import status
from cuboid.lib.errors import InvalidError
from cuboid.server import protobuf

JSON = "application/json"
YAML = "application/yaml"
MEDIA = (JSON, YAML, protobuf.MEDIA)
MAX_DUPLICATES = 100
"""Fields named in one answer."""


@dataclass(frozen=True)
class Body:
    """`duplicates` are the paths of fields that came more than once; the last one counts."""

    value: Any
    duplicates: tuple[str, ...] = ()


def parse(data: bytes, media: str) -> Body:
    """bad_request for what can not be read, unsupported_media for another format."""
    if media == protobuf.MEDIA:
        return Body(protobuf.decode(data))
    if media == YAML:
        return parse_yaml(data)
    if media == JSON:
        return parse_json(data)
    raise status.unsupported_media(
        f"the body of the request was in an unknown format ({media[:80]}) - accepted media types include: "
        f"{', '.join(MEDIA)}"
    )


def parse_json(data: bytes) -> Body:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise status.bad_request(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise status.bad_request("the body is nested too deeply") from error
    return Body(value, _duplicates(data, value))


def parse_apply(data: bytes) -> Body:
    """Of a server-side apply: YAML, which most clients send in its form as JSON."""
    try:
        return parse_json(data)
    except InvalidError:
        return parse_yaml(data)


def parse_yaml(data: bytes) -> Body:
    from cuboid.server.yaml_body import Reader  # brings PyYAML, which most servers never need

    reader = Reader()
    value = reader.read(data)
    return Body(value, tuple(reader.duplicates[:MAX_DUPLICATES]))


def _duplicates(data: bytes, value: Any) -> tuple[str, ...]:
    """What was lost by decoding. Text that comes out of the value as it went in has lost nothing."""
    if msgspec.json.encode(value) == data.rstrip():
        return ()
    found = False

    def pairs(items: list[tuple[str, Any]]) -> Any:
        nonlocal found
        made = dict(items)
        if len(made) == len(items):
            return made
        found = True
        return _Pairs(items)

    try:
        tree = json.loads(data, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return ()
    return tuple(_paths(tree))[:MAX_DUPLICATES] if found else ()


class _Pairs(list[tuple[str, Any]]):
    """An object in which a field comes twice."""


def _paths(root: Any) -> list[str]:
    found: list[str] = []
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, _Pairs | dict):
            seen: set[str] = set()
            for key, item in node if isinstance(node, _Pairs) else node.items():
                where = f"{path}.{key}" if path else key
                if key in seen:
                    found.append(where)
                seen.add(key)
                stack.append((where, item))
        elif isinstance(node, list):
            stack += [(f"{path}[{index}]", item) for index, item in enumerate(node)]
    return sorted(dict.fromkeys(found))
