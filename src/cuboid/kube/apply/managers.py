"""`metadata.managedFields`: who owns which fields, after an update and after an apply.

Source: k8s.io/apimachinery/pkg/util/managedfields and sigs.k8s.io/structured-merge-diff/merge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cuboid.kube.apply import fieldset, typed
from cuboid.kube.apply.fieldset import FieldSet
from cuboid.kube.schema import Node
from cuboid.kube.status import apply_conflict
from cuboid.lib.errors import ConflictError

Object = dict[str, Any]
APPLY = "Apply"
UPDATE = "Update"
MAX_UPDATERS = 10
"""Managers with updates that one object remembers; the oldest of more are merged into one."""
ANCIENT = "ancient-changes"
BEFORE = "before-first-apply"
"""Owner of what an object had when it was first applied to and nobody owned anything."""
_META = ("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion")
_TYPE = ("apiVersion", "kind")
_STRIPPED: FieldSet = {"f:apiVersion": {}, "f:kind": {}, "f:metadata": {".": {}, **{f"f:{key}": {} for key in _META}}}


class Identity(NamedTuple):
    """A manager. `sub` is the sub-resource through which it writes."""

    name: str
    operation: str
    version: str
    sub: str = ""

    def __str__(self) -> str:
        through = f' with subresource "{self.sub}"' if self.sub else ""
        using = f" using {self.version}" if self.operation == UPDATE else ""
        return f'"{self.name}"{through}{using}'


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager has; `time` (RFC 3339) is when it last took some of it."""

    fields: FieldSet
    time: str


Managers = dict[Identity, Owned]


# --- as they are stored ----------------------------------------------------------------------------------------------


def decode(raw: Any) -> Managers | None:
    """None when it is no list of managed fields."""
    if not isinstance(raw, list):
        return None
    found: Managers = {}
    for item in raw:
        fields = item.get("fieldsV1", {})
        operation = item.get("operation")
        if operation not in (APPLY, UPDATE) or item.get("fieldsType") != "FieldsV1" or not fieldset.valid(fields):
            return None
        identity = Identity(item.get("manager", ""), operation, item.get("apiVersion", ""), item.get("subresource", ""))
        found[identity] = Owned(fields, item.get("time", ""))
    return found


def stored(document: Object) -> Managers:
    """Those of an object of the store, whose form is known to be right."""
    return {
        Identity(item["manager"], item["operation"], item["apiVersion"], item.get("subresource", "")): Owned(
            item["fieldsV1"], item.get("time", "")
        )
        for item in document["metadata"].get("managedFields", ())
    }


def given(live: Managers, new: Object, sub: str) -> Managers:
    """What holds before an update: the client's list where it sends one, nobody when it resets with `[{}]`."""
    sent = new["metadata"].get("managedFields")
    if sub or not sent:
        return live
    if sent == [{}]:
        return {}
    return decode(sent) or live


def encode(managers: Managers) -> list[Object]:
    """In Kubernetes' order: those that apply, then the others, each by age."""
    ordered = sorted(managers.items(), key=lambda item: (item[0].operation, item[1].time, item[0]))
    return [_entry(identity, owned) for identity, owned in ordered]


def _entry(identity: Identity, owned: Owned) -> Object:
    entry: Object = {
        "manager": identity.name,
        "operation": identity.operation,
        "apiVersion": identity.version,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.fields,
    }
    if owned.time:
        entry["time"] = owned.time
    if identity.sub:
        entry["subresource"] = identity.sub
    return entry


def same_but_times(left: Managers, right: Managers) -> bool:
    return left.keys() == right.keys() and all(left[key].fields == right[key].fields for key in left)


# --- writes ----------------------------------------------------------------------------------------------------------


def born(node: Node, new: Object, identity: Identity, ignored: FieldSet, now: str) -> Managers:
    """After a creation: all that the object has is its creator's. `ignored` are the parts that it could not set."""
    written = {key: value for key, value in _plain(new).items() if key not in _TYPE and f"f:{key}" not in ignored}
    if not written["metadata"]:
        del written["metadata"]
    mine = typed.born(node, written)
    return {identity: Owned(mine, now)} if mine else {}


def owner(node: Node, config: Object, identity: Identity, ignored: FieldSet, now: str) -> Managers:
    """After a creation by an apply: what was applied is the applier's, what was filled in is nobody's."""
    mine = fieldset.recursive_difference(typed.fields_of(node, config), ignored)
    mine = fieldset.difference(mine, _STRIPPED)
    return {identity: Owned(mine, now)} if mine else {}


