"""Resource quantities (`500m`, `1.5Gi`, `1e3`), parsed and written exactly as Kubernetes does.

Source of the grammar and of the canonical form: k8s.io/apimachinery/pkg/api/resource, "Quantity".
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from cuboid.lib.errors import InvalidError

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_GRAMMAR = re.compile(
    r"([+-]?)(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?)|[eE]([+-]?\d{1,3}))", re.ASCII
)
_LARGEST = Fraction(2**63 - 1)
_NANO = 10**9
_LONGEST = 100  # more than the grammar takes


def parse(text: str | int | float) -> Fraction:
    """The exact value. Finer than a nano-unit is rounded away from zero, more than 2^63-1 is capped."""
    value, _ = _read(text)
    return value


def to_int(text: str | int | float) -> int:
    """Whole units (bytes, say), rounded up."""
    return _ceil(parse(text))


def to_millis(text: str | int | float) -> int:
    """Thousandths (CPU), rounded up: `0.1` is 100."""
    return _ceil(parse(text) * 1000)


def canonical(text: str | int | float) -> str:
    """The form that the API server stores: no fraction, the largest suffix that keeps the value (`0.5Gi` → `512Mi`)."""
    return _canonical_text(str(text)[:_LONGEST])


def format_bytes(count: int) -> str:
    """A whole number of bytes with a binary suffix where it is exact: 536870912 is `512Mi`."""
    return _write(Fraction(count), "binary")


def format_millis(count: int) -> str:
    """Thousandths of a core: 1500 is `1500m`, 2000 is `2`."""
    return _write(Fraction(count, 1000), "decimal")


@functools.lru_cache(maxsize=2048)  # objects name the same few amounts again and again; 100 µs each without
def _canonical_text(text: str) -> str:
    return _write(*_read(text))


def _read(text: str | int | float) -> tuple[Fraction, str]:
    return _read_text(str(text)[:_LONGEST])


@functools.lru_cache(maxsize=2048)
def _read_text(text: str) -> tuple[Fraction, str]:
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise InvalidError(
            f"{text[:64]!r} is not a quantity", hint="a number with a suffix like m, k, M, G, Ki, Mi or Gi"
        )
    sign, digits, suffix, exponent = match.groups()
    number = Fraction(digits.removesuffix(".")) * (-1 if sign == "-" else 1)
    value = _round(number * _scale(suffix, exponent))
    family = "exponent" if exponent is not None else "binary" if suffix in _BINARY else "decimal"
    return value, family


def _scale(suffix: str | None, exponent: str | None) -> Fraction:
    if exponent is not None:
        return Fraction(10) ** int(exponent)
    if suffix in _BINARY:
        return Fraction(1024) ** _BINARY[suffix]
    return Fraction(1000) ** _DECIMAL[suffix or ""]


def _round(value: Fraction) -> Fraction:
    nanos = _ceil(abs(value) * _NANO)
    size = min(Fraction(nanos, _NANO), _LARGEST)
    return -size if value < 0 else size


def _ceil(value: Fraction) -> int:
    return -((-value.numerator) // value.denominator)


def _write(value: Fraction, family: str) -> str:
    if value == 0:
        return "0"
    if family == "binary" and (abs(value) < 1024 or value.denominator != 1):
        family = "decimal"
    if family == "binary":
        return _with_suffix(value, 1024, {power: name for name, power in _BINARY.items()} | {0: ""})
    if family == "decimal":
        return _with_suffix(value, 1000, {power: name for name, power in _DECIMAL.items()})
    powers = {power: f"e{3 * power}" if power else "" for power in range(-3, 7)}
    return _with_suffix(value, 1000, powers)


def _with_suffix(value: Fraction, base: int, suffixes: dict[int, str]) -> str:
    for power in sorted(suffixes, reverse=True):
        scaled = value / Fraction(base) ** power
        if scaled.denominator == 1:
            return f"{scaled.numerator}{suffixes[power]}"
    raise InvalidError(f"{value} has no canonical form as a quantity")
