"""What a CNI plugin answers: the result of ADD, and errors. Hostile until parsed."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from cuboid.lib.errors import (
    CuboidError,
    ExhaustedError,
    HostileError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.net.base import Route
from cuboid.net.cni import strict

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")  # whose results have this form
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
_WHAT = "the CNI result"


@dataclass(frozen=True)
class Interface:
    name: str
    mac: str
    sandbox: str  # path of the namespace, "" for an interface of the host


@dataclass(frozen=True)
class Address:
    address: str  # CIDR
    gateway: str
    interface: int | None  # index in `interfaces`


@dataclass(frozen=True)
class RouteTo:
    destination: str  # CIDR
    gateway: str


@dataclass(frozen=True)
class Dns:
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class CniResult:
    version: str
    interfaces: tuple[Interface, ...]
    addresses: tuple[Address, ...]
    routes: tuple[RouteTo, ...]
    dns: Dns
    raw: dict[str, Any] = field(default_factory=dict)  # for `prevResult`, exactly as it came

    def gateway_for(self, destination: str) -> str:
        """The gateway of the address of the same family: what a route without one means."""
        family = ipaddress.ip_network(destination).version
        own = (a.gateway for a in self.addresses if ipaddress.ip_interface(a.address).version == family)
        return next((gateway for gateway in own if gateway), "")


def parse_result(data: bytes) -> CniResult:
    """Parse the output of an ADD, or a `prevResult`. HostileError says what is wrong with it."""
    raw = strict.decode(data, _WHAT)
    version = strict.text(raw, "cniVersion", _WHAT)
    if version not in VERSIONS:
        raise HostileError(f"{_WHAT} has version {version!r}, not one of {', '.join(VERSIONS)}")
    interfaces = tuple(_interface(item) for item in strict.objects(raw, "interfaces", _WHAT, 64))
    return CniResult(
        version=version,
        interfaces=interfaces,
        addresses=tuple(_address(item, len(interfaces)) for item in strict.objects(raw, "ips", _WHAT, 64)),
        routes=tuple(_route(item) for item in strict.objects(raw, "routes", _WHAT, 1024)),
        dns=_dns(raw.get("dns")),
        raw=raw,
    )


def pod_addresses(result: CniResult) -> tuple[str, ...]:
    """The addresses of the pod's side, IPv4 first. InvalidError if there are none."""
    own = []
    for address in result.addresses:
        if address.interface is None or result.interfaces[address.interface].sandbox:
            own.append(address.address)
    if not own:
        raise InvalidError("the network gave the pod no address", hint="its configuration needs an `ipam`")
    return tuple(sorted(own, key=lambda text: ipaddress.ip_interface(text).version))


def pod_routes(result: CniResult) -> tuple[Route, ...]:
    """The guest's routes; one without a gateway takes its family's."""
    return tuple(
        Route(route.destination, route.gateway or result.gateway_for(route.destination)) for route in result.routes
    )


def _interface(item: dict[str, Any]) -> Interface:
    name = strict.text(item, "name", _WHAT)
    if not _INTERFACE.fullmatch(name):
        raise HostileError(f"{_WHAT} names the interface {name!r}")
    mac = strict.text(item, "mac", _WHAT)
    if mac and not _MAC.fullmatch(mac):
        raise HostileError(f"{_WHAT} holds the hardware address {mac!r}")
    return Interface(name, mac.lower(), strict.text(item, "sandbox", _WHAT, limit=4096))


def _address(item: dict[str, Any], interfaces: int) -> Address:
    index = item.get("interface")
    if index is not None and (type(index) is not int or not 0 <= index < interfaces):
        raise HostileError(f"an address in {_WHAT} belongs to no interface of it")
    return Address(_cidr(strict.text(item, "address", _WHAT)), _ip(strict.text(item, "gateway", _WHAT)), index)


def _route(item: dict[str, Any]) -> RouteTo:
    destination = _cidr(strict.text(item, "dst", _WHAT))
    return RouteTo(str(ipaddress.ip_interface(destination).network), _ip(strict.text(item, "gw", _WHAT)))


def _dns(item: Any) -> Dns:
    if item is None:
        return Dns()
    if not isinstance(item, dict):
        raise HostileError(f"dns in {_WHAT} is not an object")
    nameservers = tuple(_ip(address) for address in strict.texts(item, "nameservers", _WHAT, 16))
    domain = strict.text(item, "domain", _WHAT)
    search = strict.texts(item, "search", _WHAT, 32) or ((domain,) if domain else ())
    return Dns(nameservers, search, strict.texts(item, "options", _WHAT, 32))


def _cidr(value: str) -> str:
    try:
        if "/" not in value or "%" in value:
            raise ValueError("no prefix length, or a zone")
        return str(ipaddress.ip_interface(value))
    except ValueError as error:
        raise HostileError(f"{_WHAT} holds {value!r}, which is not an address with a prefix length") from error


def _ip(value: str) -> str:
    try:
        if "%" in value:
            raise ValueError("a zone")
        return str(ipaddress.ip_address(value)) if value else ""
    except ValueError as error:
        raise HostileError(f"{_WHAT} holds {value!r}, which is not an IP address") from error


# Codes of the specification's section "Error"; 50 and 51 are STATUS' (1.1.0). All others are a plugin's own.
_CLASSES: dict[int, type[CuboidError]] = {
    1: UnsupportedError,  # incompatible CNI version
    2: InvalidError,  # unsupported field in the configuration
    3: NotFoundError,  # container unknown: nothing to clean up
    4: InvalidError,  # invalid environment
    5: UnavailableError,  # I/O failure
    6: InvalidError,  # content could not be decoded
    7: InvalidError,  # invalid network configuration
    11: UnavailableError,  # try again later
    50: UnavailableError,
    51: UnavailableError,
}
_EXHAUSTED = ("no ip addresses available", "no more ips", "range set is exhausted", "no available ip")


def parse_error(plugin: str, command: str, data: bytes, stderr: bytes) -> CuboidError:
    """The error that a plugin reported by exit code ≠ 0. Its output need not make sense."""
    try:
        answer = strict.decode(data, "the CNI error")
    except HostileError:
        answer = {}
    code = answer.get("code")
    code = code if type(code) is int else 999
    text = strict.readable(answer.get("msg")) or strict.readable(stderr.decode(errors="replace")) or "it gave no reason"
    details = strict.readable(answer.get("details"))
    kind = _CLASSES.get(code, UnavailableError)
    if any(words in text.lower() for words in _EXHAUSTED):
        kind = ExhaustedError
    return kind(
        f"the CNI plugin {plugin} failed in {command} with code {code}: {text}",
        hint=details,
        reason="" if kind is not UnavailableError else "NetworkPluginFailed",
    )
