"""Validation of a pod's volumes: one source each, the kinds that Cuboid has, their references and paths."""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.types import NAMED_VOLUME_DRIVER, NFS_DRIVER
from cuboid.kube.validate_container import validate_field_ref, validate_relative_path, validate_resource_ref

Raw = dict[str, Any]
_SUPPORTED = ("configMap", "csi", "downwardAPI", "emptyDir", "nfs", "persistentVolumeClaim", "projected", "secret")
_FILE_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations")


def validate_volumes(volumes: list[Raw], path: str, fields: Fields) -> dict[str, str]:
    """Returns the names of the volumes, each with its kind."""
    known: dict[str, str] = {}
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        name = volume.get("name", "")
        if not name:
            fields.required(f"{where}.name")
        else:
            fields.all_invalid(f"{where}.name", name, syntax.dns_label(name))
        if name in known:
            fields.duplicate(f"{where}.name", name)
        known[name] = _validate_source(volume, where, fields)
    return known


def _validate_source(volume: Raw, path: str, fields: Fields) -> str:
    sources = [key for key in volume if key != "name"]
    for key in sources[1:]:
        fields.forbidden(f"{path}.{key}", "may not specify more than 1 volume type")
    if not sources:
        fields.required(path, "must specify a volume type")
        return ""
    kind = sources[0]
    if kind not in _SUPPORTED:
        hint = (
            "a pod is a virtual machine and sees no path of the host"
            if kind == "hostPath"
            else "not supported by Cuboid"
        )
        fields.forbidden(f"{path}.{kind}", hint)
        return kind
    _VALIDATORS[kind](volume[kind], f"{path}.{kind}", fields)
    return kind


def _mode(value: int | None, path: str, fields: Fields) -> None:
    if value is not None and not 0 <= value <= 0o777:
        fields.invalid(path, value, "must be a number between 0 and 0777 (octal), both inclusive")


def _items(source: Raw, path: str, fields: Fields) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", fields)
    for index, item in enumerate(source.get("items", [])):
        where = f"{path}.items[{index}]"
        if not item.get("key"):
            fields.required(f"{where}.key")
        _file(item, where, fields)


def _file(item: Raw, where: str, fields: Fields) -> None:
    if not item.get("path"):
        fields.required(f"{where}.path")
    else:
        validate_relative_path(item["path"], f"{where}.path", fields)
        if item["path"].startswith(".."):
            fields.invalid(f"{where}.path", item["path"], "must not start with '..'")
    _mode(item.get("mode"), f"{where}.mode", fields)


def _config_map(source: Raw, path: str, fields: Fields) -> None:
    if not source.get("name"):
        fields.required(f"{path}.name")
    _items(source, path, fields)


def _secret(source: Raw, path: str, fields: Fields) -> None:
    if not source.get("secretName"):
        fields.required(f"{path}.secretName")
    _items(source, path, fields)


def _downward(source: Raw, path: str, fields: Fields) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", fields)
    for index, item in enumerate(source.get("items", [])):
        where = f"{path}.items[{index}]"
        _file(item, where, fields)
        if "fieldRef" in item and "resourceFieldRef" in item:
            fields.invalid(where, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif "fieldRef" in item:
            validate_field_ref(item["fieldRef"], f"{where}.fieldRef", fields, _FILE_FIELDS)
        elif "resourceFieldRef" in item:
            validate_resource_ref(item["resourceFieldRef"], f"{where}.resourceFieldRef", fields, needs_container=True)
        else:
            fields.required(where, "one of fieldRef and resourceFieldRef is required")


def _projected(source: Raw, path: str, fields: Fields) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", fields)
    for index, projection in enumerate(source.get("sources", [])):
        where = f"{path}.sources[{index}]"
        kinds = list(projection)
        for key in kinds[1:]:
            fields.forbidden(f"{where}.{key}", "may not specify more than 1 volume type")
        for key in kinds[:1]:
            _projection(key, projection[key], f"{where}.{key}", fields)


def _projection(kind: str, source: Raw, path: str, fields: Fields) -> None:
    if kind in ("configMap", "secret"):
        _config_map(source, path, fields)
    elif kind == "downwardAPI":
        _downward(source, path, fields)
    elif kind == "serviceAccountToken":
        if not source.get("path"):
            fields.required(f"{path}.path")
        else:
            validate_relative_path(source["path"], f"{path}.path", fields)
        if source.get("expirationSeconds", 3600) < 600:
            fields.invalid(
                f"{path}.expirationSeconds",
                source["expirationSeconds"],
                "may not specify a duration less than 10 minutes",
            )
    else:
        fields.forbidden(path, "not supported by Cuboid")


def _empty_dir(source: Raw, path: str, fields: Fields) -> None:
    if source.get("medium", "") not in ("", "Memory"):
        fields.unsupported(f"{path}.medium", source["medium"], ("", "Memory"))
    if str(source.get("sizeLimit", "0")).startswith("-"):
        fields.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _nfs(source: Raw, path: str, fields: Fields) -> None:
    for key in ("server", "path"):
        if not source.get(key):
            fields.required(f"{path}.{key}")
    if source.get("path") and not source["path"].startswith("/"):
        fields.invalid(f"{path}.path", source["path"], "must be an absolute path")


def _claim(source: Raw, path: str, fields: Fields) -> None:
    if not source.get("claimName"):
        fields.required(f"{path}.claimName")


def _csi(source: Raw, path: str, fields: Fields) -> None:
    driver = source.get("driver", "")
    if not driver:
        fields.required(f"{path}.driver")
    elif driver == NFS_DRIVER:
        for key in ("server", "share"):
            if not source.get("volumeAttributes", {}).get(key):
                fields.required(f"{path}.volumeAttributes[{key}]")
    elif driver != NAMED_VOLUME_DRIVER:
        fields.unsupported(f"{path}.driver", driver, (NAMED_VOLUME_DRIVER, NFS_DRIVER))
    else:
        name = source.get("volumeAttributes", {}).get("name", "")
        fields.all_invalid(f"{path}.volumeAttributes[name]", name, syntax.dns_subdomain(name))


_VALIDATORS = {
    "configMap": _config_map,
    "csi": _csi,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "nfs": _nfs,
    "persistentVolumeClaim": _claim,
    "projected": _projected,
    "secret": _secret,
}
