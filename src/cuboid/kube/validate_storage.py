"""Validation of volumes, of claims on them, and of their classes. Objects have their defaults already.

Source: kubernetes/pkg/apis/core/validation and pkg/apis/storage/validation.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import quantity, syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_scheduling import validate_node_selector
from cuboid.kube.validate_selectors import validate_selector

Raw = dict[str, Any]
ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_MODES = ("Block", "Filesystem")
_PLAIN = frozenset((
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
))  # fmt: skip
"""Fields of a volume that say nothing of where it is."""
_MOST_PARAMETERS = 512
_PARAMETER_BYTES = 256 * 1024
_CLAIM_CHANGE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)
_POSITIVE = "must be greater than zero"


def validate_volume(spec: Raw, fields: Fields) -> None:
    _validate_access(spec, "must have at least one access mode", fields)
    capacity = spec.get("capacity", {})
    if not capacity:
        fields.required("spec.capacity")
    elif set(capacity) != {"storage"}:
        fields.unsupported("spec.capacity", capacity, ("storage",))
    else:
        _validate_size(capacity["storage"], "spec.capacity[storage]", fields)
    policy, known = spec["persistentVolumeReclaimPolicy"], ("Delete", "Recycle", "Retain")
    if policy not in known:
        fields.unsupported("spec.persistentVolumeReclaimPolicy", policy, known)
    if (affinity := spec.get("nodeAffinity")) is not None:
        if "required" in affinity:
            validate_node_selector(affinity["required"], "spec.nodeAffinity.required", fields)
        else:
            fields.required("spec.nodeAffinity.required", "must specify required node constraints")
    sources = sources_of(spec)
    if not sources:
        fields.required("spec", "must specify a volume type")
    for name in sources[1:]:
        fields.forbidden(f"spec.{name}", "may not specify more than 1 volume type")
    _validate_source(spec, fields)
    _validate_class(spec, fields)


def sources_of(spec: Raw) -> list[str]:
    return sorted(set(spec) - _PLAIN)


def _validate_source(spec: Raw, fields: Fields) -> None:
    for name, keys in (
        ("csi", ("driver", "volumeHandle")), ("nfs", ("server", "path")), ("hostPath", ("path",)), ("local", ("path",)),
    ):  # fmt: skip
        if name in spec:
            for key in keys:
                if not spec[name].get(key):
                    fields.required(f"spec.{name}.{key}")
    if "nfs" in spec and not spec["nfs"].get("path", "/").startswith("/"):
        fields.invalid("spec.nfs.path", spec["nfs"]["path"], "must be an absolute path")
    for name in ("hostPath", "local"):
        if ".." in spec.get(name, {}).get("path", "").split("/"):
            fields.invalid(f"spec.{name}.path", spec[name]["path"], "must not contain '..'")
    if "local" in spec and "nodeAffinity" not in spec:
        fields.required("spec.nodeAffinity", "Local volume requires node affinity")


def _validate_access(spec: Raw, none: str, fields: Fields) -> None:
    modes = spec.get("accessModes", [])
    if not modes:
        fields.required("spec.accessModes", none)
    for mode in modes:
        if mode not in ACCESS_MODES:
            fields.unsupported("spec.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        fields.forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes")
    if spec["volumeMode"] not in _MODES:
        fields.unsupported("spec.volumeMode", spec["volumeMode"], _MODES)


def _validate_size(amount: str, path: str, fields: Fields) -> None:
    value = quantity.parse(amount)
    if value <= 0:
        fields.invalid(path, amount, _POSITIVE)
    elif value.denominator != 1:
        fields.invalid(path, amount, "must be an integer")


def _validate_class(spec: Raw, fields: Fields) -> None:
    for key in ("storageClassName", "volumeAttributesClassName"):
        if name := spec.get(key):
            fields.all_invalid(f"spec.{key}", name, syntax.dns_subdomain(name))


def validate_volume_change(new: Raw, old: Raw, fields: Fields) -> None:
    if any(new.get(name) != old.get(name) for name in {*sources_of(new), *sources_of(old)}):
        path = "spec.persistentvolumesource"
        fields.forbidden(path, f"{path} is immutable after creation")
    fields.immutable("spec.volumeMode", new["volumeMode"], old.get("volumeMode", "Filesystem"))
    if old.get("nodeAffinity") is not None:
        fields.immutable("spec.nodeAffinity", new.get("nodeAffinity"), old["nodeAffinity"])


# --- claims ----------------------------------------------------------------------------------------------------------


def validate_claim(spec: Raw, fields: Fields) -> None:
    """Also of the template of a claim, with `Fields.under`."""
    _validate_access(spec, "at least 1 access mode is required", fields)
    validate_selector(spec.get("selector"), "spec.selector", fields)
    wanted = spec.get("resources", {}).get("requests", {})
    if "storage" not in wanted:
        fields.required("spec.resources[storage]")
    else:
        _validate_size(wanted["storage"], "spec.resources[storage]", fields)
    _validate_class(spec, fields)
    for key in ("dataSource", "dataSourceRef"):
        for part in ("name", "kind") if key in spec else ():
            if not spec[key].get(part):
                fields.required(f"spec.{key}.{part}")
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        fields.invalid("spec", "spec.dataSource", "may not be specified when dataSourceRef.namespace is specified")
    elif any(source.get(part) != reference.get(part) for part in ("apiGroup", "kind", "name")):
        fields.invalid("spec", "spec.dataSource", "must match dataSourceRef")


def validate_claim_change(new: Raw, old: Raw, status: Raw, fields: Fields) -> None:
    """`status` is what the claim has by now."""
    bound = status.get("phase") == "Bound"
    if _fixed(new, old, bound=bound) != _fixed(old, old, bound=bound):
        fields.forbidden("spec", _CLAIM_CHANGE)
    asked, before = _size(new.get("resources", {}).get("requests")), _size(old.get("resources", {}).get("requests"))
    if asked < before and asked <= _size(status.get("capacity")):
        fields.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def _fixed(spec: Raw, old: Raw, *, bound: bool) -> Raw:
    """What does not change. A volume, and a default class, are filled in later; a bound claim may ask for more."""
    free = {"volumeAttributesClassName"}
    if not old.get("volumeName"):
        free.add("volumeName")
    if "storageClassName" not in old:
        free.add("storageClassName")
    kept = {key: value for key, value in spec.items() if key not in free}
    if bound and (requests := spec.get("resources", {}).get("requests")):
        kept["resources"] = {**spec["resources"], "requests": {**requests, "storage": ""}}
    return kept


def _size(amounts: Raw | None) -> int:
    return quantity.to_int((amounts or {}).get("storage", 0))


# --- classes ---------------------------------------------------------------------------------------------------------


def validate_class(document: Raw, fields: Fields) -> None:
    name = document.get("provisioner", "")
    if not name:
        fields.required("provisioner", name)
    else:
        fields.all_invalid("provisioner", name, syntax.qualified_name(name.lower()))
    parameters = document.get("parameters", {})
    if len(parameters) > _MOST_PARAMETERS:
        fields.too_long("Provisioner Parameters exceeded max allowed", _MOST_PARAMETERS)
    if "" in parameters:
        fields.invalid("parameters", "", "field can not be empty.")
    if sum(len(key) + len(value) for key, value in parameters.items()) > _PARAMETER_BYTES:
        fields.too_long("parameters", _PARAMETER_BYTES)
    for key, known in (
        ("reclaimPolicy", ("Delete", "Retain")),
        ("volumeBindingMode", ("Immediate", "WaitForFirstConsumer")),
    ):
        if document[key] not in known:
            fields.unsupported(key, document[key], known)
    for index, term in enumerate(document.get("allowedTopologies", [])):
        for number, item in enumerate(term.get("matchLabelExpressions", [])):
            path = f"allowedTopologies[{index}].matchLabelExpressions[{number}]"
            fields.all_invalid(f"{path}.key", item.get("key", ""), syntax.qualified_name(item.get("key", "")))
            if not item.get("values"):
                fields.required(f"{path}.values")


def validate_class_change(new: Raw, old: Raw, fields: Fields) -> None:
    for key in ("parameters", "provisioner", "reclaimPolicy"):
        if new.get(key) != old.get(key):
            fields.forbidden(key, f"updates to {key} are forbidden.")
    fields.immutable("volumeBindingMode", new["volumeBindingMode"], old.get("volumeBindingMode", "Immediate"))
