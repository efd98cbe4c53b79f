"""Which cluster addresses and node ports services have, and which one a new service gets.

Pure memory, as large as what is taken. The lower part of each range is left to those who choose their own, as in
Kubernetes: what is chosen by hand then seldom is what somebody got by chance.
Source of the behaviour: kubernetes/pkg/registry/core/service/{ipallocator,portallocator}.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube.names import api_service_ip, dns_service_ip
from cuboid.lib.errors import InvalidError

Raw = Mapping[str, Any]
NODE_PORTS = range(30_000, 32_768)
_SMALLEST = 30
"""Longest prefix of a range: two addresses."""


@dataclass(frozen=True)
class Pool:
    """Whole numbers that can be had, of which `static` are the lowest."""

    numbers: range
    static: int

    def choose(self, taken: Callable[[int], bool], pick: random.Random) -> int | None:
        """A free one by chance, if possible above the static part; None when all are taken."""
        for part in (self.numbers[self.static :], self.numbers[: self.static]):
            start = pick.randrange(len(part)) if part else 0
            free = (number for number in itertools.chain(part[start:], part[:start]) if not taken(number))
            if (found := next(free, None)) is not None:
                return found
        return None


def settled(subnet: str) -> frozenset[int]:
    """Never allocated by chance: where pods find the API and their resolver."""
    return frozenset(int(ipaddress.IPv4Address(text)) for text in (api_service_ip(subnet), dns_service_ip(subnet)))


def address_pool(subnet: str) -> Pool:
    """Of a range like `10.96.0.0/16`, without its first and last address. InvalidError for what is no such range."""
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise InvalidError(
            f"[server] service_subnet: {subnet!r} is not an IPv4 network", hint="such as 10.96.0.0/16"
        ) from error
    if network.prefixlen > _SMALLEST:
        raise InvalidError(f"[server] service_subnet: {subnet} is too small", hint="a /24 holds 254 services")
    first, size = int(network.network_address) + 1, network.num_addresses - 2
    return Pool(range(first, first + size), min(max(16, network.num_addresses // 16), 256) if size > 32 else 0)


PORT_POOL = Pool(NODE_PORTS, min(max(16, len(NODE_PORTS) // 32), 128))


def addresses_of(spec: Raw) -> list[str]:
    """Addresses that a service has of its own."""
    if spec.get("type") == "ExternalName":
        return []
    given = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
    return [text for text in given if text and text != "None"]


def node_ports_of(spec: Raw) -> list[int]:
    ports = [port.get("nodePort", 0) for port in spec.get("ports") or ()] + [spec.get("healthCheckNodePort", 0)]
    return [port for port in ports if port]


class Claims:
    """Numbers and how often each is claimed: by a service that exists, and by a write that is under way."""

    def __init__(self) -> None:
        self._count: dict[int, int] = {}

    def __contains__(self, number: object) -> bool:
        return number in self._count

    def __iter__(self) -> Iterator[int]:
        return iter(self._count)

    def add(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._count[number] = self._count.get(number, 0) + 1

    def remove(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            left = self._count.get(number, 0) - 1
            if left > 0:
                self._count[number] = left
            else:
                self._count.pop(number, None)
