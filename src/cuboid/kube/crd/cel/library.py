"""Functions that Kubernetes adds to CEL: addresses, networks, URLs, quantities; and optional values."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cuboid.kube import quantity as quantities
from cuboid.kube.crd.cel.functions import (
    FUNCTIONS,
    METHODS,
    Function,
    has_part,
    method,
    part,
    text_only,
)
from cuboid.kube.crd.cel.values import Budget, CelError, Optional, Quantity, in_range
from cuboid.lib.errors import CuboidError


def _succeeds(make: Function) -> Function:
    def check(budget: Budget, value: Any) -> bool:
        try:
            make(budget, value)
        except (CuboidError, ValueError):
            return False
        return True

    return check


def _named(name: str, make: Callable[[Any], Any]) -> Function:
    """A constructor, whose complaint names what it makes."""

    def construct(budget: Budget, value: Any) -> Any:
        text_only(budget, value)
        try:
            return make(value)
        except (CuboidError, ValueError) as error:
            raise CelError(f"{name} parse error during conversion from string: {error}") from error

    return construct


def _url(value: str) -> Any:
    found = urlsplit(value)
    if not (found.scheme or value.startswith("/")) or " " in value:
        raise ValueError("not an absolute URI or path")
    _ = found.port
    return found


def _network(value: str) -> Any:
    if "/" not in value:
        raise ValueError("no prefix length")
    return ipaddress.ip_network(value, strict=False)


def _quantity(value: str) -> Quantity:
    return Quantity(Fraction(quantities.parse(value)))


for _name, _check, _make in (
    ("url", "isURL", _url),
    ("ip", "isIP", ipaddress.ip_address),
    (
        "cidr",
        "isCIDR",
        lambda value: ipaddress.ip_network(value, strict=False) if "/" in value else ipaddress.ip_network(""),
    ),
    ("quantity", "isQuantity", _quantity),
):
    FUNCTIONS[_name] = _named(_name, _make)
    FUNCTIONS[_check] = _succeeds(FUNCTIONS[_name])
FUNCTIONS["ip.isCanonical"] = lambda budget, value: str(ipaddress.ip_address(value)) == value
part("getScheme", lambda url: url.scheme)
part("getHost", lambda url: url.netloc.rpartition("@")[2])
part("getHostname", lambda url: url.hostname or "")
part("getPort", lambda url: "" if url.port is None else str(url.port))
part("getEscapedPath", lambda url: url.path)
part("getQuery", lambda url: parse_qs(url.query, keep_blank_values=True))
part("family", lambda address: address.version)
part("isLoopback", lambda address: address.is_loopback)
part("isUnspecified", lambda address: address.is_unspecified)
part("isLinkLocalMulticast", lambda address: address.is_multicast)
part("isGlobalUnicast", lambda address: not (address.is_multicast or address.is_loopback or address.is_unspecified))
part("prefixLength", lambda network: network.prefixlen)
part("masked", lambda network: network)
METHODS["ip"] = lambda budget, network: network.network_address
METHODS["containsIP"] = has_part
METHODS["containsCIDR"] = lambda budget, outer, inner: (
    ipaddress.ip_network(inner) if isinstance(inner, str) else inner
).subnet_of(outer)
part("isInteger", lambda quantity: quantity.value.denominator == 1)
part("asInteger", lambda quantity: in_range(int(quantity.value)))
part("sign", lambda quantity: (quantity.value > 0) - (quantity.value < 0))
METHODS["asApproximateFloat"] = lambda budget, quantity: float(quantity.value)
METHODS["isLessThan"] = lambda budget, left, right: left.value < right.value
METHODS["isGreaterThan"] = lambda budget, left, right: left.value > right.value
METHODS["compareTo"] = lambda budget, left, right: (left.value > right.value) - (left.value < right.value)
METHODS["add"] = lambda budget, left, right: Quantity(left.value + (right if isinstance(right, int) else right.value))
METHODS["sub"] = lambda budget, left, right: Quantity(left.value - (right if isinstance(right, int) else right.value))

# --- optional values -------------------------------------------------------------------------------------------------

FUNCTIONS["optional.of"] = lambda budget, value: Optional(value, True)
FUNCTIONS["optional.none"] = lambda budget: Optional()
FUNCTIONS["optional.ofNonZeroValue"] = lambda budget, value: Optional(value, True) if value else Optional()
METHODS["hasValue"] = lambda budget, optional: optional.present
METHODS["orValue"] = lambda budget, optional, other: optional.value if optional.present else other
METHODS["or"] = lambda budget, optional, other: optional if optional.present else other


@method("value")
def _value(budget: Budget, optional: Optional) -> Any:
    if not optional.present:
        raise CelError("optional.none() dereference")
    return optional.value


NAMESPACES = frozenset(name.partition(".")[0] for name in FUNCTIONS if "." in name)
"""Of all functions: what stands before their dots."""
