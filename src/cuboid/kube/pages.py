"""Lists in pages. All pages of a list show one moment: entries never change, so a page keeps references to the rest."""

from __future__ import annotations

import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from cuboid.kube.cache import Entry
from cuboid.kube.status import bad_request
from cuboid.lib.errors import GoneError

KEPT = 64
"""Lists that are being paged at once; the longest unused is forgotten, its client gets 410."""
LIFE = 300.0
"""Seconds a list can be gone on with."""


@dataclass(frozen=True)
class Page:
    entries: Sequence[Entry]
    revision: int
    token: str = ""
    remaining: int | None = None


@dataclass
class _List:
    entries: list[Entry]
    revision: int
    selected: bool
    until: float


class Pages:
    def __init__(self) -> None:
        self._lists: OrderedDict[str, _List] = OrderedDict()

    def first(self, entries: list[Entry], revision: int, limit: int, selected: bool) -> Page:
        if not limit or len(entries) <= limit:
            return Page(entries, revision)
        name = secrets.token_urlsafe(12)
        self._lists[name] = _List(entries, revision, selected, time.monotonic() + LIFE)
        while len(self._lists) > KEPT:
            self._lists.popitem(last=False)
        return self._cut(name, self._lists[name], 0, limit)

    def following(self, token: str, limit: int) -> Page:
        """GoneError when the list is forgotten, InvalidError when the token is none of ours."""
        try:
            name, _, offset = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
            start = int(offset)
        except (ValueError, UnicodeError) as error:
            raise bad_request("continue key is not valid") from error
        kept = self._lists.get(name)
        if kept is None or kept.until < time.monotonic() or not 0 <= start <= len(kept.entries):
            raise GoneError(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter.",
                reason="Expired",
            )
        return self._cut(name, kept, start, limit)

    def _cut(self, name: str, kept: _List, start: int, limit: int) -> Page:
        end = start + limit if limit else len(kept.entries)
        left = len(kept.entries) - end
        self._lists.move_to_end(name)
        if left <= 0:
            return Page(kept.entries[start:], kept.revision)
        token = base64.urlsafe_b64encode(f"{name}:{end}".encode()).decode()
        return Page(kept.entries[start:end], kept.revision, token, None if kept.selected else left)
