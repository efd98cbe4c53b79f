"""Validation of endpoints and of slices of them. Source: kubernetes/pkg/apis/core/validation and apis/discovery."""

from __future__ import annotations

import ipaddress
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.names import API_SERVICE
from cuboid.kube.validate_service import PROTOCOLS, validate_endpoint_address

Raw = dict[str, Any]
ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_MOST_ENDPOINTS, _MOST_PORTS, _MOST_ADDRESSES, _MOST_HINTS = 1000, 20_000, 100, 8
_VERSIONS = {"IPv4": 4, "IPv6": 6}


def validate_endpoints(document: Raw, fields: Fields) -> None:
    for index, subset in enumerate(document.get("subsets", [])):
        path = f"subsets[{index}]"
        ready, others = subset.get("addresses", []), subset.get("notReadyAddresses", [])
        if not ready and not others:
            fields.required(path, "must specify `addresses` or `notReadyAddresses`")
        for key, addresses in (("addresses", ready), ("notReadyAddresses", others)):
            for number, item in enumerate(addresses):
                _validate_item(item, f"{path}.{key}[{number}]", fields, loopback=_is_api(document))
        ports = subset.get("ports", [])
        for number, port in enumerate(ports):
            _validate_port(port, f"{path}.ports[{number}]", fields, named=len(ports) > 1)


def _is_api(document: Raw) -> bool:
    """The server itself may listen on loopback only, and says so. Nobody is led there by its endpoints."""
    metadata = document["metadata"]
    return (metadata.get("namespace"), metadata.get("name")) == API_SERVICE


def _validate_item(item: Raw, path: str, fields: Fields, *, loopback: bool) -> None:
    _validate_address(item.get("ip", ""), f"{path}.ip", fields, loopback=loopback)
    _validate_place(item, path, fields)


def _validate_place(item: Raw, path: str, fields: Fields) -> None:
    if hostname := item.get("hostname"):
        fields.all_invalid(f"{path}.hostname", hostname, syntax.dns_label(hostname))
    if name := item.get("nodeName"):
        fields.all_invalid(f"{path}.nodeName", name, syntax.dns_subdomain(name))


def _validate_address(address: str, path: str, fields: Fields, *, loopback: bool) -> None:
    if loopback and not syntax.ip_address(address) and ipaddress.ip_address(address).is_loopback:
        return
    validate_endpoint_address(address, path, fields)


def _validate_port(port: Raw, path: str, fields: Fields, *, named: bool) -> None:
    if name := port.get("name", ""):
        fields.all_invalid(f"{path}.name", name, syntax.dns_label(name))
    elif named:
        fields.required(f"{path}.name")
    fields.all_invalid(f"{path}.port", port.get("port", 0), syntax.port_number(port.get("port", 0)))
    _validate_protocol(port, path, fields)


def _validate_protocol(port: Raw, path: str, fields: Fields) -> None:
    if port["protocol"] not in PROTOCOLS:
        fields.unsupported(f"{path}.protocol", port["protocol"], PROTOCOLS)
    if application := port.get("appProtocol"):
        fields.all_invalid(f"{path}.appProtocol", application, syntax.qualified_name(application))


# --- slices ----------------------------------------------------------------------------------------------------------


def validate_slice(document: Raw, fields: Fields) -> None:
    kind = document.get("addressType", "")
    if not kind:
        fields.required("addressType")
    elif kind not in ADDRESS_TYPES:
        fields.unsupported("addressType", kind, ADDRESS_TYPES)
    endpoints, ports = document.get("endpoints", []), document.get("ports", [])
    if len(endpoints) > _MOST_ENDPOINTS:
        fields.too_many("endpoints", len(endpoints), _MOST_ENDPOINTS)
        return
    for index, endpoint in enumerate(endpoints):
        _validate_endpoint(endpoint, f"endpoints[{index}]", kind, fields, loopback=_is_api(document))
    if len(ports) > _MOST_PORTS:
        fields.too_many("ports", len(ports), _MOST_PORTS)
        return
    names: set[str] = set()
    for index, port in enumerate(ports):
        name, path = port.get("name", ""), f"ports[{index}]"
        if name:
            fields.all_invalid(f"{path}.name", name, syntax.dns_label(name))
        if name in names:
            fields.duplicate(f"{path}.name", name)
        names.add(name)
        if "port" in port:
            fields.all_invalid(f"{path}.port", port["port"], syntax.port_number(port["port"]))
        _validate_protocol(port, path, fields)


def _validate_endpoint(endpoint: Raw, path: str, kind: str, fields: Fields, *, loopback: bool) -> None:
    addresses = endpoint.get("addresses", [])
    if not addresses:
        fields.required(f"{path}.addresses", "must contain at least 1 address")
    elif len(addresses) > _MOST_ADDRESSES:
        fields.too_many(f"{path}.addresses", len(addresses), _MOST_ADDRESSES)
    for index, address in enumerate(addresses[:_MOST_ADDRESSES]):
        where = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            fields.all_invalid(where, address, syntax.dns_subdomain(address.removesuffix(".")))
            if "." not in address.removesuffix("."):
                fields.invalid(where, address, "should be a domain with at least two segments separated by dots")
        elif kind in _VERSIONS:
            if not _is_version(address, _VERSIONS[kind]):
                fields.invalid(where, address, f"must be a valid {kind} address")
            else:
                _validate_address(address, where, fields, loopback=loopback)
    _validate_place(endpoint, path, fields)
    hints = endpoint.get("hints", {})
    for key in ("forZones", "forNodes"):
        if len(hints.get(key, [])) > _MOST_HINTS:
            fields.too_many(f"{path}.hints.{key}", len(hints[key]), _MOST_HINTS)
        for index, hint in enumerate(hints.get(key, [])[:_MOST_HINTS]):
            name = hint.get("name", "")
            problems = syntax.label_value(name) if key == "forZones" else syntax.dns_subdomain(name)
            fields.all_invalid(f"{path}.hints.{key}[{index}].name", name, problems)


def _is_version(address: str, version: int) -> bool:
    return not syntax.ip_address(address) and ipaddress.ip_address(address).version == version
