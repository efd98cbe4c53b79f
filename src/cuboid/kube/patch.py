"""The three patches of Kubernetes on decoded JSON: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge.

Strategic merge follows the merge keys of the schema and the directives `$patch`, `$retainKeys`,
`$deleteFromPrimitiveList/…` and `$setElementOrder/…` (k8s.io/apimachinery/pkg/util/strategicpatch).
All return a new document; the given ones are not changed. InvalidError says what is wrong with a patch.
"""

from __future__ import annotations

import copy
from typing import Any

from cuboid.kube.schema import Node
from cuboid.kube.status import bad_request
from cuboid.lib.errors import InvalidError

MAX_OPERATIONS = 10_000
MAX_COPIES = 3 * 1024 * 1024
"""Nodes that `copy` operations of one JSON patch may add."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


# --- JSON patch ------------------------------------------------------------------------------------------------------


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902, all or nothing."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise InvalidError(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}",
            reason="RequestEntityTooLarge",
        )
    holder = {"": copy.deepcopy(document)}
    budget = [MAX_COPIES]
    for operation in operations:
        if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
            raise bad_request(f"not an operation of a JSON patch: {str(operation)[:200]}")
        _OPERATIONS[operation["op"]](holder, operation, budget)
    return holder[""]


def _pointer(operation: dict[str, Any], key: str = "path") -> list[str]:
    text = operation.get(key)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise bad_request(f"{key!r} of a JSON patch operation must be a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _parent(holder: Any, path: list[str]) -> tuple[Any, str]:
    node = holder
    for part in path[:-1]:
        node = _child(node, part, path)
    return node, path[-1]


def _child(node: Any, part: str, path: list[str]) -> Any:
    if isinstance(node, dict) and part in node:
        return node[part]
    if isinstance(node, list):
        return node[_index(part, len(node) - 1, path)]
    raise _missing(path)


def _index(part: str, last: int, path: list[str]) -> int:
    if not (part.isascii() and part.isdigit()) or len(part) > 9 or (part != "0" and part.startswith("0")):
        raise _missing(path)
    if int(part) > last:
        raise _missing(path)
    return int(part)


def _missing(path: list[str]) -> InvalidError:
    where = "/".join(path)[:300]
    return InvalidError(f"the path {where or '/'!r} of the JSON patch does not exist in the object", reason="Invalid")


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise bad_request("a JSON patch operation needs a value")
    return copy.deepcopy(operation["value"])


def _put(holder: Any, path: list[str], value: Any) -> None:
    node, part = _parent(holder, path)
    if isinstance(node, dict):
        node[part] = value
    elif isinstance(node, list):
        node.insert(len(node) if part == "-" else _index(part, len(node), path), value)
    else:
        raise _missing(path)


def _take(holder: Any, path: list[str]) -> Any:
    node, part = _parent(holder, path)
    if len(path) == 1:
        raise bad_request("a JSON patch must not remove the whole object")
    value = _child(node, part, path)
    del node[part if isinstance(node, dict) else int(part)]
    return value


def _add(holder: Any, operation: dict[str, Any], _: list[int]) -> None:
    _put(holder, _pointer(operation), _value(operation))


def _remove(holder: Any, operation: dict[str, Any], _: list[int]) -> None:
    _take(holder, _pointer(operation))


def _replace(holder: Any, operation: dict[str, Any], _: list[int]) -> None:
    path = _pointer(operation)
    node, part = _parent(holder, path)
    _child(node, part, path)
    node[part if isinstance(node, dict) else int(part)] = _value(operation)


def _move(holder: Any, operation: dict[str, Any], _: list[int]) -> None:
    source, target = _pointer(operation, "from"), _pointer(operation)
    if target[: len(source)] == source and len(target) > len(source):
        raise bad_request("a JSON patch must not move a value into itself")
    _put(holder, target, _take(holder, source))


def _copy_value(holder: Any, operation: dict[str, Any], budget: list[int]) -> None:
    source = _pointer(operation, "from")
    node, part = _parent(holder, source)
    value = _child(node, part, source)
    budget[0] -= _weight(value)
    if budget[0] < 0:
        raise InvalidError("the JSON patch copies too much", reason="RequestEntityTooLarge")
    _put(holder, _pointer(operation), copy.deepcopy(value))


def _weight(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_weight(item) + len(key) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(_weight(item) for item in value)
    return 1 + (len(value) if isinstance(value, str) else 0)


def _test(holder: Any, operation: dict[str, Any], _: list[int]) -> None:
    path = _pointer(operation)
    node, part = _parent(holder, path)
    if not _same(_child(node, part, path), operation.get("value")):
        raise InvalidError(f"testing path {'/'.join(path)[:300]!r} failed: its value is another", reason="Invalid")


def _same(left: Any, right: Any) -> bool:
    """JSON equality: `true` is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


