"""Validation of a pod's spec and of its changes, with Kubernetes' field paths and words.

Source: kubernetes/pkg/apis/core/validation. What a virtual machine can not share with its host is refused as well.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_container import validate_containers
from cuboid.kube.validate_meta import validate_annotations, validate_labels
from cuboid.kube.validate_volumes import validate_volumes

Raw = dict[str, Any]
_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_TOLERATION = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_SYSCTL = re.compile(r"([a-z0-9][-_a-z0-9]*[./])*[a-z0-9][-_a-z0-9]*", re.ASCII)
_MAX_ID = 2**31 - 1
_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod_spec(spec: Raw, fields: Fields) -> None:
    """`spec` has its defaults already."""
    _enum(spec, "restartPolicy", _RESTART, "spec", fields)
    _enum(spec, "dnsPolicy", _DNS, "spec", fields)
    for key in ("hostIPC", "hostNetwork", "hostPID"):
        if spec.get(key):
            fields.forbidden(f"spec.{key}", "a pod is a virtual machine and shares no namespace with the host")
    volumes = validate_volumes(spec.get("volumes", []), "spec.volumes", fields)
    validate_containers(spec, volumes, fields)
    _validate_numbers(spec, fields)
    _validate_names(spec, fields)
    _validate_dns(spec, fields)
    _validate_security(spec.get("securityContext", {}), "spec.securityContext", fields)
    _validate_tolerations(spec.get("tolerations", []), fields)
    _validate_aliases(spec.get("hostAliases", []), fields)


def validate_template(template: Raw, path: str, fields: Fields) -> None:
    """A template of pods, with its defaults, at `path`."""
    part, metadata = fields.under(path), template.get("metadata", {})
    validate_labels(metadata.get("labels", {}), "labels", part)
    validate_annotations(metadata.get("annotations", {}), "annotations", part)
    spec = template.get("spec", {})
    if spec.get("ephemeralContainers"):
        part.forbidden("spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
    validate_pod_spec({key: value for key, value in spec.items() if key != "ephemeralContainers"}, part)


def _enum(holder: Raw, key: str, known: tuple[str, ...], path: str, fields: Fields) -> None:
    if key in holder and holder[key] not in known:
        fields.unsupported(f"{path}.{key}", holder[key], known)


def _validate_numbers(spec: Raw, fields: Fields) -> None:
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_ID:
        fields.invalid("spec.activeDeadlineSeconds", deadline, f"must be between 1 and {_MAX_ID}, inclusive")
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        fields.invalid("spec.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")


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
    for key, value in spec.get("nodeSelector", {}).items():
        fields.all_invalid("spec.nodeSelector", key, syntax.qualified_name(key))
        fields.all_invalid("spec.nodeSelector", value, syntax.label_value(value))
    for index, reference in enumerate(spec.get("imagePullSecrets", [])):
        if not reference.get("name"):
            fields.required(f"spec.imagePullSecrets[{index}].name")


def _validate_dns(spec: Raw, fields: Fields) -> None:
    config = spec.get("dnsConfig", {})
    servers, searches = config.get("nameservers", []), config.get("searches", [])
    path = "spec.dnsConfig"
    if spec.get("dnsPolicy") == "None" and not servers:
        fields.required(f"{path}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > 3:
        fields.invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        fields.all_invalid(f"{path}.nameservers[{index}]", server, syntax.ip_address(server))
    if len(searches) > 32:
        fields.invalid(f"{path}.searches", searches, "must not have more than 32 search paths")
    if len(" ".join(searches)) > 2048:
        fields.invalid(f"{path}.searches", searches, "must not have more than 2048 characters (including spaces)")
    for index, search in enumerate(searches):
        if search != ".":
            cleaned = search.removesuffix(".").replace("_", "-")
            fields.all_invalid(f"{path}.searches[{index}]", search, syntax.dns_subdomain(cleaned))
    for index, option in enumerate(config.get("options", [])):
        if not option.get("name"):
            fields.required(f"{path}.options[{index}]", "must not be empty")


def _validate_security(context: Raw, path: str, fields: Fields) -> None:
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(key)
        if value is not None and not 0 <= value <= _MAX_ID:
            fields.invalid(f"{path}.{key}", value, f"must be between 0 and {_MAX_ID}, inclusive")
    for index, group in enumerate(context.get("supplementalGroups", [])):
        if not 0 <= group <= _MAX_ID:
            fields.invalid(f"{path}.supplementalGroups[{index}]", group, f"must be between 0 and {_MAX_ID}, inclusive")
    _enum(context, "fsGroupChangePolicy", ("Always", "OnRootMismatch"), path, fields)
    seen = set()
    for index, sysctl in enumerate(context.get("sysctls", [])):
        name = sysctl.get("name", "")
        where = f"{path}.sysctls[{index}].name"
        if not name:
            fields.required(where)
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            fields.invalid(where, name, f"must have at most 253 characters and match regex ^{_SYSCTL.pattern}$")
        elif name in seen:
            fields.duplicate(where, name)
        seen.add(name)


def _validate_tolerations(tolerations: list[Raw], fields: Fields) -> None:
    for index, item in enumerate(tolerations):
        path = f"spec.tolerations[{index}]"
        key, operator = item.get("key", ""), item.get("operator", "Equal") or "Equal"
        if key:
            fields.all_invalid(f"{path}.key", key, syntax.qualified_name(key))
        elif operator != "Exists":
            fields.invalid(
                f"{path}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if operator not in ("Equal", "Exists"):
            fields.unsupported(f"{path}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and item.get("value"):
            fields.invalid(f"{path}.operator", item, "value must be empty when `operator` is 'Exists'")
        if item.get("effect") and item["effect"] not in _TOLERATION:
            fields.unsupported(f"{path}.effect", item["effect"], _TOLERATION)
        if item.get("tolerationSeconds") is not None and item.get("effect") != "NoExecute":
            fields.invalid(
                f"{path}.effect", item.get("effect", ""), "effect must be 'NoExecute' when `tolerationSeconds` is set"
            )


def _validate_aliases(aliases: list[Raw], fields: Fields) -> None:
    for index, alias in enumerate(aliases):
        path = f"spec.hostAliases[{index}]"
        fields.all_invalid(f"{path}.ip", alias.get("ip", ""), syntax.ip_address(alias.get("ip", "")))
        for place, host in enumerate(alias.get("hostnames", [])):
            fields.all_invalid(f"{path}.hostnames[{place}]", host, syntax.dns_subdomain(host))


# --- change ----------------------------------------------------------------------------------------------------------


def validate_pod_change(new: Raw, old: Raw, fields: Fields) -> None:
    """All but images, an earlier deadline and more tolerations is fixed."""
    after, before = new.get("spec", {}), old.get("spec", {})
    for kind in ("containers", "initContainers"):
        if len(after.get(kind, [])) != len(before.get(kind, [])):
            fields.forbidden(f"spec.{kind}", "pod updates may not add or remove containers")
            return
    _validate_deadline(after, before, fields)
    if not _only_added(after.get("tolerations", []), before.get("tolerations", [])):
        fields.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    if _without_changeable(after) != _without_changeable(before):
        fields.forbidden("spec", _CHANGE)


def _validate_deadline(after: Raw, before: Raw, fields: Fields) -> None:
    new, old = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if old is None or new == old:
        return
    path = "spec.activeDeadlineSeconds"
    if new is None:
        fields.invalid(path, new, "must not update from a positive integer to nil value")
    elif new > old:
        fields.invalid(path, new, "must be less than or equal to previous value")


def _only_added(after: list[Raw], before: list[Raw]) -> bool:
    def identity(item: Raw) -> Raw:
        return {key: value for key, value in item.items() if key != "tolerationSeconds"}

    return all(identity(item) in [identity(other) for other in after] for item in before)


def _without_changeable(spec: Raw) -> Raw:
    rest = copy.copy(spec)
    rest.pop("activeDeadlineSeconds", None)
    rest.pop("tolerations", None)
    for kind in ("containers", "initContainers"):
        rest[kind] = [{**container, "image": ""} for container in spec.get(kind, [])]
    return rest
