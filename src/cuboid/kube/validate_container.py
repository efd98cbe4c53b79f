"""Validation of containers: names, images, ports, environment, mounts. Source: kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_probes import PROBES, validate_lifecycle, validate_probe
from cuboid.kube.validate_resources import validate_resize_policy, validate_resources
from cuboid.kube.validate_security import validate_container_security

Raw = dict[str, Any]
_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
    "requests.memory",
)  # fmt: skip
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")
_LASTING = "may not be set for init containers without restartPolicy=Always"


@dataclass(frozen=True)
class PodFacts:
    """What the pod says that matters to its containers. `volumes` are names, each with its kind; `grace` is in
    seconds."""

    volumes: Mapping[str, str]
    grace: int
    restart: str
    host_users: bool


def validate_containers(spec: Raw, volumes: Mapping[str, str], fields: Fields) -> None:
    """`volumes` are the pod's volume names, each with its kind."""
    facts = PodFacts(
        volumes,
        spec.get("terminationGracePeriodSeconds", 30),
        spec.get("restartPolicy", ""),
        spec.get("hostUsers", True),
    )
    if not spec.get("containers"):
        fields.required("spec.containers")
    seen: set[str] = set()
    host_ports: set[tuple[str, int, str]] = set()
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind, [])):
            path = f"spec.{kind}[{index}]"
            _validate_container(container, path, facts, seen, fields)
            _validate_role(container, path, kind == "initContainers", facts, fields)
            used = host_ports if kind == "containers" else set()  # init containers run one after the other
            _validate_ports(container.get("ports", []), f"{path}.ports", used, fields)


def _validate_container(c: Raw, path: str, facts: PodFacts, seen: set[str], fields: Fields) -> None:
    name = c.get("name", "")
    if not name:
        fields.required(f"{path}.name")
    else:
        fields.all_invalid(f"{path}.name", name, syntax.dns_label(name))
        if name in seen:
            fields.duplicate(f"{path}.name", name)
        seen.add(name)
    _validate_image(c.get("image", ""), f"{path}.image", fields)
    _enum(c, "imagePullPolicy", _PULL, path, fields)
    _enum(c, "terminationMessagePolicy", ("FallbackToLogsOnError", "File"), path, fields)
    _validate_env(c.get("env", []), f"{path}.env", fields)
    _validate_env_from(c.get("envFrom", []), f"{path}.envFrom", fields)
    _validate_mounts(c, path, facts.volumes, fields)
    validate_resources(c.get("resources", {}), f"{path}.resources", fields)
    validate_resize_policy(c.get("resizePolicy", []), f"{path}.resizePolicy", facts.restart, fields)
    context = c.get("securityContext", {})
    validate_container_security(context, f"{path}.securityContext", fields, host_users=facts.host_users)


def _enum(holder: Raw, key: str, known: tuple[str, ...], path: str, fields: Fields) -> None:
    if key in holder and holder[key] not in known:
        fields.unsupported(f"{path}.{key}", holder[key], known)


def _validate_image(image: str, path: str, fields: Fields) -> None:
    if not image:
        fields.required(path)
    elif image != image.strip():
        fields.invalid(path, image, "must not have leading or trailing whitespace")


def _validate_role(c: Raw, path: str, is_init: bool, facts: PodFacts, fields: Fields) -> None:
    """What init containers may not have, unless they are sidecars."""
    policy = c.get("restartPolicy")
    if policy is not None and not (is_init and policy == "Always"):
        if is_init:
            fields.unsupported(f"{path}.restartPolicy", policy, ("Always",))
        else:
            fields.forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
    lasting = not is_init or policy == "Always"
    for key in PROBES:
        if key in c and lasting:
            validate_probe(c[key], f"{path}.{key}", key, fields)
        elif key in c:
            fields.forbidden(f"{path}.{key}", _LASTING)
    if "lifecycle" in c and lasting:
        validate_lifecycle(c["lifecycle"], f"{path}.lifecycle", facts.grace, fields)
    elif "lifecycle" in c:
        fields.forbidden(f"{path}.lifecycle", _LASTING)


def _validate_ports(ports: list[Raw], path: str, used: set[tuple[str, int, str]], fields: Fields) -> None:
    seen = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        if name := port.get("name"):
            fields.all_invalid(f"{where}.name", name, syntax.port_name(name))
            if name in seen:
                fields.duplicate(f"{where}.name", name)
            seen.add(name)
        number = port.get("containerPort", 0)
        if number == 0:
            fields.required(f"{where}.containerPort")
        else:
            fields.all_invalid(f"{where}.containerPort", number, syntax.port_number(number))
        _enum(port, "protocol", _PROTOCOLS, where, fields)
        _validate_host_port(port, where, used, fields)


def _validate_host_port(port: Raw, where: str, used: set[tuple[str, int, str]], fields: Fields) -> None:
    if port.get("hostIP"):
        fields.all_invalid(f"{where}.hostIP", port["hostIP"], syntax.ip_address(port["hostIP"]))
    number = port.get("hostPort", 0)
    if not number:
        return
    fields.all_invalid(f"{where}.hostPort", number, syntax.port_number(number))
    identity = (port.get("protocol", "TCP"), number, port.get("hostIP", ""))
    if identity in used:
        fields.duplicate(f"{where}.hostPort", "/".join(str(part) for part in (*identity[:1], identity[2], identity[1])))
    used.add(identity)


