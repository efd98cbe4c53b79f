"""Macros that go over lists and maps. With two names: index and item, or key and value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cuboid.kube.crd.cel.values import CelError, type_name

if TYPE_CHECKING:
    from cuboid.kube.crd.cel.nodes import Env, Node

MACROS = frozenset(
    ("all", "exists", "exists_one", "existsOne", "map", "filter", "transformList", "transformMap", "transformMapEntry")
)


def _turns(owner: Node, names: list[str], env: Env) -> Iterator[dict[str, Any]]:
    """The names of each turn."""
    found = owner(env)
    if not isinstance(found, list | dict):
        raise CelError(f"no such overload: a comprehension over {type_name(found)}")
    pairs: Any = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in pairs:
        if len(names) == 2:
            yield {names[0]: key, names[1]: value}
        else:
            yield {names[0]: key if isinstance(found, dict) else value}


def bound(env: Env, names: dict[str, Any], body: Node) -> Any:
    """The value of a node with some names more."""
    env.budget.spend()
    saved = env.names
    env.names = {**saved, **names}
    try:
        return body(env)
    finally:
        env.names = saved


def _true(env: Env, names: dict[str, Any], body: Node) -> bool:
    found = bound(env, names, body)
    if not isinstance(found, bool):
        raise CelError(f"no such overload: a condition of type {type_name(found)}")
    return found


def all_macro(owner: Node, name: str, names: list[str], body: Node) -> Node:
    """all, exists: a turn that decides hides the errors of others. exists_one: none is hidden."""

    def one(env: Env) -> bool:
        return sum(_true(env, turn, body) for turn in _turns(owner, names, env)) == 1

    def decide(env: Env) -> bool:
        wanted, failed = name == "exists", None
        for turn in _turns(owner, names, env):
            try:
                if _true(env, turn, body) is wanted:
                    return wanted
            except CelError as error:
                if env.budget.spent:
                    raise
                failed = error
        if failed is not None:
            raise failed
        return not wanted

    return decide if name in ("all", "exists") else one


def fold_macro(owner: Node, name: str, names: list[str], bodies: list[Node]) -> Node:
    """Those that make a list or a map; the first of two bodies chooses."""
    *conditions, body = bodies
    if len(conditions) > 1 or (name == "filter" and conditions) or name not in _FOLDS:
        raise CelError(f"found no matching overload for '{name}'")

    def run(env: Env) -> Any:
        chosen = (turn for turn in _turns(owner, names, env) if all(_true(env, turn, one) for one in conditions))
        return _FOLDS[name](env, list(names), body, chosen)

    return run


def _map(env: Env, names: list[str], body: Node, turns: Iterator[dict[str, Any]]) -> list[Any]:
    return [bound(env, turn, body) for turn in turns]


def _filter(env: Env, names: list[str], body: Node, turns: Iterator[dict[str, Any]]) -> list[Any]:
    return [turn[names[-1]] for turn in turns if _true(env, turn, body)]


def _transform(env: Env, names: list[str], body: Node, turns: Iterator[dict[str, Any]]) -> dict[Any, Any]:
    return {turn[names[0]]: bound(env, turn, body) for turn in turns}


def _entries(env: Env, names: list[str], body: Node, turns: Iterator[dict[str, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for turn in turns:
        made = bound(env, turn, body)
        if not isinstance(made, dict):
            raise CelError(f"no such overload: an entry of type {type_name(made)}")
        found.update(made)
    return found


_FOLDS: dict[str, Callable[[Env, list[str], Node, Iterator[dict[str, Any]]], Any]] = {
    "map": _map,
    "filter": _filter,
    "transformList": _map,
    "transformMap": _transform,
    "transformMapEntry": _entries,
}
