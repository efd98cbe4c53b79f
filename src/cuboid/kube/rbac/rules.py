"""Policy rules and tables of them that answer in a few look-ups.

Source of the meaning: kubernetes/pkg/registry/rbac/validation and apis/rbac/v1/evaluation_helpers. A verb, group or
resource `*` stands for all, `*/scale` for that sub-resource of all; names only restrict requests that name an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cuboid.kube.rbac.attributes import Attributes

Raw = Mapping[str, Any]
ALL = "*"


@dataclass(frozen=True)
class Rule:
    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: Raw) -> Rule:
        keys = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return cls(*(tuple(dict.fromkeys(raw.get(key) or ())) for key in keys))

    @property
    def size(self) -> int:
        """How many rights it lists: what a table of it, and a look at all of them, costs."""
        places = len(self.groups) * len(self.resources) * max(len(self.names), 1) + len(self.urls)
        return len(self.verbs) * places

    def document(self) -> dict[str, list[str]]:
        """As in a Role."""
        rows = {
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
            "resourceNames": self.names,
            "nonResourceURLs": self.urls,
        }
        return {key: list(value) for key, value in rows.items() if value}

    def told(self) -> str:
        """As Kubernetes writes a rule that somebody may not give: `{APIGroups:[""], Resources:["pods"], ...}`."""
        rows = (
            ("APIGroups", self.groups),
            ("Resources", self.resources),
            ("ResourceNames", self.names),
            ("NonResourceURLs", self.urls),
            ("Verbs", self.verbs),
        )
        return "{" + ", ".join(f"{name}:[{_quoted(items)}]" for name, items in rows if items) + "}"


def _quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def rules_of(role: Raw) -> tuple[Rule, ...]:
    """Of a Role or ClusterRole."""
    return tuple(Rule.of(raw) for raw in role.get("rules") or ())


class Table:
    """Rules of one scope, indexed by (verb, group, resource)."""

    __slots__ = ("_rows", "_urls", "named", "rules")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self.named = any(rule.names for rule in self.rules)
        self._rows: dict[tuple[str, str, str], set[str] | None] = {}  # None: whatever the name
        self._urls: dict[str, set[str]] = {}
        for rule in self.rules:
            for verb in rule.verbs:
                self._urls.setdefault(verb, set()).update(rule.urls)
                for group in rule.groups:
                    for resource in rule.resources:
                        self._put((verb, group, resource), rule.names)

    def _put(self, key: tuple[str, str, str], names: tuple[str, ...]) -> None:
        if not names:
            self._rows[key] = None
        elif (known := self._rows.setdefault(key, set())) is not None:
            known.update(names)

    def allows(self, wanted: Attributes) -> bool:
        if wanted.path:
            return self.allows_url(wanted.verb, wanted.path)
        return self.allows_resource(wanted.verb, wanted.group, wanted.resource, wanted.sub, wanted.name)

    def allows_resource(self, verb: str, group: str, resource: str, sub: str, name: str) -> bool:
        rows = self._rows
        if not rows:
            return False
        targets = (f"{resource}/{sub}", ALL, f"*/{sub}") if sub else (resource, ALL)
        for some_verb in (verb, ALL):
            for some_group in (group, ALL):
                for target in targets:
                    names = rows.get((some_verb, some_group, target), _NONE)
                    if names is None or (name and name in names):
                        return True
        return False

    def allows_url(self, verb: str, path: str) -> bool:
        return any(_url_matches(known, path) for some in (verb, ALL) for known in self._urls.get(some, ()))


_NONE: frozenset[str] = frozenset()


def _url_matches(rule: str, path: str) -> bool:
    if rule in (ALL, path):
        return True
    return rule.endswith(ALL) and path.startswith(rule.rstrip(ALL))


MOST_TOLD = 100


def uncovered(tables: Iterable[Table], asked: Iterable[Rule]) -> list[Rule]:
    """The parts of the rules that none of the tables gives: what somebody with these tables may not pass on. The first
    `MOST_TOLD` of them: a few words can list more than anybody could read, or a server write."""
    owned = tuple(tables)
    parts = (part for rule in asked for part in _parts(rule))
    return list(islice((part for part in parts if not any(_covers(table, part) for table in owned)), MOST_TOLD))


def _parts(rule: Rule) -> Iterator[Rule]:
    """One verb and one resource or URL each."""
    for verb in rule.verbs:
        for url in rule.urls:
            yield Rule((verb,), urls=(url,))
        for group in rule.groups:
            for resource in rule.resources:
                for name in rule.names or ("",):
                    yield Rule((verb,), (group,), (resource,), (name,) if name else ())


def _covers(table: Table, part: Rule) -> bool:
    verb = part.verbs[0]
    if part.urls:
        return table.allows_url(verb, part.urls[0])
    resource, _, sub = part.resources[0].partition("/")
    return table.allows_resource(verb, part.groups[0], resource, sub, part.names[0] if part.names else "")