_OPERATIONS = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy_value,
    "test": _test,
}

# --- strategic merge -------------------------------------------------------------------------------------------------

_GONE = object()
_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge(node: Node, target: Any, patch: Any) -> Any:
    """Merge `patch` into `target`, an object of type `node`."""
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    return _merge_object(node, target if isinstance(target, dict) else {}, patch)


def _merge_object(node: Node | None, target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {key: _plain(value) for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"unknown $patch directive {str(directive)[:50]!r}")
    result = _retained(target, patch)
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_key(node, result, key, value, patch)
    for key in patch:
        if key.startswith(_DELETE_PRIMITIVES):
            _delete_primitives(result, key.removeprefix(_DELETE_PRIMITIVES), patch[key])
    return _ordered(node, result, patch)


def _retained(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    keep = patch.get(_RETAIN)
    if keep is None:
        return dict(target)
    if not isinstance(keep, list):
        raise bad_request("$retainKeys must be a list")
    return {key: value for key, value in target.items() if key in keep}


def _merge_key(node: Node | None, result: dict[str, Any], key: str, value: Any, patch: dict[str, Any]) -> None:
    child = _child_node(node, key)
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict):
        current = result.get(key)
        result[key] = _merge_object(child, current if isinstance(current, dict) else {}, value)
        if value.get(_PATCH) == "delete":
            result.pop(key)
    elif isinstance(value, list):
        result[key] = _merge_list(child, result.get(key), value)
    else:
        result[key] = value


def _child_node(node: Node | None, key: str) -> Node | None:
    if node is None:
        return None
    return node.items if node.kind == "map" else node.properties.get(key)


def _merge_list(node: Node | None, target: Any, patch: list[Any]) -> list[Any]:
    current = target if isinstance(target, list) else []
    if node is None or "merge" not in node.strategy:
        return [_plain(item) for item in patch]
    if not node.merge_key:
        known = set(map(_identity, current))
        added = {_identity(item): item for item in patch if _identity(item) not in known}
        return [*current, *added.values()]
    return _merge_by_key(node, current, patch)


def _identity(value: Any) -> tuple[str, str]:
    """What is equal has the same, and it can be looked up: lists of strangers are long."""
    return type(value).__name__, value if isinstance(value, str) else repr(value)


def _merge_by_key(node: Node, current: list[Any], patch: list[Any]) -> list[Any]:
    name = node.merge_key
    if any(isinstance(item, dict) and item.get(_PATCH) == "replace" and len(item) == 1 for item in patch):
        return [_plain(item) for item in patch if isinstance(item, dict) and _PATCH not in item]
    result: list[Any] = list(current)
    places: dict[Any, list[int]] = {}
    for index, item in enumerate(current):
        if isinstance(item, dict):
            places.setdefault(_identity(item.get(name)), []).append(index)
    for item in patch:
        if not isinstance(item, dict) or name not in item:
            raise bad_request(f"map: {str(item)[:200]} does not contain declared merge key: {name}")
        identity = _identity(item[name])
        found = places.get(identity)
        if item.get(_PATCH) == "delete":
            for index in places.pop(identity, ()):
                result[index] = _GONE
        elif not found:
            places[identity] = [len(result)]
            result.append(_merge_object(node.items, {}, item))
        else:
            result[found[0]] = _merge_object(node.items, result[found[0]], item)
    return [item for item in result if item is not _GONE]


def _delete_primitives(result: dict[str, Any], key: str, values: Any) -> None:
    current = result.get(key)
    if isinstance(current, list) and isinstance(values, list):
        gone = set(map(_identity, values))
        result[key] = [item for item in current if _identity(item) not in gone]


def _ordered(node: Node | None, result: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for directive in patch:
        if directive.startswith(_ORDER):
            key = directive.removeprefix(_ORDER)
            child = _child_node(node, key)
            if isinstance(result.get(key), list) and isinstance(patch[directive], list):
                result[key] = _in_order(result[key], patch[directive], child.merge_key if child else "")
    return result


def _in_order(items: list[Any], order: list[Any], merge_key: str) -> list[Any]:
    """Items in the patch's order; those it does not name stay after the named item that they followed."""

    def identity(item: Any) -> tuple[str, str]:
        return _identity(item.get(merge_key) if merge_key and isinstance(item, dict) else item)

    wanted = dict.fromkeys(map(identity, order))
    named: dict[tuple[str, str], list[Any]] = {}  # with each item that the order names, those that followed it
    first: list[Any] = []
    last = first
    for item in items:
        if identity(item) in wanted:
            last = named.setdefault(identity(item), [])
        last.append(item)
    return [*first, *(item for value in wanted for item in named.get(value, ()))]


def _plain(value: Any) -> Any:
    """Without directives, for what replaces or is new."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not key.startswith("$") and item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
