"""ServiceAccount: a pod runs as an account of its namespace, and gets that account's token and pull secrets.

Source: kubernetes/plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

import secrets
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import PODS, Plug, refusal
from cuboid.kube.registry import Registry

Object = dict[str, Any]
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PREFIX = "kube-api-access-"
SECONDS = 3607
"""Life of a token: an hour, and a little that tells it from those that users ask for."""
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_ACCOUNT = kinds.builtin("ServiceAccount")


class ServiceAccounts(Plug):
    """`mount` puts the token into pods. The account `default` is taken to exist: it is made soon after a namespace."""

    about = (PODS,)

    def __init__(self, registry: Registry, *, mount: bool) -> None:
        self._registry = registry
        self._mount = mount

    def admit(self, request: Request) -> None:
        spec = (request.new or {}).setdefault("spec", {})
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        entry = self._registry.of(_ACCOUNT).get(request.namespace, name)
        if entry is None and name != "default":
            where = f"{request.namespace}/{name}"
            raise refusal(request, f'error looking up service account {where}: serviceaccount "{name}" not found')
        account = {} if entry is None else entry.object()
        wanted = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        if self._mount and wanted:
            _mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]


def _mount(spec: Object) -> None:
    """Into every container that has nothing at the place yet."""
    every = [*spec.get("initContainers", []), *spec.get("containers", [])]
    lacking = [c for c in every if all(m.get("mountPath") != MOUNT for m in c.get("volumeMounts", []))]
    if not lacking:
        return
    volumes = spec.setdefault("volumes", [])
    known = next((volume["name"] for volume in volumes if _is_ours(volume)), None)
    if known is None:
        known = _name({volume.get("name") for volume in volumes})
        volumes.append({"name": known, "projected": {"defaultMode": 0o644, "sources": _sources()}})
    for container in lacking:
        mount = {"name": known, "readOnly": True, "mountPath": MOUNT}
        container.setdefault("volumeMounts", []).append(mount)


def _suffix() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(5))


_USUAL = PREFIX + _suffix()
"""Of this process: pods of one workload stay alike, so what is known of one spec is known of all."""


def _name(taken: set[Any]) -> str:
    name = _USUAL
    while name in taken:
        name = PREFIX + _suffix()
    return name


def _is_ours(volume: Object) -> bool:
    return str(volume.get("name", "")).startswith(PREFIX) and "projected" in volume


def _sources() -> list[Object]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"expirationSeconds": SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
