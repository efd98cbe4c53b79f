"""Validation of services, with Kubernetes' field paths and words. Objects have their defaults already.

Source: kubernetes/pkg/apis/core/validation, ValidateService.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_meta import validate_labels

Raw = dict[str, Any]
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
_POLICIES = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_KUBELET_PORT = 10250
_LONGEST_AFFINITY = 86400
_ONCE = "may not change once set"
_RANGES = "spec.LoadBalancerSourceRanges"  # written so by Kubernetes


def headless(spec: Raw) -> bool:
    return bool(spec.get("clusterIP") == "None")


def exposed(spec: Raw) -> bool:
    """Whether it can be reached from outside the cluster."""
    return spec.get("type") in ("LoadBalancer", "NodePort") or (
        spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs"))
    )


def validate_service(spec: Raw, fields: Fields) -> None:
    if spec["type"] not in TYPES:
        fields.unsupported("spec.type", spec["type"], TYPES)
    if not spec.get("ports") and not headless(spec) and spec["type"] != "ExternalName":
        fields.required("spec.ports")
    _validate_type(spec, fields)
    _validate_ports(spec, fields)
    validate_labels(spec.get("selector", {}), "spec.selector", fields)
    _validate_affinity(spec, fields)
    if spec["type"] != "ExternalName":
        _validate_addresses(spec, fields)
        _validate_families(spec, fields)
    for index, address in enumerate(spec.get("externalIPs", [])):
        validate_endpoint_address(address, f"spec.externalIPs[{index}]", fields)
    _validate_balancer(spec, fields)
    _validate_policies(spec, fields)


def validate_endpoint_address(address: str, path: str, fields: Fields) -> None:
    """An address that packets can be sent to: not of this machine, not of a group of machines."""
    if problems := syntax.ip_address(address):
        fields.all_invalid(path, address, problems)
        return
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        fields.invalid(path, address, f"may not be unspecified ({ip})")
    if ip.is_loopback:
        fields.invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if ip.is_link_local:
        fields.invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if ip.is_multicast and ip in _LOCAL_GROUPS[ip.version]:
        fields.invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


_LOCAL_GROUPS = {4: ipaddress.ip_network("224.0.0.0/24"), 6: ipaddress.ip_network("ff02::/16")}


def _validate_type(spec: Raw, fields: Fields) -> None:
    kind = spec["type"]
    if kind in ("LoadBalancer", "NodePort") and headless(spec):
        fields.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind == "LoadBalancer":
        for index, port in enumerate(spec.get("ports", [])):
            if port.get("port") == _KUBELET_PORT:
                why = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
                fields.invalid(f"spec.ports[{index}]", _KUBELET_PORT, why)
    elif kind == "ExternalName":
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key):
                fields.forbidden(f"spec.{key}", "may not be set for ExternalName services")
        if name := spec.get("externalName", "").removesuffix("."):
            fields.all_invalid("spec.externalName", name, syntax.dns_subdomain(name))
        else:
            fields.required("spec.externalName")


# --- ports -----------------------------------------------------------------------------------------------------------


def _validate_ports(spec: Raw, fields: Fields) -> None:
    ports = spec.get("ports", [])
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    on_nodes: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        _validate_port(port, path, fields, named=len(ports) > 1, taken=names)
        if port.get("nodePort"):
            if spec["type"] == "ClusterIP":
                fields.forbidden(f"{path}.nodePort", "may not be used when `type` is 'ClusterIP'")
            key = (port["protocol"], port["nodePort"])
            if key in on_nodes:
                fields.duplicate(f"{path}.nodePort", port["nodePort"])
            on_nodes.add(key)
        own = (port["protocol"], port.get("port", 0))
        if own in numbers:
            fields.duplicate(path, {"protocol": own[0], "port": own[1]})
        numbers.add(own)


def _validate_port(port: Raw, path: str, fields: Fields, *, named: bool, taken: set[str]) -> None:
    if name := port.get("name", ""):
        fields.all_invalid(f"{path}.name", name, syntax.dns_label(name))
        if name in taken:
            fields.duplicate(f"{path}.name", name)
        taken.add(name)
    elif named:
        fields.required(f"{path}.name")
    fields.all_invalid(f"{path}.port", port.get("port", 0), syntax.port_number(port.get("port", 0)))
    if port["protocol"] not in PROTOCOLS:
        fields.unsupported(f"{path}.protocol", port["protocol"], PROTOCOLS)
    target = port["targetPort"]
    problems = syntax.port_number(target) if isinstance(target, int) else syntax.port_name(target)
    fields.all_invalid(f"{path}.targetPort", target, problems)
    if application := port.get("appProtocol"):
        fields.all_invalid(f"{path}.appProtocol", application, syntax.qualified_name(application))


def _validate_affinity(spec: Raw, fields: Fields) -> None:
    affinity, config, path = spec["sessionAffinity"], spec.get("sessionAffinityConfig"), "spec.sessionAffinityConfig"
    if affinity not in ("ClientIP", "None"):
        fields.unsupported("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    elif affinity == "None" and config is not None:
        fields.forbidden(path, "must not be set when session affinity is None")
    elif affinity == "ClientIP":
        seconds = config["clientIP"]["timeoutSeconds"] if config else 0
        if not 0 < seconds <= _LONGEST_AFFINITY:
            why = f"must be greater than 0 and less than {_LONGEST_AFFINITY}"
            fields.invalid(f"{path}.clientIP.timeoutSeconds", seconds, why)


# --- addresses -------------------------------------------------------------------------------------------------------


def _validate_addresses(spec: Raw, fields: Fields) -> None:
    addresses, path = spec.get("clusterIPs", []), "spec.clusterIPs"
    before = len(fields.errors)
    if addresses and addresses[0] != spec.get("clusterIP", ""):
        fields.invalid(path, addresses, "first value must match `clusterIP`")
    for index, address in enumerate(addresses):
        if address == "None":
            if len(addresses) > 1:
                fields.invalid(f"{path}[{index}]", address, "'None' must be the first and only value")
        else:
            fields.all_invalid(f"{path}[{index}]", address, syntax.ip_address(address))
    if len(addresses) > len(_FAMILIES):
        fields.invalid(path, addresses, "may only hold up to 2 values")
    if len(fields.errors) > before or len(addresses) < len(_FAMILIES):
        return
    if len({ipaddress.ip_address(address).version for address in addresses}) == 1:
        fields.invalid(path, addresses, "may specify no more than one IP for each IP family")


def _validate_families(spec: Raw, fields: Fields) -> None:
    """Services have IPv4 addresses; only what has neither an address nor a selector may name other families."""
    policy, families, path = spec["ipFamilyPolicy"], spec["ipFamilies"], "spec.ipFamilies"
    free = headless(spec) and not spec.get("selector")
    if policy not in _FAMILY_POLICIES:
        fields.unsupported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    elif policy == "RequireDualStack" and not free:
        why = "this cluster is not configured for dual-stack services"
        fields.invalid("spec.ipFamilyPolicy", policy, why)
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            fields.unsupported(f"{path}[{index}]", family, _FAMILIES)
        elif family in families[:index]:
            fields.duplicate(f"{path}[{index}]", family)
        elif family == "IPv6" and not free:
            fields.invalid(f"{path}[{index}]", family, "not configured on this cluster")
    for many, word in ((spec.get("clusterIPs", []), "cluster IPs"), (families, "IP families")):
        if len(many) > 1 and policy == "SingleStack":
            why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {word} are specified"
            fields.invalid("spec.ipFamilyPolicy", policy, why)


# --- what only some types have ---------------------------------------------------------------------------------------


def _validate_balancer(spec: Raw, fields: Fields) -> None:
    if spec["type"] == "LoadBalancer":
        for index, block in enumerate(spec.get("loadBalancerSourceRanges", [])):
            if not _is_block(block):
                why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                fields.invalid(f"{_RANGES}[{index}]", block, why)
        if name := spec.get("loadBalancerClass"):
            fields.all_invalid("spec.loadBalancerClass", name, syntax.qualified_name(name))
        return
    for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerSourceRanges"):
        if spec.get(key) not in (None, []):
            path = _RANGES if key == "loadBalancerSourceRanges" else f"spec.{key}"
            fields.forbidden(path, "may only be used when `type` is 'LoadBalancer'")


def _is_block(text: str) -> bool:
    try:
        ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return False
    return "/" in text


def _validate_policies(spec: Raw, fields: Fields) -> None:
    for key in ("externalTrafficPolicy", "internalTrafficPolicy"):
        if key in spec and spec[key] not in _POLICIES and (key == "internalTrafficPolicy" or exposed(spec)):
            fields.unsupported(f"spec.{key}", spec[key], _POLICIES)
    outside = spec.get("externalTrafficPolicy")
    if outside and not exposed(spec):
        fields.invalid("spec.externalTrafficPolicy", outside, "may only be set for externally-accessible services")
    check = spec.get("healthCheckNodePort", 0)
    if check and not needs_health_port(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        fields.invalid("spec.healthCheckNodePort", check, why)
    fields.negative("spec.healthCheckNodePort", check)
    distribution = spec.get("trafficDistribution")
    known = ("PreferClose", "PreferSameNode", "PreferSameZone")
    if distribution is not None and distribution not in known:
        fields.unsupported("spec.trafficDistribution", distribution, known)


def needs_health_port(spec: Raw) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


# --- changes ---------------------------------------------------------------------------------------------------------


def validate_service_change(new: Raw, old: Raw, fields: Fields) -> None:
    if "ExternalName" not in (new["type"], old.get("type")):
        addresses, before = new.get("clusterIPs", []), old.get("clusterIPs", [])
        if before and addresses[:1] != before[:1]:
            fields.invalid("spec.clusterIPs[0]", addresses, _ONCE)
        families, earlier = new["ipFamilies"], old.get("ipFamilies", [])
        if earlier and families[:1] != earlier[:1]:
            fields.invalid("spec.ipFamilies[0]", families, _ONCE)
    both = new["type"] == old.get("type") == "LoadBalancer"
    if both and new.get("loadBalancerClass") != old.get("loadBalancerClass"):
        fields.invalid("spec.loadBalancerClass", new.get("loadBalancerClass", ""), _ONCE)
    ports = new.get("healthCheckNodePort"), old.get("healthCheckNodePort")
    if needs_health_port(new) and needs_health_port(old) and ports[1] and ports[0] != ports[1]:
        fields.forbidden("spec.healthCheckNodePort", "field is immutable")


def validate_balancer_status(status: Raw, spec: Raw | None, fields: Fields) -> None:
    """Of a service with this spec; of an ingress, for which every way in is fine, without."""
    path, ways = "status.loadBalancer.ingress", status.get("loadBalancer", {}).get("ingress", [])
    if ways and spec is not None and spec.get("type") != "LoadBalancer":
        fields.forbidden(path, 'may only be used when `spec.type` is "LoadBalancer"')
        return
    for index, way in enumerate(ways):
        if address := way.get("ip"):
            fields.all_invalid(f"{path}[{index}].ip", address, syntax.ip_address(address))
        if host := way.get("hostname"):
            fields.all_invalid(f"{path}[{index}].hostname", host, syntax.dns_subdomain(host))
            if not syntax.ip_address(host):
                fields.invalid(f"{path}[{index}].hostname", host, "must be a DNS name, not an IP address")
