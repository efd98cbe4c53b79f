"""Expressions made into functions. A node is a function of the environment; making it checks names and functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cuboid.kube.crd.cel import functions, values
from cuboid.kube.crd.cel.lexer import Token, tokens
from cuboid.kube.crd.cel.macros import MACROS, all_macro, bound, fold_macro
from cuboid.kube.crd.cel.values import Budget, CelError, Optional, UInt

MAX_DEPTH = 60
"""Levels of an expression."""
_RELATIONS = ("<", "<=", ">", ">=", "==", "!=", "in")
_RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var void while".split()
)
_ESCAPES = (("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__"))


@dataclass
class Env:
    """Names and what they stand for while one expression is evaluated."""

    names: dict[str, Any]
    budget: Budget


Node = Callable[[Env], Any]


@dataclass(frozen=True)
class Program:
    """An expression ready to run. `names` are those that it takes from outside."""

    node: Node
    names: frozenset[str]

    def run(self, names: dict[str, Any], budget: Budget) -> Any:
        """CelError when it can not be evaluated."""
        try:
            return self.node(Env(dict(names), budget))
        except RecursionError as error:
            raise CelError("the expression nests too deeply") from error


@functools.lru_cache(maxsize=2048)
def compiled(text: str, known: tuple[str, ...] = ("self", "oldSelf")) -> Program:
    """CelError says what is wrong with the expression."""
    parser = _Parser(tokens(text), known)
    node = parser.expression()
    if parser.next.kind != "end":
        raise CelError(f"Syntax error: mismatched input '{parser.next.value}' expecting <EOF>")
    return Program(node, frozenset(parser.used))


def unescaped(name: str) -> str:
    """Names of properties that are no names of CEL are written with escapes."""
    if not name.startswith("__") and "__" not in name:
        return name
    if name.startswith("__") and name.endswith("__") and name.strip("_") in (*_RESERVED, "true", "false", "null", "in"):
        return name[2:-2]
    for escape, letter in _ESCAPES:
        name = name.replace(escape, letter)
    return name


class _Parser:
    def __init__(self, found: list[Token], known: tuple[str, ...]) -> None:
        self._tokens = found
        self._place = 0
        self._scope = list(known)
        self._known = frozenset(known)
        self._depth = 0
        self.used: set[str] = set()

    @property
    def next(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        self._place += 1
        return self._tokens[self._place - 1]

    def _at(self, *signs: str) -> bool:
        token = self.next
        return token.value in signs and (token.kind == "sign" or (token.kind == "name" and token.value == "in"))

    def _expect(self, sign: str) -> None:
        if not self._at(sign):
            raise CelError(f"Syntax error: mismatched input '{self.next.value}' expecting '{sign}'")
        self._place += 1

    # --- operators, from the weakest ---------------------------------------------------------------------------------

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CelError(f"the expression has more than {MAX_DEPTH} levels")
        found = self._or()
        if self._at("?"):
            self._take()
            yes = self._or()
            self._expect(":")
            found = _conditional(found, yes, self.expression())
        self._depth -= 1
        return found

    def _or(self) -> Node:
        found = self._and()
        while self._at("||"):
            self._take()
            found = _logic(found, self._and(), True)
        return found

    def _and(self) -> Node:
        found = self._relation()
        while self._at("&&"):
            self._take()
            found = _logic(found, self._relation(), False)
        return found

    def _relation(self) -> Node:
        found = self._sum()
        while self._at(*_RELATIONS):
            operator = self._take().value
            found = _relation(operator, found, self._sum())
        return found

    def _sum(self) -> Node:
        found = self._product()
        while self._at("+", "-"):
            operator = self._take().value
            found = _arithmetic(operator, found, self._product())
        return found

    def _product(self) -> Node:
        found = self._unary()
        while self._at("*", "/", "%"):
            operator = self._take().value
            found = _arithmetic(operator, found, self._unary())
        return found

    def _unary(self) -> Node:
        signs = []
        while self._at("!", "-"):
            signs.append(self._take().value)
            if len(signs) > MAX_DEPTH:
                raise CelError(f"the expression has more than {MAX_DEPTH} levels")
        if signs and signs[-1] == "-" and self.next.kind == "value" and type(self.next.value) is int:
            found = _constant(-self._take().value)
            signs.pop()
            found = self._members(found)
        else:
            found = self._members(self._primary())
        for sign in reversed(signs):
            found = _not(found) if sign == "!" else _minus(found)
        return found

    # --- members -----------------------------------------------------------------------------------------------------

    def _members(self, found: Node) -> Node:
        while self._at(".", "[", ".?", "[?"):
            sign = self._take().value
            if sign in (".", ".?"):
                found = self._member(found, optional=sign == ".?")
            else:
                found = _index(found, self.expression(), optional=sign == "[?")
                self._expect("]")
        return found

    def _member(self, owner: Node, *, optional: bool) -> Node:
        name = self._name()
        if not self._at("("):
            return _field(owner, unescaped(name), optional=optional)
        if name in MACROS and not optional:
            return self._macro(owner, name)
        if name in ("optMap", "optFlatMap"):
            return self._optional_macro(owner, flat=name == "optFlatMap")
        if name not in functions.METHODS:
            raise CelError(f"undeclared reference to '{name}' (in container '')")
        return _call(functions.METHODS, name, [owner, *self._arguments()])

    def _name(self) -> str:
        token = self._take()
        if token.kind != "name":
            raise CelError(f"Syntax error: mismatched input '{token.value}' expecting IDENTIFIER")
        return str(token.value)

    def _arguments(self, end: str = ")", begin: str = "(") -> list[Node]:
        self._expect(begin)
        found: list[Node] = []
        while not self._at(end):
            found.append(self.expression())
            if not self._at(end):
                self._expect(",")
        self._expect(end)
        return found

    def _variables(self, most: int) -> list[str]:
        """The names that a macro binds: those before its expressions."""
        found: list[str] = []
        while len(found) < most and self.next.kind == "name" and self._tokens[self._place + 1].value == ",":
            found.append(self._name())
            self._expect(",")
        return found

    def _within(self, names: list[str]) -> list[Node]:
        """The expressions of a macro, up to its end."""
        self._scope += names
        found = [self.expression()]
        while self._at(","):
            self._take()
            found.append(self.expression())
        del self._scope[len(self._scope) - len(names) :]
        self._expect(")")
        return found

    def _macro(self, owner: Node, name: str) -> Node:
        self._expect("(")
        names = self._variables(1 if name in ("map", "filter") else 2)
        if not names:
            raise CelError(f"argument must be a simple name, in {name}")
        bodies = self._within(names)
        if name in ("all", "exists", "exists_one", "existsOne") and len(bodies) == 1:
            return all_macro(owner, name, names, bodies[0])
        return fold_macro(owner, name, names, bodies)

    def _optional_macro(self, owner: Node, *, flat: bool) -> Node:
        self._expect("(")
        name = self._name()
        self._expect(",")
        (body,) = self._within([name])

        def run(env: Env) -> Any:
            found = owner(env)
            if not isinstance(found, Optional) or not found.present:
                return Optional()
            result = bound(env, {name: found.value}, body)
            return result if flat else Optional(result, True)

        return run

    # --- primaries ---------------------------------------------------------------------------------------------------

    def _primary(self) -> Node:
        token = self._take()
        if token.kind == "value":
            if type(token.value) is int:
                values.in_range(token.value)
            return _constant(token.value)
        if token.kind == "name":
            return self._named(str(token.value))
        if token.value == "(":
            found = self.expression()
            self._expect(")")
            return found
        if token.value == "[":
            self._place -= 1
            return _list(self._arguments("]", "["))
        if token.value == "{":
            return self._map()
        if token.value == ".":
            return self._primary()
        raise CelError(f"Syntax error: mismatched input '{token.value}'")

    def _map(self) -> Node:
        found: list[tuple[Node, Node]] = []
        while not self._at("}"):
            key = self.expression()
            self._expect(":")
            found.append((key, self.expression()))
            if not self._at("}"):
                self._expect(",")
        self._expect("}")
        return _map(found)

    def _named(self, name: str) -> Node:
        if name in ("true", "false", "null"):
            return _constant({"true": True, "false": False, "null": None}[name])
        if name == "has" and self._at("("):
            return self._has()
        if self._at("("):
            if name not in functions.FUNCTIONS:
                raise CelError(f"undeclared reference to '{name}' (in container '')")
            return _call(functions.FUNCTIONS, name, self._arguments())
        if name not in self._scope and (name == "cel" or name in functions.NAMESPACES) and self._at("."):
            return self._spaced(name)
        if name in self._scope:
            if name in self._known:
                self.used.add(name)
            return _variable(name)
        if name in functions.TYPES:
            return _constant(functions.TYPES[name])
        raise CelError(f"undeclared reference to '{name}' (in container '')")

    def _spaced(self, space: str) -> Node:
        self._expect(".")
        name = self._name()
        if (space, name) == ("cel", "bind"):
            self._expect("(")
            variable = self._name()
            self._expect(",")
            value = self.expression()
            self._expect(",")
            (body,) = self._within([variable])
            return lambda env: bound(env, {variable: value(env)}, body)
        if f"{space}.{name}" not in functions.FUNCTIONS:
            raise CelError(f"undeclared reference to '{space}.{name}' (in container '')")
        return _call(functions.FUNCTIONS, f"{space}.{name}", self._arguments())

    def _has(self) -> Node:
        """`has(x.y)`: the last member is looked for, not taken."""
        self._expect("(")
        before = self._place
        found = self.expression()
        after = self._place
        self._expect(")")
        name, dot = self._tokens[after - 1], self._tokens[after - 2]
        if name.kind != "name" or dot.value not in (".", ".?") or after - before < 3:
            raise CelError("invalid argument to has() macro")

        def run(env: Env) -> bool:
            try:
                value = found(env)
            except MissingError as error:
                if error.owner_field == unescaped(str(name.value)) and error.last is found:
                    return False
                raise
            return value.present if isinstance(value, Optional) else True

        return run


class MissingError(CelError):
    """A field or key that is not there. `last` is the node that looked for it."""

    def __init__(self, key: Any, last: Node) -> None:
        super().__init__(f"no such key: {key}")
        self.owner_field = key
        self.last = last


# --- nodes -----------------------------------------------------------------------------------------------------------


def _constant(value: Any) -> Node:
    return lambda env: value


def _variable(name: str) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        return env.names[name]

    return run


def _field(owner: Node, name: str, *, optional: bool) -> Node:
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


def _index(owner: Node, key: Node, *, optional: bool) -> Node:
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


def _call(table: dict[str, functions.Function], name: str, arguments: list[Node]) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        return functions.call(table, name, env.budget, [argument(env) for argument in arguments])

    return run


def _conditional(condition: Node, yes: Node, no: Node) -> Node:
    return lambda env: yes(env) if _truth(condition(env), "_?_:_") else no(env)


def _truth(value: Any, operator: str) -> bool:
    if not isinstance(value, bool):
        raise CelError(f"no such overload: {operator}({values.type_name(value)})")
    return value


def _logic(left: Node, right: Node, absorbing: bool) -> Node:
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


def _relation(operator: str, left: Node, right: Node) -> Node:
    def run(env: Env) -> bool:
        env.budget.spend()
        a, b = left(env), right(env)
        if operator == "in":
            return values.contains(a, b, env.budget)
        if operator in ("==", "!="):
            return values.equal(a, b, env.budget) is (operator == "==")
        return values.ordered(operator, a, b)

    return run


def _arithmetic(operator: str, left: Node, right: Node) -> Node:
    def run(env: Env) -> Any:
        env.budget.spend()
        return values.arithmetic(operator, left(env), right(env), env.budget)

    return run


def _not(node: Node) -> Node:
    return lambda env: not _truth(node(env), "!")


def _minus(node: Node) -> Node:
    return lambda env: values.negated(node(env))


def _list(items: list[Node]) -> Node:
    def run(env: Env) -> list[Any]:
        env.budget.spend(1 + len(items))
        return [item(env) for item in items]

    return run


def _map(items: list[tuple[Node, Node]]) -> Node:
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
