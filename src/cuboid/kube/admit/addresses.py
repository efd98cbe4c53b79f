"""Services get the addresses and node ports that they need, and no two the same, however many are created at once.

What exists is counted as the watch cache learns of it; what a write under way takes is counted until it has ended. So
an address is free again when its service is gone from the cache, and no allocator is stored anywhere.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from typing import Any

from cuboid.kube import kinds, service_addresses, status
from cuboid.kube.admission import Release, Request
from cuboid.kube.admit.plug import CREATE, UPDATE, Plug
from cuboid.kube.cache import decode
from cuboid.kube.fields import Fields
from cuboid.kube.names import API_SERVICE, DNS_SERVICE
from cuboid.kube.registry import Registry
from cuboid.kube.service_addresses import NODE_PORTS, PORT_POOL, Claims, address_pool, addresses_of, settled
from cuboid.kube.store import Event, Key
from cuboid.kube.validate_service import headless, needs_health_port

Object = dict[str, Any]
SERVICES = ("", "services")
_SERVICE = kinds.builtin("Service")
_TAKEN = "provided IP is already allocated"


class ServiceAddresses(Plug):
    """`subnet` is the range of addresses, as `10.96.0.0/16`."""

    about = (SERVICES,)
    operations = (CREATE, UPDATE)

    def __init__(self, registry: Registry, *, subnet: str, pick: random.Random | None = None) -> None:
        self._subnet = subnet
        self._pool = address_pool(subnet)
        self._settled = settled(subnet)
        self._pick = pick or random.SystemRandom()
        self._addresses, self._ports = Claims(), Claims()
        self._held: dict[Key, tuple[list[int], set[int]]] = {}  # addresses and ports of what exists
        for entry in registry.of(_SERVICE):
            self._put(entry.key, entry.object())
        registry.cache.listen(self._saw)

    def _saw(self, events: Sequence[Event]) -> None:
        for event in events:
            if (event.key.group, event.key.resource) == SERVICES:
                self._put(event.key, None if event.type == "DELETED" else decode(event.value))

    def _put(self, key: Key, document: Object | None) -> None:
        addresses, ports = self._held.pop(key, ([], set()))
        self._addresses.remove(addresses)
        self._ports.remove(ports)
        if document is not None:
            spec = document.get("spec") or {}
            held = (_numbers(addresses_of(spec)), set(service_addresses.node_ports_of(spec)))
            self._held[key] = held
            self._addresses.add(held[0])
            self._ports.add(held[1])

    @property
    def taken(self) -> tuple[set[int], set[int]]:
        """Addresses, as numbers, and ports of nodes: those of services that exist, and of writes under way."""
        return set(self._addresses), set(self._ports)

    def reserve(self, request: Request) -> Release | None:
        if request.new is None:
            return None
        spec: Object = request.new["spec"]
        before: Object = (request.old or {}).get("spec") or {}
        fields = Fields()
        addresses = self._address(request, spec, before, fields)
        ports = self._node_ports(spec, set(service_addresses.node_ports_of(before)), fields)
        if fields.errors:
            raise status.invalid("Service", "", request.new["metadata"].get("name", ""), fields.errors)
        if request.dry_run or not (addresses or ports):
            return None
        self._addresses.add(addresses)
        self._ports.add(ports)

        def release() -> None:
            self._addresses.remove(addresses)
            self._ports.remove(ports)

        return release

    # --- addresses ---------------------------------------------------------------------------------------------------

    def _address(self, request: Request, spec: Object, before: Object, fields: Fields) -> list[int]:
        """What is taken now: chosen, if the service needs an address and names none."""
        if spec["type"] == "ExternalName" or headless(spec):
            return []
        wanted = addresses_of(spec)
        if not wanted:
            found = self._pool.choose(lambda number: number in self._addresses or number in self._settled, self._pick)
            if found is None:
                fields.invalid_part("spec.clusterIPs", "failed to allocate a serviceIP: range is full")
                return []
            spec["clusterIP"] = str(ipaddress.IPv4Address(found))
            spec["clusterIPs"] = [spec["clusterIP"]]
            return [found]
        fresh = [text for text in wanted if text not in addresses_of(before)]
        for text in fresh:
            if why := self._refused(request, text):
                fields.invalid("spec.clusterIPs", wanted, f"failed to allocate IP {text}: {why}")
        return _numbers(fresh)

    def _refused(self, request: Request, text: str) -> str:
        number = int(ipaddress.ip_address(text))
        if number in self._settled:
            own = (request.namespace, request.name) in (API_SERVICE, DNS_SERVICE) and number not in self._addresses
            return "" if own else _TAKEN
        if number not in self._pool.numbers:
            return f"the provided IP ({text}) is not in the valid range. The range of valid IPs is {self._subnet}"
        return _TAKEN if number in self._addresses else ""

    # --- node ports --------------------------------------------------------------------------------------------------

    def _node_ports(self, spec: Object, own: set[int], fields: Fields) -> set[int]:
        """What is taken now. Ports of one number and several protocols get one port of the nodes."""
        taken: set[int] = set()
        for index, port in enumerate(spec.get("ports", [])):
            if number := port.get("nodePort", 0):
                self._ask(number, f"spec.ports[{index}].nodePort", own, taken, fields)
        if spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and spec["allocateLoadBalancerNodePorts"]):
            self._choose_ports(spec.get("ports", []), own, taken, fields)
        if number := spec.get("healthCheckNodePort", 0):
            self._ask(number, "spec.healthCheckNodePort", own, taken, fields)
        elif needs_health_port(spec) and (found := self._free_port(own | taken)) is not None:
            spec["healthCheckNodePort"] = found
            taken.add(found)
        return taken

    def _ask(self, number: int, path: str, own: set[int], taken: set[int], fields: Fields) -> None:
        if number in own:
            return
        if number not in NODE_PORTS:
            shown = f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
            fields.invalid(
                path, number, f"provided port is not in the valid range. The range of valid ports is {shown}"
            )
        elif number in self._ports:
            fields.invalid(path, number, "provided port is already allocated")
        else:
            taken.add(number)

    def _choose_ports(self, ports: list[Object], own: set[int], taken: set[int], fields: Fields) -> None:
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                continue
            others = [other for other in ports if other["port"] == port["port"] and other.get("nodePort")]
            free = [other["nodePort"] for other in others if other["protocol"] != port["protocol"]]
            found = free[0] if free else self._free_port(own | taken)
            if found is None:
                fields.invalid_part(f"spec.ports[{index}].nodePort", "failed to allocate a nodePort: range is full")
                return
            port["nodePort"] = found
            taken |= {found} - own

    def _free_port(self, besides: set[int]) -> int | None:
        return PORT_POOL.choose(lambda number: number in besides or number in self._ports, self._pick)


def _numbers(addresses: list[str]) -> list[int]:
    """Of those that are addresses: an older server took any text."""
    found = []
    for text in addresses:
        try:
            found.append(int(ipaddress.ip_address(text)))
        except ValueError:
            continue
    return found
