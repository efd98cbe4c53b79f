"""The `format` of strings and numbers in schemas. Formats that Kubernetes does not know are not checked.

Source: k8s.io/kube-openapi/pkg/validation/strfmt, and apiextensions-apiserver's list of supported formats.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from cuboid.kube.crd import patterns
from cuboid.lib.clock import parse_rfc3339

RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
"""Of integers."""
_HOST = r"^([a-zA-Z0-9_]|[a-zA-Z0-9_][a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])(\.([a-zA-Z0-9_-]{1,63}))*\.?$"
_EMAIL = r"^[^@\s<>()]+@[^@\s<>()]+$"
_DURATION = r"^(-?\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d|w)?)+$"
_UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
_MAC = r"^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2}|([0-9A-Fa-f]{2}[:-]){2}[0-9A-Fa-f]{2})$"
_DATE = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"
_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_PATTERNS = {
    "hostname": _HOST,
    "email": _EMAIL,
    "duration": _DURATION,
    "uuid": _UUID,
    "uuid3": _UUID,
    "uuid4": _UUID,
    "uuid5": _UUID,
    "mac": _MAC,
    "date": _DATE,
    "k8s-short-name": _NAME,
    "bsonobjectid": r"^[0-9a-fA-F]{24}$",
    "hexcolor": r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$",
}


def _succeeds(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _uri(text: str) -> str:
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")):
        raise ValueError("no scheme")
    return text


_CHECKS: dict[str, Callable[[str], bool]] = {
    "date-time": _succeeds(parse_rfc3339),
    "datetime": _succeeds(parse_rfc3339),
    "ipv4": _succeeds(ipaddress.IPv4Address),
    "ipv6": _succeeds(ipaddress.IPv6Address),
    "cidr": _succeeds(lambda text: ipaddress.ip_interface(text) if "/" in text else ipaddress.IPv4Address("")),
    "byte": _succeeds(lambda text: base64.b64decode(text, validate=True)),
    "uri": _succeeds(_uri),
}


def fits(name: str, text: str) -> bool:
    if (pattern := _PATTERNS.get(name)) is not None:
        return patterns.found(pattern, text)
    check = _CHECKS.get(name)
    return check is None or check(text)
