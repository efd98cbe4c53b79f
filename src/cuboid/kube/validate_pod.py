"""Validation of a pod's spec, with Kubernetes' field paths and words.

Source: kubernetes/pkg/apis/core/validation. What a virtual machine can not share with its host is refused as well.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_container import validate_containers
from cuboid.kube.validate_meta import validate_annotations, validate_labels
from cuboid.kube.validate_resources import validate_pod_resources, validate_resources
from cuboid.kube.validate_scheduling import validate_scheduling
from cuboid.kube.validate_security import validate_pod_security
from cuboid.kube.validate_volumes import validate_volumes

Raw = dict[str, Any]
_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_MAX_SECONDS = 2**31 - 1
_MAX_SEARCH = 2048
_PREEMPTION = ("Never", "PreemptLowerPriority")


def validate_pod_spec(spec: Raw, fields: Fields) -> None:
    """`spec` has its defaults already."""
    _enum(spec, "restartPolicy", _RESTART, "spec", fields)
    _enum(spec, "dnsPolicy", _DNS, "spec", fields)
    for key in ("hostIPC", "hostNetwork", "hostPID"):
        if spec.get(key):
            fields.forbidden(f"spec.{key}", "a pod is a virtual machine and shares no namespace with the host")
    if spec.get("resourceClaims"):
        fields.forbidden("spec.resourceClaims", "Cuboid has no dynamic resource allocation")
    volumes = validate_volumes(spec.get("volumes", []), "spec.volumes", fields)
    validate_containers(spec, volumes, fields)
    if "resources" in spec:
        validate_pod_resources(spec, fields)
    _validate_numbers(spec, fields)
    _validate_names(spec, fields)
    _validate_dns(spec, fields)
    validate_pod_security(spec.get("securityContext", {}), "spec.securityContext", fields)
    validate_scheduling(spec, fields)
    _validate_aliases(spec.get("hostAliases", []), fields)
    _validate_rest(spec, fields)


def validate_pod_birth(spec: Raw, fields: Fields) -> None:
    """What a pod gets later, and not when it is created."""
    if spec.get("ephemeralContainers"):
        fields.forbidden("spec.ephemeralContainers", "cannot be set on create")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        fields.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")


def validate_template(template: Raw, path: str, fields: Fields) -> None:
    """A template of pods, with its defaults, at `path`."""
    part, metadata = fields.under(path), template.get("metadata", {})
    validate_labels(metadata.get("labels", {}), "labels", part)
    validate_annotations(metadata.get("annotations", {}), "annotations", part)
    spec = template.get("spec", {})
    if spec.get("ephemeralContainers"):
        part.forbidden("spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
    validate_pod_spec(spec, part)


def _enum(holder: Raw, key: str, known: tuple[str, ...], path: str, fields: Fields) -> None:
    if key in holder and holder[key] not in known:
        fields.unsupported(f"{path}.{key}", holder[key], known)


def _validate_numbers(spec: Raw, fields: Fields) -> None:
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_SECONDS:
        fields.invalid("spec.activeDeadlineSeconds", deadline, f"must be between 1 and {_MAX_SECONDS}, inclusive")
    fields.negative("spec.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))


def _validate_names(spec: Raw, fields: Fields) -> None:
    for key, rule in (
        ("nodeName", syntax.dns_subdomain),
        ("serviceAccountName", syntax.dns_subdomain),
        ("hostname", syntax.dns_label),
        ("subdomain", syntax.dns_label),
        ("runtimeClassName", syntax.dns_subdomain),
        ("priorityClassName", syntax.dns_subdomain),
    ):
        if value := spec.get(key):
            fields.all_invalid(f"spec.{key}", value, rule(value))
    for index, reference in enumerate(spec.get("imagePullSecrets", [])):
        if not reference.get("name"):
            fields.required(f"spec.imagePullSecrets[{index}].name")


def _validate_dns(spec: Raw, fields: Fields) -> None:
    config = spec.get("dnsConfig", {})
    servers, searches = config.get("nameservers", []), config.get("searches", [])
    path = "spec.dnsConfig"
    if spec.get("dnsPolicy") == "None" and "dnsConfig" not in spec:
        fields.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
        return
    if spec.get("dnsPolicy") == "None" and not servers:
        fields.required(f"{path}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > 3:
        fields.invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        fields.all_invalid(f"{path}.nameservers[{index}]", server, syntax.ip_address(server))
    if len(searches) > 32:
        fields.invalid(f"{path}.searches", searches, "must not have more than 32 search paths")
    if len(" ".join(searches)) > _MAX_SEARCH:
        why = f"must not have more than {_MAX_SEARCH} characters (including spaces) in the search list"
        fields.invalid(f"{path}.searches", searches, why)
    for index, search in enumerate(searches):
        if search != ".":
            cleaned = search.removesuffix(".").replace("_", "-")
            fields.all_invalid(f"{path}.searches[{index}]", search, syntax.dns_subdomain(cleaned))
    for index, option in enumerate(config.get("options", [])):
        if not option.get("name"):
            fields.required(f"{path}.options[{index}]", "must not be empty")


def _validate_aliases(aliases: list[Raw], fields: Fields) -> None:
    for index, alias in enumerate(aliases):
        path = f"spec.hostAliases[{index}]"
        fields.all_invalid(f"{path}.ip", alias.get("ip", ""), syntax.ip_address(alias.get("ip", "")))
        for place, host in enumerate(alias.get("hostnames", [])):
            fields.all_invalid(f"{path}.hostnames[{place}]", host, syntax.dns_subdomain(host))


def _validate_rest(spec: Raw, fields: Fields) -> None:
    for index, gate in enumerate(spec.get("readinessGates", [])):
        name = gate.get("conditionType", "")
        fields.all_invalid(f"spec.readinessGates[{index}].conditionType", name, syntax.qualified_name(name))
    _enum(spec, "preemptionPolicy", _PREEMPTION, "spec", fields)
    if "overhead" in spec:
        validate_resources({"limits": spec["overhead"]}, "spec.overhead", fields)
    if "os" in spec:
        name = spec["os"].get("name", "")
        if not name:
            fields.required("spec.os.name", "cannot be empty")
        elif name != "linux":
            fields.unsupported("spec.os.name", name, ("linux",))
