"""What the names of services mean. Pure over a view of the API's objects.

Source: the specification "Kubernetes DNS-Based Service Discovery". A name of another tenant's is answered like one that
does not exist, so that nobody learns of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Raw = Mapping[str, Any]
TTL = 5
"""Seconds that an answer may be kept."""
PORT_PREFIX = "_"


class Directory(Protocol):
    """The objects that names are made of."""

    def service(self, namespace: str, name: str) -> Raw | None: ...

    def slices(self, namespace: str, service: str) -> Sequence[Raw]:
        """Its EndpointSlices."""
        ...

    def by_address(self, address: str) -> Sequence[Raw]:
        """Services with this cluster IP."""
        ...

    def pod_exists(self, namespace: str, address: str) -> bool: ...


@dataclass(frozen=True)
class Record:
    """`type` is A, CNAME, SRV or PTR; `data` in the text form of zone files."""

    name: str
    type: str
    data: str


@dataclass(frozen=True)
class Found:
    """`exists` False is NXDOMAIN; without records the name has none of the wanted type."""

    exists: bool
    records: tuple[Record, ...] = ()
    extra: tuple[Record, ...] = ()


NOTHING = Found(False)


class Zone:
    """`domain` without dots at its ends, like all names here; they are compared in lower case."""

    def __init__(self, directory: Directory, domain: str) -> None:
        self._directory = directory
        self._domain = domain.lower()

    def holds(self, name: str) -> bool:
        """Whether a name is for us to answer; reverse names are asked with `reverse` first."""
        return name == self._domain or name.endswith(f".{self._domain}")

    def find(self, name: str, type_: str, visible: Collection[str] | None) -> Found:
        """`visible` are the namespaces whose names the asker may know, None for all."""
        inner = name[: -len(self._domain) - 1] if name != self._domain else ""
        labels = inner.split(".") if inner else []
        if not labels or labels == ["svc"] or labels == ["pod"]:
            return Found(True)
        kind, *rest = reversed(labels)
        if not rest or kind not in ("svc", "pod"):
            return NOTHING
        namespace, *rest = rest
        if visible is not None and namespace not in visible and (kind, namespace, rest) != ("svc", "default", [_API]):
            return NOTHING
        if kind == "pod":
            return self._pod(name, type_, namespace, rest)
        return self._service(name, type_, namespace, rest)

    def reverse(self, address: str, name: str, visible: Collection[str] | None) -> Found:
        """The name behind an address of ours; NOTHING if it is none."""
        for service in self._directory.by_address(address):
            namespace = service["metadata"]["namespace"]
            if visible is None or namespace in visible or (namespace, service["metadata"]["name"]) == ("default", _API):
                return Found(True, (Record(name, "PTR", f"{self._name(service)}."),))
        return NOTHING

    def _name(self, service: Raw) -> str:
        metadata = service["metadata"]
        return f"{metadata['name']}.{metadata['namespace']}.svc.{self._domain}"

    def _pod(self, name: str, type_: str, namespace: str, rest: list[str]) -> Found:
        """`10-77-0-5.NAMESPACE.pod.DOMAIN`, of a pod that is there."""
        if len(rest) != 1:
            return NOTHING
        address = rest[0].replace("-", ".")
        if not _is_address(address) or not self._directory.pod_exists(namespace, address):
            return NOTHING
        return Found(True, (Record(name, "A", address),) if type_ == "A" else ())

    def _service(self, name: str, type_: str, namespace: str, rest: list[str]) -> Found:
        if not rest:
            return Found(True)
        service_name, *front = rest
        service = self._directory.service(namespace, service_name)
        if service is None:
            return NOTHING
        spec = service.get("spec", {})
        if spec.get("type") == "ExternalName":
            return NOTHING if front else Found(True, (Record(name, "CNAME", f"{spec.get('externalName', '')}."),))
        headless = spec.get("clusterIP") == "None"
        slices: Sequence[Raw] = self._directory.slices(namespace, service_name) if headless or len(front) == 1 else []
        if not front:
            addresses = _addresses(slices, "") if headless else [spec.get("clusterIP", "")]
            return _addressed(name, type_, addresses)
        if len(front) == 1:
            addresses = _addresses(slices, front[0]) if not front[0].startswith(PORT_PREFIX) else []
            return _addressed(name, type_, addresses) if addresses else NOTHING
        if len(front) == 2 and all(part.startswith(PORT_PREFIX) for part in front):
            return self._ports(name, type_, service, front[1][1:], front[0][1:], namespace)
        return NOTHING

    def _ports(self, name: str, type_: str, service: Raw, port: str, protocol: str, namespace: str) -> Found:
        """`_PORT._PROTOCOL.SERVICE…`: SRV records, with the addresses of the hosts they name."""
        spec = service["spec"]
        wanted = [
            item
            for item in spec.get("ports") or ()
            if (item.get("name") or "").lower() == port and item.get("protocol", "TCP").lower() == protocol
        ]
        if not wanted:
            return NOTHING
        base = self._name(service)
        hosts: list[tuple[str, str, int]] = []  # host, address, port
        if spec.get("clusterIP") != "None":
            hosts = [(base, spec.get("clusterIP", ""), item["port"]) for item in wanted]
        else:
            for item in self._directory.slices(namespace, service["metadata"]["name"]):
                numbers = [p["port"] for p in item.get("ports") or () if (p.get("name") or "").lower() == port]
                for endpoint in _ready(item):
                    address = endpoint["addresses"][0]
                    host = endpoint.get("hostname") or address.replace(".", "-")
                    hosts += [(f"{host}.{base}", address, number) for number in numbers if number]
        if type_ != "SRV":
            return Found(bool(hosts))
        share = 100 // len(hosts) if hosts else 0
        return Found(
            bool(hosts),
            tuple(Record(name, "SRV", f"0 {share} {number} {host}.") for host, _, number in hosts),
            tuple(dict.fromkeys(Record(host, "A", address) for host, address, _ in hosts)),
        )


_API = "kubernetes"


def _is_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def _ready(item: Raw) -> Iterable[Raw]:
    if item.get("addressType", "IPv4") != "IPv4":
        return []
    return [
        endpoint
        for endpoint in item.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses")
    ]


def _addresses(slices: Iterable[Raw], hostname: str) -> list[str]:
    """Of all that are ready, or of the one with this host name (its address with dashes will do as well)."""
    return [
        endpoint["addresses"][0]
        for item in slices
        for endpoint in _ready(item)
        if not hostname
        or hostname in ((endpoint.get("hostname") or "").lower(), endpoint["addresses"][0].replace(".", "-"))
    ]


def _addressed(name: str, type_: str, addresses: Iterable[str]) -> Found:
    usable = sorted({address for address in addresses if _is_address(address)})
    if not usable:
        return NOTHING
    return Found(True, tuple(Record(name, "A", address) for address in usable) if type_ == "A" else ())
