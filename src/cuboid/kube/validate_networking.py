"""Validation of ingresses and network policies. Source: kubernetes/pkg/apis/networking/validation."""

from __future__ import annotations

import ipaddress
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_selectors import validate_selector
from cuboid.kube.validate_service import PROTOCOLS

Raw = dict[str, Any]
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_POLICY_TYPES = ("Egress", "Ingress")
_BAD_IN_PATH = ("//", "/./", "/../", "%2f", "%2F")


def validate_ingress(spec: Raw, fields: Fields) -> None:
    rules = spec.get("rules", [])
    if not rules and "defaultBackend" not in spec:
        fields.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified")
    if "defaultBackend" in spec:
        _validate_backend(spec["defaultBackend"], "spec.defaultBackend", fields)
    for index, rule in enumerate(rules):
        path = f"spec.rules[{index}]"
        if rule.get("host"):
            _validate_host(rule["host"], f"{path}.host", fields)
        if "http" in rule:
            _validate_paths(rule["http"].get("paths", []), f"{path}.http.paths", fields)
    for index, item in enumerate(spec.get("tls", [])):
        for number, host in enumerate(item.get("hosts", [])):
            _validate_host(host, f"spec.tls[{index}].hosts[{number}]", fields)
        if name := item.get("secretName"):
            fields.all_invalid(f"spec.tls[{index}].secretName", name, syntax.dns_subdomain(name))
    if (name := spec.get("ingressClassName")) is not None:
        fields.all_invalid("spec.ingressClassName", name, syntax.dns_subdomain(name))


def _validate_host(host: str, path: str, fields: Fields) -> None:
    if not syntax.ip_address(host):
        fields.invalid(path, host, "must be a DNS name, not an IP address")
    if host.startswith("*"):
        if not host.startswith("*.") or syntax.dns_subdomain(host[2:]):
            why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain"
            fields.invalid(path, host, why)
    else:
        fields.all_invalid(path, host, syntax.dns_subdomain(host))


def _validate_paths(paths: list[Raw], path: str, fields: Fields) -> None:
    if not paths:
        fields.required(path)
    for index, item in enumerate(paths):
        where, kind, url = f"{path}[{index}]", item.get("pathType", ""), item.get("path", "")
        if not kind:
            fields.required(f"{where}.pathType", "pathType must be specified")
        elif kind not in _PATH_TYPES:
            fields.unsupported(f"{where}.pathType", kind, _PATH_TYPES)
        elif kind != "ImplementationSpecific":
            if not url.startswith("/"):
                fields.invalid(f"{where}.path", url, "must be an absolute path")
            for bad in _BAD_IN_PATH:
                if bad in url:
                    fields.invalid(f"{where}.path", url, f"must not contain '{bad}'")
        elif url and not url.startswith("/"):
            fields.invalid(f"{where}.path", url, "must be an absolute path")
        _validate_backend(item.get("backend", {}), f"{where}.backend", fields)


def _validate_backend(backend: Raw, path: str, fields: Fields) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        fields.invalid(path, "", "cannot set both resource and service backends")
    elif resource is not None:
        for key in ("kind", "name"):
            if not resource.get(key):
                fields.required(f"{path}.resource.{key}")
    elif service is None:
        fields.required(path, "must specify either a service or a resource backend")
    else:
        name, port = service.get("name", ""), service.get("port", {})
        if not name:
            fields.required(f"{path}.service.name")
        else:
            fields.all_invalid(f"{path}.service.name", name, syntax.dns_1035_label(name))
        _validate_backend_port(port, f"{path}.service", fields)


def _validate_backend_port(port: Raw, path: str, fields: Fields) -> None:
    name, number = port.get("name", ""), port.get("number", 0)
    if name and number:
        fields.invalid(path, "", "cannot set both port name & port number")
    elif name:
        fields.all_invalid(f"{path}.port.name", name, syntax.port_name(name))
    elif number:
        fields.all_invalid(f"{path}.port.number", number, syntax.port_number(number))
    else:
        fields.required(path, "port name or number is required")