def updated(
    managers: Managers, node: Node, old: Object, new: Object, identity: Identity, ignored: FieldSet, now: str
) -> Managers:
    """After an update: what was changed is the writer's alone, what was removed is nobody's.

    Nothing is tracked for an object of which nobody owns anything, until somebody applies to it.
    """
    if not managers:
        return {}
    added, removed, modified = typed.compare(node, _plain(old), _plain(new))
    touched = fieldset.union(added, modified)
    result = {}
    for other, owned in managers.items():
        rest = fieldset.difference(fieldset.difference(owned.fields, touched), removed)
        if rest:
            result[other] = Owned(rest, owned.time)
    taken = fieldset.difference(fieldset.recursive_difference(touched, ignored), _STRIPPED)
    if taken:
        before = result.get(identity)
        result[identity] = Owned(fieldset.union(before.fields, taken) if before else taken, now)
    return _capped(result)


def _plain(document: Object) -> Object:
    """Without what changes with every write and is owned by nobody."""
    metadata = {key: value for key, value in document["metadata"].items() if key not in _META}
    return {**document, "metadata": metadata}


def _capped(managers: Managers) -> Managers:
    updaters = [identity for identity in managers if identity.operation == UPDATE]
    if len(updaters) <= MAX_UPDATERS:
        return managers
    result, firsts, left = dict(managers), {}, len(updaters)
    for identity in sorted(updaters, key=lambda item: (managers[item].time, item)):
        if left <= MAX_UPDATERS:
            break
        bucket = Identity(ANCIENT, UPDATE, identity.version)
        if identity.version not in firsts:
            firsts[identity.version] = identity
            continue
        if bucket not in result:
            result[bucket] = result.pop(firsts[identity.version])
        if identity != bucket:
            owned = result.pop(identity)
            result[bucket] = Owned(fieldset.union(result[bucket].fields, owned.fields), owned.time)
            left -= 1
    return result


@dataclass(frozen=True, slots=True)
class Applied:
    """The object after an apply, and who owns what then."""

    object: Object
    managers: Managers


def applied(
    managers: Managers, node: Node, live: Object, config: Object, identity: Identity, ignored: FieldSet, now: str,
    *, force: bool = False,
) -> Applied:  # fmt: skip
    """Merge a configuration in, whose lists are checked. ConflictError with one cause per field that another has."""
    if not managers:
        everything = typed.whole(node, _plain(live))
        before = Identity(BEFORE, UPDATE, identity.version)
        managers = {before: Owned(fieldset.difference(everything, _STRIPPED), now)}
    wanted = typed.fields_of(node, config)
    wanted = fieldset.difference(fieldset.recursive_difference(wanted, ignored), _STRIPPED)
    last = managers.get(identity)
    result = {**managers, identity: Owned(wanted, last.time if last else now)}
    new = typed.merged(node, live, config)
    if last is not None:
        new = typed.merged(node, _pruned(node, new, last.fields, result), config)  # what is applied empty stays
    comparison = typed.compare(node, _plain(live), _plain(new))
    taken = fieldset.recursive_difference(fieldset.union(comparison.added, comparison.modified), ignored)
    gone = fieldset.recursive_difference(comparison.removed, ignored)
    _check_conflicts(result, identity, taken, force)
    final: Managers = {}
    for other, owned in result.items():
        fields = owned.fields
        if other != identity:
            fields = fieldset.difference(fieldset.difference(fields, taken), gone)
        if fields:
            final[other] = Owned(fields, owned.time)
    if identity in final and (last is None or taken or gone or last.fields != wanted):
        final[identity] = Owned(wanted, now)
    return Applied(new, final)


def _pruned(node: Node, new: Object, last: FieldSet, managers: Managers) -> Object:
    """Without what the manager applied before and neither it nor anybody else has now."""
    kept: FieldSet = {}
    for owned in managers.values():
        kept = fieldset.union(kept, owned.fields)
    gone = fieldset.difference(typed.named_members(node, last), typed.named_members(node, kept))
    result: Object = typed.without(node, new, gone)
    return result


def _check_conflicts(managers: Managers, identity: Identity, taken: FieldSet, force: bool) -> None:
    if force:
        return
    found = []
    for other, owned in managers.items():
        if other != identity:
            common = fieldset.intersection(owned.fields, taken)
            found += [(other, path) for path in fieldset.paths(common)]
    if found:
        raise conflict((str(other), fieldset.text(path)) for other, path in found)


def conflict(found: Iterable[tuple[str, str]]) -> ConflictError:
    """In Kubernetes' words, of (manager, field)."""
    rows = sorted(found)
    if len(rows) == 1:
        message = f"Apply failed with 1 conflict: conflict with {rows[0][0]}: {rows[0][1]}"
    else:
        lines = []
        for manager in dict.fromkeys(row[0] for row in rows):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {path}" for name, path in rows if name == manager]
        message = f"Apply failed with {len(rows)} conflicts: " + "\n".join(lines)
    return apply_conflict(message, rows)
