"""Strategy of Service: defaults, what an update keeps of what was allocated, what goes with the type.

Source: kubernetes/pkg/apis/core/v1/defaults.go and pkg/registry/core/service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, StatusStrategy
from cuboid.kube.validate_service import (
    exposed,
    headless,
    needs_health_port,
    validate_balancer_status,
    validate_service,
    validate_service_change,
)

_AFFINITY_SECONDS = 10_800
_WITH_ADDRESS = ("ClusterIP", "LoadBalancer", "NodePort")
_WITH_NODE_PORTS = ("LoadBalancer", "NodePort")
_OF_ADDRESS = ("clusterIP", "clusterIPs")
_OF_FAMILIES = ("ipFamilies", "ipFamilyPolicy")


class ServiceStrategy(StatusStrategy):
    name_rule = staticmethod(syntax.dns_1035_label)

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {"loadBalancer": {}}

    def default(self, new: Object) -> None:
        spec: dict[str, Any] = new.setdefault("spec", {})
        for key, value in (("type", "ClusterIP"), ("sessionAffinity", "None")):
            spec[key] = spec.get(key) or value
        _default_affinity(spec)
        for port in spec.get("ports", []):
            port["protocol"] = port.get("protocol") or "TCP"
            port["targetPort"] = port.get("targetPort") or port.get("port", 0)
        if exposed(spec):
            spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
        if spec["type"] == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
        _same_addresses(spec)
        if spec["type"] != "ExternalName":
            spec.setdefault("internalTrafficPolicy", "Cluster")
            _default_families(spec)

    def prepare_update(self, new: Object, old: Object) -> None:
        spec, before = new.setdefault("spec", {}), old.get("spec", {})
        spec["type"] = spec.get("type") or "ClusterIP"
        _keep_allocated(spec, before)
        _drop_of_other_type(spec, before)
        super().prepare_update(new, old)

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_service(new["spec"], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_service_change(new["spec"], old.get("spec", {}), fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        validate_balancer_status(new.get("status", {}), new.get("spec", {}), fields)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        spec = document.get("spec", {})
        own = {f"spec.{key}": spec.get(key, "") for key in ("clusterIP", "type")}
        return {**super().selectable(document), **own}


def _default_affinity(spec: Object) -> None:
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", _AFFINITY_SECONDS)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)


def _same_addresses(spec: Object) -> None:
    """`clusterIP` is the first of `clusterIPs`, whichever of them the client gave."""
    if not spec.get("clusterIP"):
        spec.pop("clusterIP", None)
        if spec.get("clusterIPs"):
            spec["clusterIP"] = spec["clusterIPs"][0]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]


def _default_families(spec: Object) -> None:
    free = headless(spec) and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = "RequireDualStack" if free and len(spec.get("ipFamilies", [])) != 1 else "SingleStack"
    families = spec["ipFamilies"] = spec.get("ipFamilies") or [_family(spec.get("clusterIP", ""))]
    if free and len(families) == 1 and spec["ipFamilyPolicy"] != "SingleStack":
        families.append("IPv4" if families == ["IPv6"] else "IPv6")


def _family(address: str) -> str:
    try:
        return f"IPv{ipaddress.ip_address(address).version}"
    except ValueError:
        return "IPv4"


def _keep_allocated(spec: Object, before: Object) -> None:
    """Who replaces a service need not repeat what was allocated for it."""
    if spec["type"] in _WITH_ADDRESS and before.get("type") in _WITH_ADDRESS:
        if not spec.get("clusterIP") and not spec.get("clusterIPs"):
            _take(spec, before, _OF_ADDRESS)
        elif spec.get("clusterIP") and spec.get("clusterIPs") in (None, [], before.get("clusterIPs")):
            spec["clusterIPs"] = [spec["clusterIP"], *before.get("clusterIPs", [])[1:]]
        for key in _OF_FAMILIES:
            if not spec.get(key):
                _take(spec, before, (key,))
    if spec["type"] in _WITH_NODE_PORTS and before.get("type") in _WITH_NODE_PORTS:
        known = {_port_key(port): port.get("nodePort") for port in before.get("ports", [])}
        given = {port.get("nodePort") for port in spec.get("ports", [])}
        for port in spec.get("ports", []):
            kept = known.get(_port_key(port))
            if not port.get("nodePort") and kept and kept not in given:
                port["nodePort"] = kept
    if not spec.get("healthCheckNodePort") and needs_health_port(spec) and needs_health_port(before):
        _take(spec, before, ("healthCheckNodePort",))


def _take(spec: Object, before: Object, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key in before:
            value = before[key]
            spec[key] = list(value) if isinstance(value, list) else value


def _port_key(port: Object) -> tuple[str, int]:
    return port.get("protocol") or "TCP", port.get("port", 0)


def _drop_of_other_type(spec: Object, before: Object) -> None:
    """What a client repeats of the former type, though the new one can not have it."""
    kind = spec["type"]
    if kind == before.get("type"):
        if before.get("healthCheckNodePort") and not needs_health_port(spec):
            _drop(spec, before, ("healthCheckNodePort",))
        return
    if kind not in _WITH_ADDRESS:
        _drop(spec, before, (*_OF_ADDRESS, *_OF_FAMILIES, "internalTrafficPolicy"))
    if kind not in _WITH_NODE_PORTS:
        known = {_port_key(port): port.get("nodePort") for port in before.get("ports", [])}
        for port in spec.get("ports", []):
            if port.get("nodePort") == known.get(_port_key(port)):
                port.pop("nodePort", None)
        if not exposed(spec):
            _drop(spec, before, ("externalTrafficPolicy",))
    if kind != "LoadBalancer":
        _drop(spec, before, ("healthCheckNodePort", "allocateLoadBalancerNodePorts", "loadBalancerClass"))
    if kind != "ExternalName":
        _drop(spec, before, ("externalName",))


def _drop(spec: Object, before: Object, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key in spec and spec[key] == before.get(key):
            del spec[key]