def _validate_env(variables: list[Raw], path: str, fields: Fields) -> None:
    for index, variable in enumerate(variables):
        where = f"{path}[{index}]"
        name = variable.get("name", "")
        if not name:
            fields.required(f"{where}.name")
        else:
            fields.all_invalid(f"{where}.name", name, syntax.env_name(name))
        if "valueFrom" in variable:
            _validate_value_from(variable, f"{where}.valueFrom", fields)


def _validate_value_from(variable: Raw, path: str, fields: Fields) -> None:
    sources = [key for key in variable["valueFrom"] if variable["valueFrom"][key] is not None]
    if not sources:
        fields.invalid(
            path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        )
    if variable.get("value") and sources:
        fields.invalid(path, "", "may not be specified when `value` is not empty")
    if len(sources) > 1:
        fields.invalid(path, "", "may not have more than one field specified at a time")
    for key in sources:
        _validate_reference(key, variable["valueFrom"][key], f"{path}.{key}", fields)


def _validate_reference(kind: str, source: Raw, path: str, fields: Fields) -> None:
    if kind == "fieldRef":
        validate_field_ref(source, path, fields)
    elif kind == "resourceFieldRef":
        validate_resource_ref(source, path, fields, needs_container=False)
    elif kind in ("configMapKeyRef", "secretKeyRef"):
        if not source.get("key"):
            fields.required(f"{path}.key")
        else:
            fields.all_invalid(f"{path}.key", source["key"], syntax.config_key(source["key"]))
    else:
        fields.forbidden(path, "Cuboid does not support this source of a variable")


def validate_field_ref(source: Raw, path: str, fields: Fields, known: tuple[str, ...] = _FIELD_PATHS) -> None:
    field = source.get("fieldPath", "")
    base, bracket, key = field.partition("[")
    if not field:
        fields.required(f"{path}.fieldPath")
    elif bracket and base in ("metadata.labels", "metadata.annotations"):
        key = key.removesuffix("]").strip("'\"")
        fields.all_invalid(path, key, syntax.qualified_name(key.lower() if "annot" in base else key))
    elif field not in known:
        fields.unsupported(f"{path}.fieldPath", field, known)


def validate_resource_ref(source: Raw, path: str, fields: Fields, *, needs_container: bool) -> None:
    if needs_container and not source.get("containerName"):
        fields.required(f"{path}.containerName")
    if not source.get("resource"):
        fields.required(f"{path}.resource")
    elif source["resource"] not in _RESOURCES:
        fields.unsupported(f"{path}.resource", source["resource"], _RESOURCES)


def _validate_env_from(sources: list[Raw], path: str, fields: Fields) -> None:
    for index, source in enumerate(sources):
        where = f"{path}[{index}]"
        if source.get("prefix"):
            fields.all_invalid(f"{where}.prefix", source["prefix"], syntax.env_name(source["prefix"]))
        given = [key for key in ("configMapRef", "secretRef") if key in source]
        if len(given) > 1:
            fields.invalid(where, "", "may not have more than one field specified at a time")
        if not given:
            fields.invalid(where, "", "must specify one of: `configMapRef` or `secretRef`")
        for key in given:
            if not source[key].get("name"):
                fields.required(f"{where}.{key}.name")


def _validate_mounts(c: Raw, path: str, volumes: Mapping[str, str], fields: Fields) -> None:
    seen = set()
    for index, mount in enumerate(c.get("volumeMounts", [])):
        where = f"{path}.volumeMounts[{index}]"
        name, target = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            fields.required(f"{where}.name")
        elif name not in volumes:
            fields.not_found(f"{where}.name", name)
        if not target:
            fields.required(f"{where}.mountPath")
        if target in seen:
            fields.invalid(f"{where}.mountPath", target, "must be unique")
        seen.add(target)
        _validate_propagation(mount, where, c.get("securityContext", {}).get("privileged", False), fields)
        for key in ("subPath", "subPathExpr"):
            if mount.get(key):
                validate_relative_path(mount[key], f"{where}.{key}", fields)
        if mount.get("subPath") and mount.get("subPathExpr"):
            fields.invalid(
                f"{where}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
            )
    if c.get("volumeDevices"):
        fields.forbidden(f"{path}.volumeDevices", "Cuboid has no raw block volumes")


def _validate_propagation(mount: Raw, path: str, privileged: bool, fields: Fields) -> None:
    _enum(mount, "mountPropagation", _PROPAGATION, path, fields)
    if mount.get("mountPropagation") == "Bidirectional" and not privileged:
        why = "Bidirectional mount propagation is available only to privileged containers"
        fields.forbidden(f"{path}.mountPropagation", why)
    _enum(mount, "recursiveReadOnly", _RECURSIVE, path, fields)
    if mount.get("recursiveReadOnly", "Disabled") != "Disabled" and not mount.get("readOnly"):
        fields.forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true")


def validate_relative_path(text: str, path: str, fields: Fields) -> None:
    if text.startswith("/"):
        fields.invalid(path, text, "must be a relative path")
    if ".." in text.split("/"):
        fields.invalid(path, text, "must not contain '..'")
