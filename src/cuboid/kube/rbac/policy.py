"""All roles and bindings, kept current object by object, and what each user has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import objects, selectors
from cuboid.kube.identity import MASTERS, User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.rules import Rule, Table, rules_of

Raw = Mapping[str, Any]
Place = tuple[str, str]
"""Namespace ("" for the cluster) and name."""
GROUP = "rbac.authorization.k8s.io"
USERS = 1_000
"""Users whose tables are kept made up."""
ANSWERS = 128
"""Of one user."""
_EVERYTHING = Table([Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",))])


@dataclass(frozen=True)
class Binding:
    """`role` is the place of a Role, or of a ClusterRole when its namespace is ""."""

    place: Place
    role: Place
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class _ClusterRole:
    rules: tuple[Rule, ...]
    labels: Mapping[str, str]
    gathers: tuple[selectors.Selector, ...]  # of an aggregated one: whose rules it has


class Grants:
    """What one user has: tables for the cluster, and for each namespace that a binding is in. Answers are kept."""

    def __init__(self) -> None:
        self.cluster: list[Table] = []
        self.spaces: dict[str, list[Table]] = {}
        self._named = False  # some rule is about objects by name
        self._answers: dict[tuple[str, str, str, str, str, str, str], bool] = {}

    def add(self, namespace: str, table: Table) -> None:
        """`namespace` "" is the cluster. Before anything is asked."""
        self._named = self._named or table.named
        (self.spaces.setdefault(namespace, []) if namespace else self.cluster).append(table)

    def tables(self, namespace: str) -> list[Table]:
        return [*self.cluster, *(self.spaces.get(namespace, ()) if namespace else ())]

    def allows(self, wanted: Attributes) -> bool:
        name = wanted.name if self._named else ""
        key = (wanted.verb, wanted.resource, wanted.sub, wanted.namespace, name, wanted.group, wanted.path)
        found = self._answers.get(key)
        if found is None:
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            found = self._answers[key] = any(table.allows(wanted) for table in self.tables(wanted.namespace))
        return found


class Policy:
    """`put` and `remove` keep it current; answers are kept until then."""

    def __init__(self) -> None:
        self._roles: dict[Place, tuple[Rule, ...]] = {}
        self._cluster_roles: dict[str, _ClusterRole] = {}
        self._bindings: dict[Place, Binding] = {}
        self._by_subject: dict[str, dict[Place, Binding]] = {}
        self._tables: dict[Place, Table] = {}  # of roles, shared by all who have them
        self._grants: dict[tuple[str, tuple[str, ...]], Grants] = {}
        self.version = 0
        """Grows with every change."""

    def put(self, kind: str, document: Raw) -> None:
        """`kind` is Role, ClusterRole, RoleBinding or ClusterRoleBinding."""
        place = (objects.namespace(document), objects.name(document))
        self._forget(kind, place)
        if kind == "Role":
            self._roles[place] = rules_of(document)
        elif kind == "ClusterRole":
            self._cluster_roles[place[1]] = _cluster_role(document)
        else:
            binding = self._bindings[place] = _binding(place, document)
            for subject in binding.subjects:
                self._by_subject.setdefault(subject, {})[place] = binding

    def remove(self, kind: str, place: Place) -> None:
        self._forget(kind, place)

    def _forget(self, kind: str, place: Place) -> None:
        self.version += 1
        self._grants.clear()
        if kind in ("Role", "ClusterRole"):
            self._tables.clear()
        if kind == "Role":
            self._roles.pop(place, None)
        elif kind == "ClusterRole":
            self._cluster_roles.pop(place[1], None)
        elif binding := self._bindings.pop(place, None):
            for subject in binding.subjects:
                places = self._by_subject.get(subject, {})
                places.pop(place, None)
                if not places:
                    self._by_subject.pop(subject, None)

    # --- answers -----------------------------------------------------------------------------------------------------

    def allows(self, user: User, wanted: Attributes) -> bool:
        return MASTERS in user.groups or self.grants(user).allows(wanted)

    def grants(self, user: User) -> Grants:
        key = (user.name, user.groups)
        found = self._grants.get(key)
        if found is None:
            if len(self._grants) >= USERS:
                self._grants.clear()
            found = self._grants[key] = self._made(user)
        return found

    def _made(self, user: User) -> Grants:
        grants = Grants()
        for binding in self._bindings_of(user):
            grants.add(binding.place[0], self._table(binding.role))
        return grants

    def _table(self, role: Place) -> Table:
        found = self._tables.get(role)
        if found is None:
            found = self._tables[role] = Table(self.role(role))
        return found

    def _bindings_of(self, user: User) -> Iterator[Binding]:
        for subject in (f"User:{user.name}", *(f"Group:{group}" for group in user.groups)):
            yield from self._by_subject.get(subject, {}).values()

    def has_role(self, place: Place) -> bool:
        """Whether there is a Role, or a ClusterRole when its namespace is ""."""
        return place in self._roles if place[0] else place[1] in self._cluster_roles

    def role(self, place: Place) -> tuple[Rule, ...]:
        """Its rules, of an aggregated one those of all it gathers; none if it does not exist."""
        if place[0]:
            return self._roles.get(place, ())
        return tuple(dict.fromkeys(self._gathered(place[1], set())))

    def _gathered(self, name: str, seen: set[str]) -> Iterator[Rule]:
        """An aggregated role may gather others that are aggregated: `admin` gathers `edit`."""
        found = self._cluster_roles.get(name)
        if found is None or name in seen:
            return
        seen.add(name)
        if not found.gathers:
            yield from found.rules
            return
        for other, row in self._cluster_roles.items():
            if any(selectors.matches(wanted, row.labels) for wanted in found.gathers):
                yield from self._gathered(other, seen)

    def tables(self, user: User, namespace: str) -> list[Table]:
        """What the user has in a namespace, or with "" in the cluster."""
        return [_EVERYTHING] if MASTERS in user.groups else self.grants(user).tables(namespace)

    def reason(self, user: User, wanted: Attributes) -> str:
        """Which binding allows it, in Kubernetes' words; "" if none does."""
        for binding in self._bindings_of(user):
            namespace = binding.place[0]
            if namespace in ("", wanted.namespace) and self._table(binding.role).allows(wanted):
                kind, what = ("RoleBinding", f"{binding.place[1]}/{namespace}") if namespace else (
                    "ClusterRoleBinding", binding.place[1],
                )  # fmt: skip
                role = "Role" if binding.role[0] else "ClusterRole"
                who = next(s for s in binding.subjects if s in _subjects_of(user))
                subject = who.replace(":", ' "', 1) + '"'
                return f'RBAC: allowed by {kind} "{what}" of {role} "{binding.role[1]}" to {subject}'
        return ""


def _subjects_of(user: User) -> set[str]:
    return {f"User:{user.name}", *(f"Group:{group}" for group in user.groups)}


def _cluster_role(document: Raw) -> _ClusterRole:
    gathers = (document.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
    wanted = [objects.label_selector(item) for item in gathers]
    found = tuple(item for item in wanted if item is not None)
    return _ClusterRole(rules_of(document), objects.labels(document), found)


def _binding(place: Place, document: Raw) -> Binding:
    ref = document.get("roleRef") or {}
    role = (place[0] if ref.get("kind") == "Role" else "", ref.get("name", ""))
    return Binding(place, role, tuple(_subjects(document.get("subjects") or (), place[0])))


def _subjects(rows: Iterable[Raw], namespace: str) -> Iterator[str]:
    for row in rows:
        kind, name = row.get("kind", ""), row.get("name", "")
        if kind == "ServiceAccount":
            yield f"User:system:serviceaccount:{row.get('namespace') or namespace}:{name}"
        else:
            yield f"{kind}:{name}"
