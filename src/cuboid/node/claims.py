"""Claims of pods: each becomes the volume that it is bound to before anything of the pod is made.

What it became is in the pod's record, so that it holds over restarts of the node agent; a pod's volumes never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cuboid.kube.client import VOLUME_CLAIMS, VOLUMES, Client, Resource
from cuboid.kube.types import NAMED_VOLUME_DRIVER, NFS_DRIVER
from cuboid.lib.errors import NotFoundError, UnsupportedError
from cuboid.node.volumes import VolumeError

Raw = dict[str, Any]


class ClaimReader(Protocol):
    """Each call answers with the object as it is now, or None if there is none."""

    async def claim(self, namespace: str, name: str) -> Raw | None: ...

    async def volume(self, name: str) -> Raw | None: ...


class KubeClaims:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def claim(self, namespace: str, name: str) -> Raw | None:
        return await self._get(VOLUME_CLAIMS, name, namespace)

    async def volume(self, name: str) -> Raw | None:
        return await self._get(VOLUMES, name)

    async def _get(self, resource: Resource, name: str, namespace: str = "") -> Raw | None:
        try:
            return await self._client.get(resource, name, namespace)
        except NotFoundError:
            return None


def wanted(pod: Mapping[str, Any]) -> bool:
    """Whether a pod, as it comes from the API, has claims among its volumes."""
    volumes = pod.get("spec", {}).get("volumes") or []
    return any(volume.get("persistentVolumeClaim") for volume in volumes)


async def resolved(pod: Raw, reader: ClaimReader) -> Raw:
    """The pod with volumes in place of its claims. VolumeError for one that is not bound (yet), UnsupportedError for a
    volume that this node can not serve."""
    namespace = pod["metadata"]["namespace"]
    volumes = [await _resolved(volume, namespace, reader) for volume in pod["spec"]["volumes"]]
    return {**pod, "spec": {**pod["spec"], "volumes": volumes}}


def kept(pod: Raw, before: Mapping[str, Any]) -> Raw:
    """A newer state of a pod, with the volumes that its claims have become."""
    if not wanted(pod):
        return pod
    return {**pod, "spec": {**pod["spec"], "volumes": before["spec"].get("volumes") or []}}


async def _resolved(volume: Raw, namespace: str, reader: ClaimReader) -> Raw:
    given = volume.get("persistentVolumeClaim")
    if not given:
        return volume
    name = given["claimName"]
    claim = await reader.claim(namespace, name)
    if claim is None:
        raise VolumeError(f'persistentvolumeclaim "{name}" not found')
    if claim["metadata"].get("deletionTimestamp"):
        raise VolumeError(f"error processing PVC {namespace}/{name}: PVC is being deleted")
    bound = claim.get("status", {}).get("phase") == "Bound"
    found = await reader.volume(claim["spec"].get("volumeName", "")) if bound else None
    if found is None:
        raise VolumeError(f"error processing PVC {namespace}/{name}: PVC is not bound")
    if (found["spec"].get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
        raise VolumeError(f"error processing PVC {namespace}/{name}: PVC is not bound to the volume that it names")
    return {"name": volume["name"], **_source(found, namespace, read_only=bool(given.get("readOnly")))}


def _source(volume: Raw, namespace: str, *, read_only: bool) -> Raw:
    spec, name = volume["spec"], volume["metadata"]["name"]
    if nfs := spec.get("nfs"):
        return _nfs(nfs["server"], nfs["path"], spec, read_only or bool(nfs.get("readOnly")))
    csi = spec.get("csi") or {}
    attributes = csi.get("volumeAttributes") or {}
    read_only = read_only or bool(csi.get("readOnly"))
    if csi.get("driver") == NFS_DRIVER:
        return _nfs(attributes.get("server", ""), attributes.get("share", ""), spec, read_only)
    if csi.get("driver") == NAMED_VOLUME_DRIVER:
        return {
            "csi": {"driver": NAMED_VOLUME_DRIVER, "readOnly": read_only, "volumeAttributes": _named(volume, namespace)}
        }
    raise UnsupportedError(
        f"persistentvolume {name!r} is of a kind that this node can not serve",
        hint=f"use the class of {NAMED_VOLUME_DRIVER}, or NFS", reason="UnsupportedVolume",
    )  # fmt: skip


def _named(volume: Raw, namespace: str) -> Raw:
    """A handle is `NAMESPACE/NAME`: data of one namespace is never shown to another."""
    csi = volume["spec"]["csi"]
    owner, _, name = str(csi.get("volumeHandle", "")).partition("/")
    if owner != namespace or not name:
        raise UnsupportedError(
            f"persistentvolume {volume['metadata']['name']!r} holds {csi.get('volumeHandle')!r}, which is no volume of "
            f"the namespace {namespace}", hint=f"its volumeHandle must be {namespace}/NAME", reason="UnsupportedVolume",
        )  # fmt: skip
    return {"name": name, "size": str(volume["spec"].get("capacity", {}).get("storage", ""))}


def _nfs(server: str, path: str, spec: Raw, read_only: bool) -> Raw:
    options = ",".join(spec.get("mountOptions") or [])
    attributes = {"server": server, "share": path, **({"mountOptions": options} if options else {})}
    return {"csi": {"driver": NFS_DRIVER, "readOnly": read_only, "volumeAttributes": attributes}}
