"""Pods through their sub-resources: added ephemeral containers, and resources that change while they run.

Rules and words: kubernetes/pkg/apis/core/validation, `ValidatePodEphemeralContainersUpdate` and `ValidatePodResize`.
"""

from __future__ import annotations

import re
from typing import Any

from cuboid.kube.fields import Fields
from cuboid.kube.kind import Kind
from cuboid.kube.pod_defaults import default_pod
from cuboid.kube.qos import qos_class
from cuboid.kube.validate_pod import validate_pod_spec

Object = dict[str, Any]
RESIZED = ("cpu", "memory")
_LISTS = ("containers", "initContainers")
_DEBUG = "ephemeralContainers"
_NOT_FOR_DEBUG = (
    "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy",
)  # fmt: skip
_ADDED = re.compile(r"^spec\.containers\[(\d+)\]")


# --- ephemeral containers --------------------------------------------------------------------------------------------


def prepare_debug(new: Object, old: Object) -> None:
    """Only `spec.ephemeralContainers` is written."""
    added = new.get("spec", {}).get(_DEBUG, [])
    _as_before(new, old)
    new["spec"] = {key: value for key, value in old["spec"].items() if key != _DEBUG}
    if added:
        new["spec"][_DEBUG] = added
    default_pod(new)


def validate_debug(kind: Kind, new: Object, old: Object, fields: Fields) -> None:
    before = {item["name"]: item for item in old["spec"].get(_DEBUG, [])}
    after = new["spec"].get(_DEBUG, [])
    named = {item.get("name", ""): item for item in after}
    for name, item in before.items():
        if name not in named:
            fields.forbidden(f"spec.{_DEBUG}", f'existing ephemeral containers "{name}" may not be removed')
        elif named[name] != item:
            fields.forbidden(f"spec.{_DEBUG}", f'existing ephemeral containers "{name}" may not be changed')
    for index, item in enumerate(after):
        if item.get("name") not in before:
            _validate_added(item, f"spec.{_DEBUG}[{index}]", new["spec"], fields)
    _validate_as_containers(new["spec"], fields)


def _validate_added(item: Object, path: str, spec: Object, fields: Fields) -> None:
    for key in _NOT_FOR_DEBUG:
        if item.get(key):
            fields.forbidden(f"{path}.{key}", "cannot be set for an Ephemeral Container")
    if any(c["name"] == item.get("name") for c in spec.get("initContainers", [])):
        fields.duplicate(f"{path}.name", item["name"])
    target = item.get("targetContainerName", "")
    if target and all(c["name"] != target for kind in _LISTS for c in spec.get(kind, [])):
        fields.not_found(f"{path}.targetContainerName", target)


def _validate_as_containers(spec: Object, fields: Fields) -> None:
    """What holds for every container; errors of the others were answered when they came."""
    plain = [{k: v for k, v in item.items() if k not in _NOT_FOR_DEBUG} for item in spec.get(_DEBUG, [])]
    count = len(spec["containers"])
    found = Fields()
    whole = {**spec, "containers": [*spec["containers"], *plain]}
    whole.pop(_DEBUG, None)
    validate_pod_spec(whole, found)
    for error in found.errors:
        match = _ADDED.match(error.path)
        if match and int(match[1]) >= count:
            where = f"spec.{_DEBUG}[{int(match[1]) - count}]{error.path[match.end() :]}"
            fields.errors.append(type(error)(error.type, where, error.text))


# --- resize ----------------------------------------------------------------------------------------------------------


def prepare_resize(new: Object, old: Object) -> None:
    """Only resources and resize policies of containers are written; their order is compared by `validate_resize`."""
    asked = new.get("spec", {})
    _as_before(new, old)
    spec = dict(old["spec"])
    for kind in _LISTS:
        if kind in spec or kind in asked:
            known = {item["name"]: item for item in spec.get(kind, [])}
            spec[kind] = [_resized(item, known.get(item.get("name", ""))) for item in asked.get(kind, [])]
    new["spec"] = spec
    default_pod(new)


def _resized(item: Object, old: Object | None) -> Object:
    if old is None:
        return item
    rest = {key: value for key, value in old.items() if key not in ("resources", "resizePolicy")}
    return {**rest, **{key: item[key] for key in ("resources", "resizePolicy") if key in item}}


def validate_resize(kind: Kind, new: Object, old: Object, fields: Fields) -> None:
    after, before = new["spec"], old["spec"]
    for name in _LISTS:
        if [c.get("name") for c in after.get(name, [])] != [c.get("name") for c in before.get(name, [])]:
            fields.forbidden(f"spec.{name}", f"{name} may not be renamed or reordered on resize")
            return
    for name in _LISTS:
        for index, (now, was) in enumerate(zip(after.get(name, []), before.get(name, []), strict=True)):
            path = f"spec.{name}[{index}].resources"
            if name == "initContainers" and was.get("restartPolicy") != "Always":
                if now.get("resources") != was.get("resources"):
                    fields.forbidden(path, "resources for non-sidecar init containers are immutable")
            else:
                _validate_kept(now.get("resources", {}), was.get("resources", {}), path, fields)
    if qos_class(after) != qos_class(before):
        fields.invalid("spec", qos_class(after), "Pod QOS Class may not change as a result of resizing")
    if _without_resized(after) != _without_resized(before):
        fields.forbidden("spec", "only cpu and memory resources are mutable")
    validate_pod_spec({key: value for key, value in after.items() if key != _DEBUG}, fields)


def _validate_kept(now: Object, was: Object, path: str, fields: Fields) -> None:
    for key in ("limits", "requests"):
        if any(name in was.get(key, {}) and name not in now.get(key, {}) for name in RESIZED):
            fields.forbidden(f"{path}.{key}", f"resource {key} cannot be removed")


def _without_resized(spec: Object) -> Object:
    rest = dict(spec)
    for kind in _LISTS:
        rest[kind] = [_fixed(item) for item in spec.get(kind, [])]
    return rest


def _fixed(container: Object) -> Object:
    resources = dict(container.get("resources", {}))
    for key in ("limits", "requests"):
        resources[key] = {name: value for name, value in resources.get(key, {}).items() if name not in RESIZED}
    return {**container, "resources": resources}


def _as_before(new: Object, old: Object) -> None:
    """All but the spec, and of the metadata what says which version is meant."""
    metadata = dict(old["metadata"])
    new.clear()
    new.update(old)
    new["metadata"] = metadata
