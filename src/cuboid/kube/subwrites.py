"""What a write through a sub-resource may change of its object, and how that is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuboid.kube import pod_subwrites
from cuboid.kube.fields import Fields
from cuboid.kube.kind import Kind

Object = dict[str, Any]
WHOLE = ("status", "ephemeralcontainers", "resize")
"""Sub-resources that have the form of the object itself."""


def keep(new: Object, old: Object, key: str) -> None:
    """A field stays as it was."""
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def prepare(kind: Kind, sub: str, new: Object, old: Object) -> None:
    """Take back what this write may not change. `sub` is "" for the object itself."""
    if sub == "status":
        kind.strategy.prepare_status(new, old)
    elif sub in _PREPARE:
        _PREPARE[sub](new, old)
    else:
        kind.strategy.prepare_update(new, old)


def validate(kind: Kind, sub: str, new: Object, old: Object, fields: Fields) -> None:
    if sub == "status":
        kind.strategy.validate_status(new, old, fields)
    elif sub in _VALIDATE:
        _VALIDATE[sub](kind, new, old, fields)
    else:
        kind.strategy.validate_update(new, old, fields)


_PREPARE: dict[str, Callable[[Object, Object], None]] = {
    "ephemeralcontainers": pod_subwrites.prepare_debug,
    "resize": pod_subwrites.prepare_resize,
}
_VALIDATE: dict[str, Callable[[Kind, Object, Object, Fields], None]] = {
    "ephemeralcontainers": pod_subwrites.validate_debug,
    "resize": pod_subwrites.validate_resize,
}
