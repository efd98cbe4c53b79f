"""Values of CEL as Python has them, and the operators on them.

int, float (double), bool, str, bytes, None, list, dict, datetime (timestamp), timedelta (duration), and the types here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from cuboid.lib.errors import CuboidError

LOW, HIGH = -(2**63), 2**63 - 1


class CelError(CuboidError):
    """An expression that is wrong, or can not be evaluated on these values."""

    reason = "Invalid"


class Budget:
    """Steps that are left. CelError when there are none: nothing catches that one."""

    __slots__ = ("left", "spent")

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.spent = False

    def spend(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left < 0:
            self.spent = True
            raise CelError("operation cancelled: actual cost limit exceeded")


class UInt(int):
    """`uint`."""


@dataclass(frozen=True)
class Type:
    name: str


@dataclass(frozen=True)
class Quantity:
    value: Fraction


@dataclass(frozen=True)
class Optional:
    """A value that may not be there."""

    value: Any = None
    present: bool = False


NAMES: tuple[tuple[type, str], ...] = (
    (bool, "bool"), (UInt, "uint"), (int, "int"), (float, "double"), (str, "string"), (bytes, "bytes"),
    (list, "list"), (dict, "map"), (type(None), "null_type"), (datetime, "google.protobuf.Timestamp"),
    (timedelta, "google.protobuf.Duration"), (Type, "type"), (Optional, "optional_type"),
    (Quantity, "kubernetes.Quantity"),
)  # fmt: skip


def type_name(value: Any) -> str:
    return next((name for kind, name in NAMES if isinstance(value, kind)), type(value).__name__.lower())


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(left: Any, right: Any, budget: Budget) -> bool:
    """Values of different types are not equal, numbers compare by what they are."""
    budget.spend()
    if number(left) and number(right):
        return bool(left == right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(equal(a, b, budget) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key], budget) for key in left)
    if isinstance(left, str | bytes):
        budget.spend(len(left) // 64)
    return type_name(left) == type_name(right) and bool(left == right)


def _no_overload(operator: str, *values: Any) -> CelError:
    return CelError(f"no such overload: {operator}({', '.join(type_name(value) for value in values)})")


def ordered(operator: str, left: Any, right: Any) -> bool:
    same = (number(left) and number(right)) or (
        type_name(left) == type_name(right) and isinstance(left, str | bytes | bool | datetime | timedelta)
    )
    if not same:
        raise _no_overload(operator, left, right)
    return _ORDER[operator](left, right)


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def contains(item: Any, owner: Any, budget: Budget) -> bool:
    if isinstance(owner, dict):
        return not isinstance(item, list | dict) and item in owner
    if isinstance(owner, list):
        return any(equal(item, one, budget) for one in owner)
    raise _no_overload("in", item, owner)


def arithmetic(operator: str, left: Any, right: Any, budget: Budget) -> Any:
    if operator == "+" and isinstance(left, str | bytes | list) and type_name(left) == type_name(right):
        budget.spend((len(left) + len(right)) // 16)
        return left + right
    if isinstance(left, datetime | timedelta) or isinstance(right, datetime | timedelta):
        return _times(operator, left, right)
    if not (number(left) and number(right)) or type_name(left) != type_name(right):
        raise _no_overload(operator, left, right)
    if isinstance(left, float):
        return _doubles(operator, left, right)
    return _whole(operator, left, right)


def _times(operator: str, left: Any, right: Any) -> Any:
    try:
        if operator == "+":
            return left + right
        if operator == "-":
            return left - right
    except (TypeError, OverflowError) as error:
        raise _no_overload(operator, left, right) from error
    raise _no_overload(operator, left, right)


def _doubles(operator: str, left: float, right: float) -> float:
    try:
        if operator == "/":
            return left / right if right else math.nan if not left else math.copysign(math.inf, left)
        if operator != "%":
            return {"+": left + right, "-": left - right, "*": left * right}[operator]
    except OverflowError as error:
        raise CelError("number overflow") from error
    raise _no_overload(operator, left, right)


def _whole(operator: str, left: int, right: int) -> int:
    if operator in "/%":
        if right == 0:
            raise CelError("division by zero" if operator == "/" else "modulus by zero")
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        found = quotient if operator == "/" else left - quotient * right
    else:
        found = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return in_range(found, unsigned=isinstance(left, UInt))


def in_range(value: int, *, unsigned: bool = False) -> int:
    if unsigned:
        if not 0 <= value < 2**64:
            raise CelError("unsigned integer overflow")
        return UInt(value)
    if not LOW <= value <= HIGH:
        raise CelError("integer overflow")
    return int(value)


def negated(value: Any) -> Any:
    if isinstance(value, float):
        return -value
    if number(value) and not isinstance(value, UInt):
        return in_range(-value)
    raise _no_overload("-", value)
