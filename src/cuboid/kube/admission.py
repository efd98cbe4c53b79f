"""Admission: what is decided about a write between its decoding and its validation.

A plug-in is synchronous and works from memory (the watch cache), so that nothing comes between its decision and the
write that follows. It changes or refuses; what it reserves for a write that is under way, it gets back by the release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cuboid.kube.identity import SERVER, User
from cuboid.kube.kind import Kind

Object = dict[str, Any]
Release = Callable[[], None]


@dataclass
class Request:
    """`operation` is CREATE, UPDATE or DELETE; `sub` the sub-resource. `new` is None for a deletion, `old` for a birth.

    Objects are in their stored form with defaults filled in. A plug-in may change `new` in place.
    """

    operation: str
    kind: Kind
    namespace: str
    name: str
    new: Object | None
    old: Object | None
    user: User = SERVER
    sub: str = ""
    dry_run: bool = False


class Plugin(Protocol):
    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        """Asked once: the answer is kept for a kind, operation and sub-resource."""
        ...

    def admit(self, request: Request) -> None:
        """Change `request.new` in place, or raise (`status.forbidden`)."""
        ...

    def reserve(self, request: Request) -> Release | None:
        """After validation, right before the write: raise, or count what it will take. The release is called when the
        write has ended, however it ended; by then a successful one is in the watch cache."""
        ...


class Chain:
    """Plug-ins in their order."""

    def __init__(self, *plugins: Plugin) -> None:
        self._plugins = plugins
        self._chosen: dict[tuple[tuple[str, str], bool, str, str], tuple[Plugin, ...]] = {}

    def of(self, kind: Kind, operation: str, sub: str = "") -> tuple[Plugin, ...]:
        key = (kind.stored_as, kind.namespaced, operation, sub)
        found = self._chosen.get(key)
        if found is None:
            found = tuple(plugin for plugin in self._plugins if plugin.handles(kind, operation, sub))
            self._chosen[key] = found
        return found

    def reserve(self, plugins: tuple[Plugin, ...], request: Request) -> Release:
        """All or none."""
        releases: list[Release] = []

        def release() -> None:
            for item in reversed(releases):
                item()

        try:
            for plugin in plugins:
                if taken := plugin.reserve(request):
                    releases.append(taken)
        except BaseException:
            release()
            raise
        return release
