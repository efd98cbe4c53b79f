"""Strict reading of JSON that somebody else wrote: sizes, counts and types are checked, anything else is refused."""

from __future__ import annotations

import json
from typing import Any

from cuboid.lib.errors import HostileError

MAX_BYTES = 1 << 20  # of one document
MAX_TEXT = 512  # characters of a message that is shown to people


def decode(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. HostileError naming `what` otherwise."""
    if len(data) > MAX_BYTES:
        raise HostileError(f"{what} has more than {MAX_BYTES} bytes")
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise HostileError(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise HostileError(f"{what} is not a JSON object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def objects(parent: dict[str, Any], key: str, what: str, limit: int) -> list[dict[str, Any]]:
    """The list of objects under `key`, empty if absent or null."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise HostileError(f"{key} in {what} is not a list of objects")
    if len(value) > limit:
        raise HostileError(f"{key} in {what} has more than {limit} entries")
    return value


def texts(parent: dict[str, Any], key: str, what: str, limit: int) -> tuple[str, ...]:
    """The list of short strings under `key`, empty if absent or null."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > limit:
        raise HostileError(f"{key} in {what} is not a list of at most {limit} strings")
    if not all(isinstance(item, str) and 0 < len(item) <= 253 and item.isprintable() for item in value):
        raise HostileError(f"{key} in {what} holds something that is not a short string")
    return tuple(value)


def text(parent: dict[str, Any], key: str, what: str, *, limit: int = 253) -> str:
    """The string under `key`, "" if absent or null."""
    value = parent.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise HostileError(f"{key} in {what} is not a string of at most {limit} printable characters")
    return value


def readable(value: object) -> str:
    """A stranger's message, cut and without control characters."""
    cut = value[:MAX_TEXT] if isinstance(value, str) else ""
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())
