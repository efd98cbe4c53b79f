"""How `kubectl get` prints services and their endpoints. Source: kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from cuboid.kube.columns import PLAIN, Column, age
from cuboid.kube.printing.templates import NONE, labels

Raw = Mapping[str, Any]
_NAME, _AGE = PLAIN
_SHOWN = 3
"""Of a list that may be long."""

SERVICE = (
    _NAME, Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)"), _AGE,
    Column("Selector", priority=1),
)  # fmt: skip


def service(document: Raw, now: float) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec", {})
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
    return [
        metadata["name"], spec.get("type", ""), addresses[0] or NONE, _outside(document, spec), _ports(spec),
        age(metadata.get("creationTimestamp"), now), labels(spec.get("selector")),
    ]  # fmt: skip


def _outside(document: Raw, spec: Raw) -> str:
    given = list(spec.get("externalIPs", []))
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") != "LoadBalancer":
        return ",".join(given) or NONE
    ways = document.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    led = {way.get("ip") or way.get("hostname") or "" for way in ways} - {""}
    return ",".join([*sorted(led), *given]) or "<pending>"


def _ports(spec: Raw) -> str:
    shown = []
    for port in spec.get("ports", []):
        outside = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port', 0)}{outside}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


ENDPOINTS = (_NAME, Column("Endpoints"), _AGE)


def endpoints(document: Raw, now: float) -> list[Any]:
    metadata = document["metadata"]
    found = [text for subset in document.get("subsets", []) for text in _of_subset(subset)]
    return [metadata["name"], _some(found, NONE), age(metadata.get("creationTimestamp"), now)]


def _of_subset(subset: Raw) -> Iterable[str]:
    addresses = [item.get("ip", "") for item in subset.get("addresses", [])]
    ports = subset.get("ports", [])
    if not ports:
        return addresses
    return [_joined(address, port.get("port", 0)) for port in ports for address in addresses]


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


SLICE = (_NAME, Column("AddressType"), Column("Ports"), Column("Endpoints"), _AGE)


def endpoint_slice(document: Raw, now: float) -> list[Any]:
    metadata = document["metadata"]
    ports = [str(port.get("port") or port.get("name") or "*") for port in document.get("ports", [])]
    found = [address for endpoint in document.get("endpoints", []) for address in endpoint.get("addresses", [])]
    return [
        metadata["name"], document.get("addressType", ""), _some(ports, "<unset>"), _some(found, "<unset>"),
        age(metadata.get("creationTimestamp"), now),
    ]  # fmt: skip


def _some(items: list[str], empty: str) -> str:
    text = ",".join(islice(items, _SHOWN)) or empty
    return f"{text} + {len(items) - _SHOWN} more..." if len(items) > _SHOWN else text
