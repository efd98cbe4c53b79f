"""Lists in pages. All pages of a list show one moment: entries never change, so a page keeps references to the rest.

A token names its list and the last object that was shown. When the list is forgotten, its client gets 410 and with it
a token for the remainder as it is now, which is not the same moment (as in Kubernetes).
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import msgspec

from cuboid.kube.cache import Entry
from cuboid.kube.status import ExpiredListError, bad_request
from cuboid.lib.errors import InvalidError

KEPT = 64
"""Lists that are being paged at once. Of the namespace that has most of them, the longest unused one is forgotten and
its client gets 410: nobody's lists push out those of others."""
EACH = 16
"""Those of one namespace: a list keeps objects as they were, also when they have changed."""
LIFE = 300.0
"""Seconds a list can be gone on with."""
_VERSION = "meta.k8s.io/v1"
_INCONSISTENT = -1
Scope = tuple[Hashable, str]
Now = Callable[[], tuple[list[Entry], int]]
"""The entries of a list as they are now, and their version."""


@dataclass(frozen=True)
class Page:
    entries: Sequence[Entry]
    revision: int
    token: str = ""
    remaining: int | None = None


@dataclass
class _List:
    """`scope` is what was listed, at its end the namespace: a token is no way to another collection."""

    entries: list[Entry]
    revision: int
    selected: bool
    scope: Scope
    until: float


class _Token(msgspec.Struct):
    v: str
    rv: int
    start: tuple[str, str]
    list: str = ""


class Pages:
    def __init__(self) -> None:
        self._lists: OrderedDict[str, _List] = OrderedDict()

    def first(self, entries: list[Entry], revision: int, limit: int, *, selected: bool, scope: Scope) -> Page:
        """`selected`: selectors left something out, so that nobody knows how much remains."""
        if not limit or len(entries) <= limit:
            return Page(entries, revision)
        name = secrets.token_urlsafe(12)
        self._lists[name] = _List(entries, revision, selected, scope, time.monotonic() + LIFE)
        self._drop_expired()
        page = self._cut(name, self._lists[name], 0, limit)
        mine = [key for key, kept in self._lists.items() if kept.scope[-1] == scope[-1]]
        if len(mine) > EACH:
            del self._lists[mine[0]]
        elif len(self._lists) > KEPT:
            self._forget_one()
        return page

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for name in [name for name, kept in self._lists.items() if kept.until < now]:
            del self._lists[name]

    def _forget_one(self) -> None:
        crowds = Counter(kept.scope[-1] for kept in self._lists.values())
        most = max(crowds.values())
        del self._lists[next(name for name, kept in self._lists.items() if crowds[kept.scope[-1]] == most)]

    def following(self, text: str, limit: int, now: Now, *, selected: bool, scope: Scope) -> Page:
        """ExpiredListError when the list is forgotten, InvalidError when the token is none of ours."""
        token = _decoded(text)
        if token.rv == _INCONSISTENT:
            entries, revision = now()
            rest = entries[_behind(entries, token.start) :]
            return self.first(rest, revision, limit, selected=selected, scope=scope)
        kept = self._lists.get(token.list)
        if kept is None or kept.until < time.monotonic():
            raise ExpiredListError(_encoded(_Token(_VERSION, _INCONSISTENT, token.start)))
        if kept.scope != scope:
            raise _invalid("it belongs to another list")
        return self._cut(token.list, kept, _behind(kept.entries, token.start), limit)

    def _cut(self, name: str, kept: _List, start: int, limit: int) -> Page:
        end = start + limit if limit else len(kept.entries)
        left = len(kept.entries) - end
        self._lists.move_to_end(name)
        if left <= 0:
            return Page(kept.entries[start:], kept.revision)
        last = kept.entries[end - 1].key
        token = _encoded(_Token(_VERSION, kept.revision, (last.namespace, last.name), name))
        return Page(kept.entries[start:end], kept.revision, token, None if kept.selected else left)


def _behind(entries: list[Entry], place: tuple[str, str]) -> int:
    return bisect_right(entries, place, key=lambda entry: (entry.key.namespace, entry.key.name))


def _encoded(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode()


def _decoded(text: str) -> _Token:
    try:
        token = msgspec.json.decode(base64.b64decode(text.encode(), altchars=b"-_", validate=True), type=_Token)
    except (ValueError, UnicodeError, binascii.Error) as error:
        raise _invalid("it can not be read") from error
    if token.v != _VERSION:
        raise _invalid("its version is not known")
    return token


def _invalid(why: str) -> InvalidError:
    return bad_request(f"continue key is not valid: {why}")
