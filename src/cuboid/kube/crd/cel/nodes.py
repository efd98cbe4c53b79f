"""What expressions are made of: functions of an environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cuboid.kube.crd.cel import functions, values
from cuboid.kube.crd.cel.values import Budget, CelError, Optional, UInt


@dataclass
class Env:
    """Names and what they stand for while one expression is evaluated."""

    names: dict[str, Any]
    budget: Budget


Node = Callable[[Env], Any]


class MissingError(CelError):
    """A field or key that is not there. `last` is the node that looked for it."""

    def __init__(self, key: Any, last: Node) -> None:
        super().__init__(f"no such key: {key}")
        self.owner_field = key
        self.last = last


def constant(value: Any) -> Node:
    return lambda env: value


def variable(name: str) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        return env.names[name]

    return run


def field_of(owner: Node, name: str, *, optional: bool) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        found = owner(env)
        wrapped = optional or isinstance(found, Optional)
        if isinstance(found, Optional):
            if not found.present:
                return Optional()
            found = found.value
        if not isinstance(found, dict):
            raise CelError(f"no such overload: {values.type_name(found)}.{name}")
        if name not in found:
            if wrapped:
                return Optional()
            raise MissingError(name, run)
        return Optional(found[name], True) if wrapped else found[name]

    return run


def index_of(owner: Node, key: Node, *, optional: bool) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        found, wanted = owner(env), key(env)
        wrapped = optional or isinstance(found, Optional)
        if isinstance(found, Optional):
            if not found.present:
                return Optional()
            found = found.value
        if isinstance(found, list) and values.number(wanted) and wanted == int(wanted):
            inside = 0 <= wanted < len(found)
            problem = f"index out of bounds: {wanted}"
            wanted = int(wanted)
        elif isinstance(found, dict) and not isinstance(wanted, list | dict):
            inside, problem = wanted in found, f"no such key: {wanted}"
        else:
            raise CelError(f"no such overload: {values.type_name(found)}[{values.type_name(wanted)}]")
        if inside:
            return Optional(found[wanted], True) if wrapped else found[wanted]
        if wrapped:
            return Optional()
        raise CelError(problem)

    return run


def call_of(table: dict[str, functions.Function], name: str, arguments: list[Node]) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        return functions.call(table, name, env.budget, [argument(env) for argument in arguments])

    return run


def conditional(condition: Node, yes: Node, no: Node) -> Node:
    return lambda env: yes(env) if _truth(condition(env), "_?_:_") else no(env)


def _truth(value: Any, operator: str) -> bool:
    if not isinstance(value, bool):
        raise CelError(f"no such overload: {operator}({values.type_name(value)})")
    return value


def logic(left: Node, right: Node, absorbing: bool) -> Node:
    """`||` and `&&`: one side that decides hides an error of the other."""
    operator = "||" if absorbing else "&&"

    def run(env: Env) -> bool:
        try:
            first = _truth(left(env), operator)
        except CelError:
            if env.budget.spent:
                raise
            if _truth(right(env), operator) is absorbing:
                return absorbing
            raise
        return absorbing if first is absorbing else _truth(right(env), operator)

    return run


def relation(operator: str, left: Node, right: Node) -> Node:
    def run(env: Env) -> bool:
        env.budget.spend()
        a, b = left(env), right(env)
        if operator == "in":
            return values.contains(a, b, env.budget)
        if operator in ("==", "!="):
            return values.equal(a, b, env.budget) is (operator == "==")
        return values.ordered(operator, a, b)

    return run


def arithmetic(operator: str, left: Node, right: Node) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        return values.arithmetic(operator, left(env), right(env), env.budget)

    return run


def opposite(node: Node) -> Node:
    return lambda env: not _truth(node(env), "!")


def minus(node: Node) -> Node:
    return lambda env: values.negated(node(env))


def list_of(items: list[Node]) -> Node:
    def run(env: Env) -> list[Any]:
        env.budget.spend(1 + len(items))
        return [item(env) for item in items]

    return run


def map_of(items: list[tuple[Node, Node]]) -> Node:
    def run(env: Env) -> dict[Any, Any]:
        env.budget.spend(1 + len(items))
        found: dict[Any, Any] = {}
        for key_node, value in items:
            key = key_node(env)
            if not isinstance(key, bool | int | str | UInt):
                raise CelError(f"unsupported key type: {values.type_name(key)}")
            if key in found:
                raise CelError(f"Failed with repeated key: {key}")
            found[key] = value(env)
        return found

    return run
