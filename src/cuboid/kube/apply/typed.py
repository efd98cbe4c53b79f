"""Objects seen through their schema: which fields they have, what changed between two, how a configuration merges in.

Granularity follows the schema: structs and maps by field, associative lists by their keys, sets by value; all else
(atomic lists and maps, scalars) is one leaf. Without a schema, maps are taken by field and lists as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from cuboid.kube.apply.fieldset import SELF, FieldSet, is_member, text, with_self
from cuboid.kube.schema import Node
from cuboid.kube.status import bad_request

KEY_DEFAULTS = {"protocol": "TCP"}
"""Keys of list items that have a default: the ports of containers and services."""
Object = dict[str, Any]
MAX_REMEMBERED, MANY_REMEMBERED = 16 * 1024, 256
"""Bytes of a part of an object whose fields are remembered, and how many such parts are."""
_LEAF: FieldSet = {}
_NONE: dict[str, Node] = {}
_encode = msgspec.json.encode
_seen: dict[tuple[Node | None, bytes], FieldSet] = {}


class Comparison(NamedTuple):
    """Sets of fields, of two versions of one object."""

    added: FieldSet
    removed: FieldSet
    modified: FieldSet


def _by_field(node: Node | None, value: Any) -> bool:
    return isinstance(value, dict) and (node is None or (node.kind in ("object", "map", "any") and not node.atomic))


def _associative(node: Node | None) -> bool:
    return (
        node is not None
        and node.kind == "array"
        and not node.atomic
        and (bool(node.list_keys) or node.list_type == "set")
    )


def _child(node: Node | None, key: str) -> Node | None:
    if node is None:
        return None
    return node.properties.get(key) or node.items


def element(node: Node, item: Any) -> str | None:
    """The path element of a list item; None when it lacks a key."""
    if not node.list_keys:
        return None if isinstance(item, dict | list) else "v:" + _encode(item).decode()
    if not isinstance(item, dict):
        return None
    keys = {}
    for key in sorted(node.list_keys):
        value = item.get(key, KEY_DEFAULTS.get(key))
        if value is None or isinstance(value, dict | list):
            return None
        keys[key] = value
    return "k:" + _encode(keys).decode()


def _elements(node: Node, items: list[Any]) -> dict[str, Any] | None:
    """Items by path element; None when they can not be told apart."""
    found: dict[str, Any] = {}
    for item in items:
        name = element(node, item)
        if name is None or name in found:
            return None
        found[name] = item
    return found


def check_lists(node: Node | None, value: Any, path: str = "") -> None:
    """bad_request for items of an associative list without their keys, or with those of another."""
    if _by_field(node, value):
        for key, item in value.items():
            check_lists(_child(node, key), item, f"{path}.{key}")
    elif isinstance(value, list) and _associative(node):
        assert node is not None
        seen = set()
        for index, item in enumerate(value):
            name = element(node, item)
            if name is None:
                missing = ", ".join(f'"{key}"' for key in node.list_keys)
                raise bad_request(
                    f"{path}: element {index}: associative list with keys has an element that omits key field "
                    f"{missing} (and doesn't have default value)"
                )
            if name in seen:
                raise bad_request(f"{path}: duplicate entries for key {text((name,))}")
            seen.add(name)
            check_lists(node.items, item, f"{path}[{index}]")


# --- which fields there are ------------------------------------------------------------------------------------------


def fields_of(node: Node | None, value: Any) -> FieldSet:
    """The set that an applied configuration owns: its leaves, list items and keys of maps."""
    return _applied(node, value) or {}


def _applied(node: Node | None, value: Any) -> FieldSet | None:
    if _by_field(node, value):
        found: FieldSet = {} if value else {SELF: {}}
        properties = node.properties if node is not None else {}
        for key, item in value.items():
            below = _applied(_child(node, key), item)
            if key not in properties:
                below = with_self(below)
            if below is not None:
                found["f:" + key] = below
        return {} if SELF in found else found or None
    if isinstance(value, list) and _associative(node):
        assert node is not None
        items = _elements(node, value) or {}
        return {name: with_self(_applied(node.items, item)) for name, item in items.items()} or None
    return {}


def whole(node: Node | None, value: Any, *, structs: bool = True) -> FieldSet:
    """A value with all that is in it, itself a member; without `structs`, those are none."""
    if _by_field(node, value):
        found: FieldSet = {}
        properties, items = (node.properties, node.items) if node is not None else (_NONE, None)
        for key, item in value.items():
            leaf = not isinstance(item, dict | list)
            found["f:" + key] = _LEAF if leaf else whole(properties.get(key) or items, item, structs=structs)
        return with_self(found) if structs or not properties else found
    if isinstance(value, list) and _associative(node):
        assert node is not None
        elements = _elements(node, value)
        if elements:
            return {SELF: _LEAF, **{n: with_self(whole(node.items, i, structs=structs)) for n, i in elements.items()}}
    return _LEAF


def born(node: Node, new: Object) -> FieldSet:
    """`whole` without structs, of a new object. Those of a Deployment or a Job are alike but for their metadata, so
    what a part has is remembered: sets may share parts."""
    found: FieldSet = {}
    for key, item in new.items():
        child = node.properties.get(key) or node.items
        found["f:" + key] = whole(child, item, structs=False) if key == "metadata" else _remembered(child, item)
    return found if node.properties else with_self(found)


def _remembered(node: Node | None, value: Any) -> FieldSet:
    written = _encode(value)
    if len(written) > MAX_REMEMBERED:
        return whole(node, value, structs=False)
    known = _seen.get((node, written))
    if known is None:
        if len(_seen) >= MANY_REMEMBERED:
            _seen.clear()
        known = _seen[node, written] = whole(node, value, structs=False)
    return known


# --- what changed ----------------------------------------------------------------------------------------------------


def compare(node: Node | None, old: Object, new: Object) -> Comparison:
    """Equal parts cost one comparison."""
    result = Comparison({}, {}, {})
    _compare_items(old, new, node, result)
    return result


def _compare_items(old: Object, new: Object, node: Node | None, into: Comparison) -> None:
    for key, value in new.items():
        if key not in old:
            into.added["f:" + key] = whole(_child(node, key), value)
        elif old[key] != value:
            _compare_pair("f:" + key, old[key], value, _child(node, key), into)
    for key, value in old.items():
        if key not in new:
            into.removed["f:" + key] = whole(_child(node, key), value)


def _compare_pair(name: str, old: Any, new: Any, node: Node | None, into: Comparison) -> None:
    below = Comparison({}, {}, {})
    if _by_field(node, old) and _by_field(node, new):
        _compare_items(old, new, node, below)
    elif isinstance(old, list) and isinstance(new, list) and _associative(node):
        assert node is not None
        before, after = _elements(node, old), _elements(node, new)
        if before is None or after is None:
            into.modified[name] = {}
            return
        _compare_elements(before, after, node.items, below)
    else:
        into.modified[name] = {}
        return
    for part, target in zip(below, into, strict=True):
        if part:
            target[name] = part


def _compare_elements(old: Object, new: Object, node: Node | None, into: Comparison) -> None:
    for name, item in new.items():
        if name not in old:
            into.added[name] = with_self(whole(node, item))
        elif old[name] != item:
            _compare_pair(name, old[name], item, node, into)
    for name, item in old.items():
        if name not in new:
            into.removed[name] = with_self(whole(node, item))


# --- changing values -------------------------------------------------------------------------------------------------


def merged(node: Node | None, live: Any, applied: Any) -> Any:
    """`applied` into `live`: what it has, wins; what it has not, stays."""
    if _by_field(node, live) and _by_field(node, applied):
        result = dict(live)
        for key, value in applied.items():
            result[key] = merged(_child(node, key), live.get(key), value)
        return result
    if isinstance(live, list) and isinstance(applied, list) and _associative(node):
        assert node is not None
        return _merged_list(node, live, applied)
    return applied


def _merged_list(node: Node, live: list[Any], applied: list[Any]) -> list[Any]:
    """In the order of `applied`; what only `live` has stays behind the common item that it followed."""
    mine, theirs = _elements(node, live), _elements(node, applied)
    if mine is None or theirs is None:
        return applied
    followers: dict[str, list[Any]] = {"": []}
    last = ""
    for name, item in mine.items():
        if name in theirs:
            last = name
        else:
            followers.setdefault(last, []).append(item)
    result = followers[""]
    for name, item in theirs.items():
        result.append(merged(node.items, mine.get(name), item))
        result += followers.get(name, [])
    return result


def without(node: Node | None, value: Any, gone: FieldSet) -> Any:
    """A value without the members of `gone`."""
    if _by_field(node, value):
        result = {}
        for key, item in value.items():
            below = gone.get("f:" + key)
            if below is None:
                result[key] = item
            elif not is_member(below):
                rest = without(_child(node, key), item, below)
                if rest or not item:  # what has become empty goes as well
                    result[key] = rest
        return result
    if isinstance(value, list) and _associative(node):
        assert node is not None
        return list(_remaining(node, value, gone))
    return value


def _remaining(node: Node, items: list[Any], gone: FieldSet) -> Iterable[Any]:
    for item in items:
        below = gone.get(element(node, item) or "")
        if below is None:
            yield item
        elif not is_member(below):
            yield without(node.items, item, below)


def named_members(node: Node | None, given: FieldSet) -> FieldSet:
    """The set with every struct field a member of which something is in it."""
    properties = node.properties if node is not None else {}
    result: FieldSet = {}
    for key, below in given.items():
        child = _child(node, key[2:]) if key.startswith("f:") else node.items if node is not None else None
        deeper = named_members(child, below) if below else below
        result[key] = with_self(deeper) if key.startswith("f:") and key[2:] in properties else deeper
    return result
