"""Expressions made into functions. A node is a function of the environment; making it checks names and functions."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from cuboid.kube.crd.cel import functions, nodes, values
from cuboid.kube.crd.cel.lexer import Token, tokens
from cuboid.kube.crd.cel.library import NAMESPACES
from cuboid.kube.crd.cel.macros import MACROS, all_macro, bound, fold_macro
from cuboid.kube.crd.cel.nodes import Env, Node
from cuboid.kube.crd.cel.values import Budget, CelError, Optional

MAX_DEPTH = 60
"""Levels of an expression."""
_RELATIONS = ("<", "<=", ">", ">=", "==", "!=", "in")
_RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var void while".split()
)
_ESCAPES = (("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__"))


@dataclass(frozen=True)
class Program:
    """An expression ready to run. `names` are those that it takes from outside, `paths` what it takes of them: fields,
    None for an index."""

    node: Node
    names: frozenset[str]
    paths: frozenset[tuple[str | None, ...]]

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
    return Program(node, frozenset(parser.used), frozenset(parser.paths.values()))


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
        self.paths: dict[Node, tuple[str | None, ...]] = {}

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
            found = nodes.conditional(found, yes, self.expression())
        self._depth -= 1
        return found

    def _or(self) -> Node:
        found = self._and()
        while self._at("||"):
            self._take()
            found = nodes.logic(found, self._and(), True)
        return found

    def _and(self) -> Node:
        found = self._relation()
        while self._at("&&"):
            self._take()
            found = nodes.logic(found, self._relation(), False)
        return found

    def _relation(self) -> Node:
        found = self._sum()
        while self._at(*_RELATIONS):
            operator = self._take().value
            found = nodes.relation(operator, found, self._sum())
        return found

    def _sum(self) -> Node:
        found = self._product()
        while self._at("+", "-"):
            operator = self._take().value
            found = nodes.arithmetic(operator, found, self._product())
        return found

    def _product(self) -> Node:
        found = self._unary()
        while self._at("*", "/", "%"):
            operator = self._take().value
            found = nodes.arithmetic(operator, found, self._unary())
        return found

    def _unary(self) -> Node:
        signs = []
        while self._at("!", "-"):
            signs.append(self._take().value)
            if len(signs) > MAX_DEPTH:
                raise CelError(f"the expression has more than {MAX_DEPTH} levels")
        if signs and signs[-1] == "-" and self.next.kind == "value" and type(self.next.value) is int:
            found = nodes.constant(-self._take().value)
            signs.pop()
            found = self._members(found)
        else:
            found = self._members(self._primary())
        for sign in reversed(signs):
            found = nodes.opposite(found) if sign == "!" else nodes.minus(found)
        return found

    # --- members -----------------------------------------------------------------------------------------------------

    def _members(self, found: Node) -> Node:
        while self._at(".", "[", ".?", "[?"):
            sign = self._take().value
            if sign in (".", ".?"):
                found = self._member(found, optional=sign == ".?")
            else:
                found = self._noted(nodes.index_of(found, self.expression(), optional=sign == "[?"), found, None)
                self._expect("]")
        return found

    def _noted(self, found: Node, owner: Node, step: str | None) -> Node:
        """Remember the way from a name to what is taken of it."""
        if owner in self.paths and len(self.paths[owner]) < MAX_DEPTH:
            self.paths[found] = (*self.paths[owner], step)
        return found

    def _member(self, owner: Node, *, optional: bool) -> Node:
        name = self._name()
        if not self._at("("):
            return self._noted(nodes.field_of(owner, unescaped(name), optional=optional), owner, unescaped(name))
        if name in MACROS and not optional:
            return self._macro(owner, name)
        if name in ("optMap", "optFlatMap"):
            return self._optional_macro(owner, flat=name == "optFlatMap")
        if name not in functions.METHODS:
            raise CelError(f"undeclared reference to '{name}' (in container '')")
        return nodes.call_of(functions.METHODS, name, [owner, *self._arguments()])

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
            return nodes.constant(token.value)
        if token.kind == "name":
            return self._named(str(token.value))
        if token.value == "(":
            found = self.expression()
            self._expect(")")
            return found
        if token.value == "[":
            self._place -= 1
            return nodes.list_of(self._arguments("]", "["))
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
        return nodes.map_of(found)

    def _named(self, name: str) -> Node:
        if name in ("true", "false", "null"):
            return nodes.constant({"true": True, "false": False, "null": None}[name])
        if name == "has" and self._at("("):
            return self._has()
        if self._at("("):
            if name not in functions.FUNCTIONS:
                raise CelError(f"undeclared reference to '{name}' (in container '')")
            return nodes.call_of(functions.FUNCTIONS, name, self._arguments())
        if name not in self._scope and (name == "cel" or name in NAMESPACES) and self._at("."):
            return self._spaced(name)
        if name in self._scope:
            if name in self._known:
                self.used.add(name)
            found = nodes.variable(name)
            if name in self._known and self._scope.count(name) == 1:
                self.paths[found] = (name,)
            return found
        if name in functions.TYPES:
            return nodes.constant(functions.TYPES[name])
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
        return nodes.call_of(functions.FUNCTIONS, f"{space}.{name}", self._arguments())

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
            except nodes.MissingError as error:
                if error.owner_field == unescaped(str(name.value)) and error.last is found:
                    return False
                raise
            return value.present if isinstance(value, Optional) else True

        return run
