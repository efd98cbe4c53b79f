"""The API's URLs, read: `/api/v1/namespaces/default/pods/web/log`."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.kinds import Kind, Kinds
from cuboid.lib.errors import NotFoundError

_NAMESPACE_SUBRESOURCES = ("finalize", "status")


@dataclass(frozen=True)
class Target:
    """What a URL names. `name` is "" for a collection, `sub` for the object itself."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    sub: str = ""
    rest: str = ""


def unknown_path() -> NotFoundError:
    return NotFoundError("the server could not find the requested resource")


def parse(path: str, kinds: Kinds) -> Target:
    """NotFoundError for what is not served here."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        return _below(kinds, "", parts[1], parts[2:])
    if parts[0] == "apis" and len(parts) > 3:
        return _below(kinds, parts[1], parts[2], parts[3:])
    raise unknown_path()


def _below(kinds: Kinds, group: str, version: str, parts: list[str]) -> Target:
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and not (len(parts) == 3 and parts[2] in _NAMESPACE_SUBRESOURCES):
        namespace, parts = parts[1], parts[2:]
    kind = kinds.find(group, version, parts[0])
    if kind is None or (namespace and not kind.namespaced) or len(parts) > 4:
        raise unknown_path()
    padded = [*parts[1:], "", "", ""]
    name, sub, rest = padded[:3]
    if name and kind.namespaced and not namespace:
        raise unknown_path()
    if sub and all(known.name != sub for known in kind.subresources):
        raise unknown_path()
    return Target(kind, namespace, name, sub, rest)
