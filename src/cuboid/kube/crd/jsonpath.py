"""The JSONPath of printer columns: `.spec.a`, `['a.b']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`, `..name`.

Source: k8s.io/client-go/util/jsonpath, of which columns may use one path without text around it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from cuboid.lib.errors import InvalidError

Step = Callable[[Any], Iterator[Any]]
MAX_LENGTH = 1024
MAX_FOUND = 1_000
"""Values that one path may find."""
_NAME = re.compile(r"(?:[^.\[\]\\'\"?@()*\s]|\\.)+")
_SLICE = re.compile(r"(-?\d+)?(?::(-?\d+)?(?::(-?\d+))?)?$")
_FILTER = re.compile(r"\?\(\s*@((?:\.(?:[^.\[\]\\'\"?@()*\s=!<>]|\\.)+)*)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*\)$", re.S)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
}


@functools.lru_cache(maxsize=1024)
def parse(path: str) -> tuple[Step, ...]:
    """InvalidError when it is none."""
    if len(path) > MAX_LENGTH:
        raise InvalidError(f"the path is longer than {MAX_LENGTH} bytes")
    if not path.startswith((".", "[")):
        raise InvalidError("must be a simple json path starting with .")
    steps: list[Step] = []
    place = 0
    while place < len(path):
        step, place = _bracket(path, place) if path[place] == "[" else _dotted(path, place)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def find(path: str, document: Any) -> list[Any]:
    """All values there, none where the path ends in nothing."""
    found = [document]
    for step in parse(path):
        found = [item for value in found for item in step(value)][:MAX_FOUND]
    return found


def _dotted(path: str, place: int) -> tuple[Step | None, int]:
    if path[place] != ".":
        raise InvalidError(f"unexpected {path[place]!r} in the path {path!r}")
    if path[place : place + 2] == "..":
        found = _NAME.match(path, place + 2)
        if found is None:
            raise InvalidError(f"a name is missing after .. in the path {path!r}")
        return _below(_plain(found[0])), found.end()
    if path[place + 1 : place + 2] == "*":
        return _every, place + 2
    found = _NAME.match(path, place + 1)
    if found is None:
        if path[place + 1 : place + 2] == "[" or path == ".":
            return None, place + 1
        raise InvalidError(f"a name is missing in the path {path!r}")
    return _field(_plain(found[0])), found.end()


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _bracket(path: str, place: int) -> tuple[Step, int]:
    end = _closing(path, place)
    inner = path[place + 1 : end].strip()
    if inner == "*":
        return _every, end + 1
    if inner[:1] in ("'", '"') and len(inner) > 1 and inner[-1] == inner[0]:
        return _field(_plain(inner[1:-1])), end + 1
    if inner.startswith("?"):
        return _filter(inner), end + 1
    found = _SLICE.match(inner)
    if not inner or found is None:
        raise InvalidError(f"invalid array index {inner[:50]!r}")
    if ":" in inner:
        low, high, step = (int(group) if group else None for group in found.groups())
        if step is not None and step <= 0:
            raise InvalidError("step must be > 0")
        return _slice(low, high, step), end + 1
    return _index(int(inner)), end + 1


def _closing(path: str, place: int) -> int:
    quote = ""
    for index in range(place + 1, len(path)):
        letter = path[index]
        if quote:
            quote = "" if letter == quote and path[index - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "]":
            return index
    raise InvalidError("unterminated array")


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _every(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _below(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, dict):
                if name in item:
                    yield item[name]
                waiting += reversed(item.values())
            elif isinstance(item, list):
                waiting += reversed(item)

    return step


def _index(number: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= number < len(value):
            yield value[number]

    return step


def _slice(low: int | None, high: int | None, by: int | None) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[low:high:by]

    return step


def _filter(inner: str) -> Step:
    found = _FILTER.match(inner)
    if found is None:
        raise InvalidError(f"the filter {inner[:100]!r} is not understood")
    path = tuple(_field(_plain(name[0])) for name in _NAME.finditer(found[1]))
    operator, wanted = found[2], _literal(found[3]) if found[2] else None

    def fits(item: Any) -> bool:
        values = [item]
        for part in path:
            values = [below for value in values for below in part(value)]
        if not operator:
            return bool(values)
        try:
            return any(_ORDER[operator](value, wanted) for value in values)
        except TypeError:
            return False

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from (item for item in value if fits(item))

    return step


def _literal(text: str) -> Any:
    if text[:1] == "'" and text[-1:] == "'" and len(text) > 1:
        return text[1:-1]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"the value {text[:50]!r} of a filter is not understood") from error
