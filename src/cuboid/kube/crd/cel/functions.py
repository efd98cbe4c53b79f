"""Functions of CEL's standard library and of Kubernetes' additions that rules in use call.

A function gets the budget and its values, the receiver first. What it does not take is `no such overload`.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cuboid.kube.crd import patterns
from cuboid.kube.crd.cel.values import (
    Budget,
    CelError,
    Type,
    equal,
    in_range,
    number,
    type_name,
)
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import CuboidError

Function = Callable[..., Any]
FUNCTIONS: dict[str, Function] = {}
"""`f(x)`; with a namespace as `sets.contains(x, y)`."""
METHODS: dict[str, Function] = {}
"""`x.f(y)`."""
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([+-])?((?:\d{1,12}(?:\.\d{1,9})?(?:ns|us|µs|ms|s|m|h))+|0)", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)
NETWORKS = (ipaddress.IPv4Network, ipaddress.IPv6Network)


def function(*names: str) -> Callable[[Function], Function]:
    def register(made: Function) -> Function:
        FUNCTIONS.update(dict.fromkeys(names, made))
        return made

    return register


def method(*names: str) -> Callable[[Function], Function]:
    def register(made: Function) -> Function:
        METHODS.update(dict.fromkeys(names, made))
        return made

    return register


def call(table: dict[str, Function], name: str, budget: Budget, values: list[Any]) -> Any:
    try:
        return table[name](budget, *values)
    except CelError:
        raise
    except (CuboidError, TypeError, ValueError, AttributeError, IndexError, KeyError, OverflowError) as error:
        kinds = ", ".join(type_name(value) for value in values)
        raise CelError(f"no such overload: {name}({kinds})") from error


def text_only(budget: Budget, *values: Any) -> None:
    """TypeError for what is no string."""
    for value in values:
        if not isinstance(value, str):
            raise TypeError("not a string")
        budget.spend(len(value) // 16)


def _list(budget: Budget, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    budget.spend(len(value))
    return value


# --- types -----------------------------------------------------------------------------------------------------------


@function("size")
@method("size")
def _size(budget: Budget, value: Any) -> int:
    if not isinstance(value, str | bytes | list | dict):
        raise TypeError("no size")
    return len(value)


@function("type")
def _type(budget: Budget, value: Any) -> Type:
    return Type(type_name(value))


@function("dyn")
def _dyn(budget: Budget, value: Any) -> Any:
    return value


@function("int")
def _int(budget: Budget, value: Any) -> int:
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, str) and not re.fullmatch(r"[+-]?\d{1,19}", value, re.ASCII):
        raise CelError(f"type conversion error from {type_name(value)} to int")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("no int")
    return in_range(int(value))


@function("uint")
def _uint(budget: Budget, value: Any) -> int:
    if isinstance(value, str) and not re.fullmatch(r"\d{1,20}", value, re.ASCII):
        raise CelError("type conversion error from string to uint")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("no uint")
    return in_range(int(value), unsigned=True)


@function("double")
def _double(budget: Budget, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("no double")
    return float(value)


@function("bool")
def _bool(budget: Budget, value: Any) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False, "t": True, "f": False, "1": True, "0": False}[value.lower()]
    if not isinstance(value, bool):
        raise TypeError("no bool")
    return value


@function("string")
def _string(budget: Budget, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, float):
        return f"{value:g}" if not value.is_integer() else str(int(value))
    if not isinstance(value, int | str | (ADDRESSES[0] | ADDRESSES[1]) | (NETWORKS[0] | NETWORKS[1])):
        raise TypeError("no string")
    return str(value)


@function("bytes")
def _bytes(budget: Budget, value: Any) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@function("duration")
def _duration(budget: Budget, value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value)
    if found is None:
        raise CelError("type conversion error from string to duration")
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(found[2]))
    return timedelta(seconds=-seconds if found[1] == "-" else seconds)


@function("timestamp")
def _timestamp(budget: Budget, value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        seconds = value if number(value) else parse_rfc3339(value)
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OSError) as error:
        raise CelError("type conversion error from string to timestamp") from error


def part(name: str, of: Callable[[Any], Any]) -> None:
    """A method without arguments."""
    METHODS[name] = lambda budget, value: of(value)


part("getFullYear", lambda value: value.year)
part("getMonth", lambda value: value.month - 1)
part("getDate", lambda value: value.day)
part("getDayOfMonth", lambda value: value.day - 1)
part("getDayOfWeek", lambda value: value.isoweekday() % 7)
part("getDayOfYear", lambda value: value.timetuple().tm_yday - 1)
part("getHours", lambda v: int(v.total_seconds() // 3600) if isinstance(v, timedelta) else v.hour)
part("getMinutes", lambda v: int(v.total_seconds() // 60) if isinstance(v, timedelta) else v.minute)
part("getSeconds", lambda v: int(v.total_seconds()) if isinstance(v, timedelta) else v.second)
part("getMilliseconds", lambda v: v.microseconds // 1000 if isinstance(v, timedelta) else v.microsecond // 1000)

# --- strings ---------------------------------------------------------------------------------------------------------


@method("contains")
def has_part(budget: Budget, text: Any, part: Any) -> bool:
    if isinstance(text, NETWORKS):
        return part in text if isinstance(part, ADDRESSES) else ipaddress.ip_address(part) in text
    text_only(budget, text, part)
    return part in text


@method("startsWith")
def _starts(budget: Budget, text: str, part: str) -> bool:
    text_only(budget, part)
    return text.startswith(part)


@method("endsWith")
def _ends(budget: Budget, text: str, part: str) -> bool:
    text_only(budget, part)
    return text.endswith(part)


@function("matches")
@method("matches")
def _matches(budget: Budget, text: str, pattern: str) -> bool:
    text_only(budget, text, pattern)
    try:
        return patterns.found(pattern, text)
    except CuboidError as error:
        raise CelError(f"error parsing regexp: {error.message}") from error


@method("find")
def _find(budget: Budget, text: str, pattern: str) -> str:
    text_only(budget, text, pattern)
    found = patterns.compiled(pattern).search(text)
    return str(found.group(0)) if found else ""


@method("findAll")
def _find_all(budget: Budget, text: str, pattern: str, most: int = -1) -> list[str]:
    text_only(budget, text, pattern)
    found = [str(one.group(0)) for one in patterns.compiled(pattern).finditer(text)]
    budget.spend(len(found))
    return found if most < 0 else found[:most]


@method("charAt")
def _char(budget: Budget, text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise CelError(f"index out of range: {index}")
    return text[index : index + 1]


@method("indexOf")
def _index(budget: Budget, owner: Any, item: Any, start: int = 0) -> int:
    if isinstance(owner, list):
        return next((i for i, one in enumerate(_list(budget, owner)) if equal(one, item, budget)), -1)
    text_only(budget, owner, item)
    return int(owner.find(item, start))


@method("lastIndexOf")
def _last_index(budget: Budget, owner: Any, item: Any) -> int:
    if isinstance(owner, list):
        return next((i for i in reversed(range(len(_list(budget, owner)))) if equal(owner[i], item, budget)), -1)
    text_only(budget, owner, item)
    return int(owner.rfind(item))


@method("lowerAscii")
def _lower(budget: Budget, text: str) -> str:
    text_only(budget, text)
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


@method("upperAscii")
def _upper(budget: Budget, text: str) -> str:
    text_only(budget, text)
    return "".join(letter.upper() if letter.isascii() else letter for letter in text)


@method("trim")
def _trim(budget: Budget, text: str) -> str:
    text_only(budget, text)
    return text.strip()


@method("replace")
def _replace(budget: Budget, text: str, old: str, new: str, most: int = -1) -> str:
    text_only(budget, text, old, new)
    budget.spend((text.count(old) + 1) * (len(new) + 1) // 16)
    return text.replace(old, new, most)


@method("split")
def _split(budget: Budget, text: str, separator: str, most: int = -1) -> list[str]:
    text_only(budget, text)
    found = list(text) if not separator else text.split(separator, most - 1 if most > 0 else -1)
    budget.spend(len(found))
    return [] if most == 0 else found


@method("join")
def _join(budget: Budget, items: list[Any], separator: str = "") -> str:
    _list(budget, items)
    text_only(budget, separator, *items)
    budget.spend(len(items) * len(separator) // 16)
    return separator.join(items)


@method("substring")
def _substring(budget: Budget, text: str, start: int, end: int | None = None) -> str:
    last = len(text) if end is None else end
    if not 0 <= start <= last <= len(text):
        raise CelError(f"invalid substring range. start: {start}, end: {last}")
    return text[start:last]


@method("reverse")
def _reverse(budget: Budget, owner: Any) -> Any:
    budget.spend(len(owner) // 16)
    return owner[::-1]


# --- lists and sets --------------------------------------------------------------------------------------------------


@method("isSorted")
def _sorted(budget: Budget, items: Any) -> bool:
    found = _list(budget, items)
    return all(a <= b for a, b in itertools.pairwise(found))


@method("sum")
def _sum(budget: Budget, items: Any) -> Any:
    found = _list(budget, items)
    if found and isinstance(found[0], timedelta):
        return sum(found, timedelta())
    total = sum(found)
    return in_range(total) if isinstance(total, int) else total


@method("min")
def _min(budget: Budget, items: Any) -> Any:
    if not _list(budget, items):
        raise CelError("min called on empty list")
    return min(items)


@method("max")
def _max(budget: Budget, items: Any) -> Any:
    if not _list(budget, items):
        raise CelError("max called on empty list")
    return max(items)


@method("distinct")
def _distinct(budget: Budget, items: Any) -> list[Any]:
    found: list[Any] = []
    for item in _list(budget, items):
        if not any(equal(item, other, budget) for other in found):
            found.append(item)
    return found


@method("flatten")
def _flatten(budget: Budget, items: Any) -> list[Any]:
    found = [one for item in _list(budget, items) for one in (item if isinstance(item, list) else [item])]
    budget.spend(len(found))
    return found


@function("sets.contains")
def _superset(budget: Budget, left: Any, right: Any) -> bool:
    return all(any(equal(item, other, budget) for other in _list(budget, left)) for item in _list(budget, right))


@function("sets.equivalent")
def _equivalent(budget: Budget, left: Any, right: Any) -> bool:
    return bool(_superset(budget, left, right) and _superset(budget, right, left))


@function("sets.intersects")
def _intersects(budget: Budget, left: Any, right: Any) -> bool:
    return any(any(equal(item, other, budget) for other in _list(budget, left)) for item in _list(budget, right))


TYPES: dict[str, Type] = {
    name: Type(name)
    for name in ("bool", "uint", "int", "double", "string", "bytes", "list", "map", "null_type", "type")
}