def validate_ingress_class(spec: Raw, fields: Fields) -> None:
    name = spec.get("controller", "")
    if not name:
        fields.required("spec.controller")
    elif "/" not in name:
        fields.invalid("spec.controller", name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    elif len(name) > 250:
        fields.too_long("spec.controller", 250)
    else:
        fields.all_invalid("spec.controller", name, syntax.dns_subdomain(name.partition("/")[0]))
    parameters = spec.get("parameters")
    if parameters is None:
        return
    for key in ("kind", "name"):
        if not parameters.get(key):
            fields.required(f"spec.parameters.{key}", f"{key} is required")
    scope = parameters["scope"]
    if scope not in ("Cluster", "Namespace"):
        fields.unsupported("spec.parameters.scope", scope, ("Cluster", "Namespace"))
    elif scope == "Namespace" and not parameters.get("namespace"):
        fields.required("spec.parameters.namespace", "`parameters.scope` is set to 'Namespace'")
    elif scope == "Cluster" and parameters.get("namespace"):
        fields.forbidden("spec.parameters.namespace", "`parameters.scope` is set to 'Cluster'")


# --- policies --------------------------------------------------------------------------------------------------------


def validate_policy(spec: Raw, fields: Fields) -> None:
    validate_selector(spec.get("podSelector"), "spec.podSelector", fields)
    for key, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(key, [])):
            path = f"spec.{key}[{index}]"
            for number, port in enumerate(rule.get("ports", [])):
                _validate_policy_port(port, f"{path}.ports[{number}]", fields)
            for number, peer in enumerate(rule.get(side, [])):
                _validate_peer(peer, f"{path}.{side}[{number}]", fields)
    types = spec.get("policyTypes", [])
    if len(types) > len(_POLICY_TYPES):
        fields.invalid("spec.policyTypes", types, "may not specify more than two policyTypes")
    for index, kind in enumerate(types):
        if kind not in _POLICY_TYPES:
            fields.unsupported(f"spec.policyTypes[{index}]", kind, _POLICY_TYPES)


def _validate_policy_port(port: Raw, path: str, fields: Fields) -> None:
    if port["protocol"] not in PROTOCOLS:
        fields.unsupported(f"{path}.protocol", port["protocol"], PROTOCOLS)
    number, last = port.get("port"), port.get("endPort")
    if isinstance(number, int):
        fields.all_invalid(f"{path}.port", number, syntax.port_number(number))
        if last is not None and last < number:
            fields.invalid(f"{path}.endPort", last, "must be greater than or equal to `port`")
    elif number is not None:
        fields.all_invalid(f"{path}.port", number, syntax.port_name(number))
        if last is not None:
            fields.invalid(f"{path}.endPort", last, "may not be specified when `port` is non-numeric")
    elif last is not None:
        fields.invalid(f"{path}.endPort", last, "may not be specified when `port` is not specified")
    if last is not None:
        fields.all_invalid(f"{path}.endPort", last, syntax.port_number(last))


def _validate_peer(peer: Raw, path: str, fields: Fields) -> None:
    for key in ("podSelector", "namespaceSelector"):
        validate_selector(peer.get(key), f"{path}.{key}", fields)
    if not peer:
        fields.required(path, "must specify a peer")
    if "ipBlock" in peer:
        if len(peer) > 1:
            fields.forbidden(path, "may not specify both ipBlock and another peer")
        _validate_block(peer["ipBlock"], f"{path}.ipBlock", fields)


def _validate_block(block: Raw, path: str, fields: Fields) -> None:
    whole = _network(block.get("cidr", ""), f"{path}.cidr", fields)
    for index, text in enumerate(block.get("except", [])):
        where = f"{path}.except[{index}]"
        part = _network(text, where, fields)
        if part is None or whole is None:
            continue
        inside = part.version == whole.version and part.prefixlen > whole.prefixlen
        if not inside or part.network_address not in whole:
            fields.invalid(where, text, "must be a strict subset of `cidr`")


def _network(text: str, path: str, fields: Fields) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not text:
        fields.required(path)
        return None
    try:
        if "/" in text:
            return ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    fields.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
    return None
