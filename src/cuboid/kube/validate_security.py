"""Validation of security contexts, of pods and of containers. Source: kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

import re
from typing import Any

from cuboid.kube.fields import Fields

Raw = dict[str, Any]
MAX_ID = 2**31 - 1
_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = re.compile(rf"({_SEGMENT}[\./])*{_SEGMENT}", re.ASCII)
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_CHOICES = {
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "supplementalGroupsPolicy": ("Merge", "Strict"),
    "seLinuxChangePolicy": ("MountOption", "Recursive"),
}
_WINDOWS = "windows options cannot be set for a linux pod"


def validate_pod_security(context: Raw, path: str, fields: Fields) -> None:
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        _validate_id(context.get(key), f"{path}.{key}", fields)
    for index, group in enumerate(context.get("supplementalGroups", [])):
        _validate_id(group, f"{path}.supplementalGroups[{index}]", fields)
    for key, known in _CHOICES.items():
        if key in context and context[key] not in known:
            fields.unsupported(f"{path}.{key}", context[key], known)
    _validate_sysctls(context.get("sysctls", []), f"{path}.sysctls", fields)
    _validate_profiles(context, path, fields)


def validate_container_security(context: Raw, path: str, fields: Fields, *, host_users: bool) -> None:
    """`host_users` is whether the pod's users are those of its machine, as is usual."""
    for key in ("runAsUser", "runAsGroup"):
        _validate_id(context.get(key), f"{path}.{key}", fields)
    mount = context.get("procMount", "Default")
    if mount not in ("Default", "Unmasked"):
        fields.unsupported(f"{path}.procMount", mount, ("Default", "Unmasked"))
    elif mount == "Unmasked" and host_users:
        fields.invalid(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            fields.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        if "CAP_SYS_ADMIN" in context.get("capabilities", {}).get("add", []):
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            fields.invalid(path, context, why)
    _validate_profiles(context, path, fields)


def _validate_id(value: int | None, path: str, fields: Fields) -> None:
    if value is not None and not 0 <= value <= MAX_ID:
        fields.invalid(path, value, f"must be between 0 and {MAX_ID}, inclusive")


def _validate_sysctls(sysctls: list[Raw], path: str, fields: Fields) -> None:
    seen = set()
    for index, sysctl in enumerate(sysctls):
        name, where = sysctl.get("name", ""), f"{path}[{index}].name"
        if not name:
            fields.required(where)
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            fields.invalid(where, name, f"must have at most 253 characters and match regex ^{_SYSCTL.pattern}$")
        elif name in seen:
            fields.duplicate(where, name)
        seen.add(name)


def _validate_profiles(context: Raw, path: str, fields: Fields) -> None:
    if "windowsOptions" in context:
        fields.forbidden(f"{path}.windowsOptions", _WINDOWS)
    for key, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        if key in context:
            _validate_profile(context[key], f"{path}.{key}", key, word, fields)


def _validate_profile(profile: Raw, path: str, key: str, word: str, fields: Fields) -> None:
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        fields.required(f"{path}.type", f"type is required when {key} is set")
    elif kind not in _PROFILES:
        fields.unsupported(f"{path}.type", kind, _PROFILES)
    where = f"{path}.localhostProfile"
    if kind == "Localhost":
        if not local:
            fields.required(where, f"must be set when {word} type is Localhost")
        elif key == "seccompProfile" and (local.startswith("/") or ".." in local.split("/")):
            why = "must be a relative path" if local.startswith("/") else "must not contain '..'"
            fields.invalid(where, local, why)
    elif kind and local is not None:
        fields.invalid(where, local, f"can only be set when {word} type is Localhost")
