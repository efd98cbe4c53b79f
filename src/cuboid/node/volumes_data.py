"""Removes the data of volumes that are being deleted, when it is on this node, and lets them go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import VOLUMES, Client
from cuboid.kube.informer import Informer
from cuboid.kube.types import NAMED_VOLUME_DRIVER, VOLUME_DATA
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.storage.base import Disks

log = get_log(__name__)
Object = dict[str, Any]
AGAIN_SECONDS = 5.0
_HOSTNAME = "kubernetes.io/hostname"


def is_here(volume: Mapping[str, Any], node: str) -> bool:
    """Whether the volume is a named one that can only be had on this node."""
    spec = volume["spec"]
    required = (spec.get("nodeAffinity") or {}).get("required") or {}
    named = any(
        item["key"] == _HOSTNAME and item["operator"] == "In" and list(item.get("values") or []) == [node]
        for term in required.get("nodeSelectorTerms") or []
        for item in term.get("matchExpressions") or []
    )
    return named and (spec.get("csi") or {}).get("driver") == NAMED_VOLUME_DRIVER


def to_remove(volume: Mapping[str, Any], node: str) -> bool:
    """Not of one that is to be retained: then only the object goes."""
    held = VOLUME_DATA in (volume["metadata"].get("finalizers") or [])
    meant = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return held and meant and objects.deleting(volume) and is_here(volume, node)


class VolumeData:
    """One attempt after the other, for as long as a volume waits: a pod may still hold it."""

    def __init__(self, client: Client, disks: Disks, node: str, *, again: float = AGAIN_SECONDS) -> None:
        self._client = client
        self._disks = disks
        self._node = node
        self._again = again
        self._removing: set[str] = set()

    async def run(self) -> None:
        """For ever. A watch that ends, for want of rights for example, is begun anew."""
        async with TaskSet("volume-data") as tasks:
            while True:
                try:
                    await self._follow(tasks)
                except CuboidError as error:
                    log.warning("volumes can not be watched: deleted ones keep their data", error=str(error))
                await asyncio.sleep(self._again)

    async def _follow(self, tasks: TaskSet) -> None:
        async for type_, volume in Informer(self._client, VOLUMES).events():
            name = objects.name(volume)
            if type_ != "DELETED" and to_remove(volume, self._node) and name not in self._removing:
                self._removing.add(name)
                tasks.start(self._until_removed(volume), name=f"volume-data/{name}")

    async def _until_removed(self, volume: Object) -> None:
        name = objects.name(volume)
        try:
            while True:
                if await self._remove(volume):
                    return
                await asyncio.sleep(self._again)
        finally:
            self._removing.discard(name)

    async def _remove(self, volume: Object) -> bool:
        namespace, _, device = str(volume["spec"]["csi"].get("volumeHandle", "")).partition("/")
        try:
            await self._disks.remove_volume(namespace, device)
            log.info("the data of a deleted volume is removed", volume=objects.name(volume))
        except NotFoundError:
            log.debug("a deleted volume never had data here", volume=objects.name(volume))
        except (CuboidError, OSError) as error:
            log.info("a deleted volume keeps its data for now", volume=objects.name(volume), error=str(error))
            return False
        return await self._let_go(volume)

    async def _let_go(self, volume: Object) -> bool:
        try:
            now = await self._client.get(VOLUMES, objects.name(volume))
            if objects.uid(now) != objects.uid(volume):
                return True
            left = [item for item in now["metadata"].get("finalizers") or [] if item != VOLUME_DATA]
            await self._client.update(VOLUMES, {**now, "metadata": {**now["metadata"], "finalizers": left}})
        except NotFoundError:
            return True
        except ConflictError:
            return False
        except (CuboidError, OSError) as error:
            log.info("a deleted volume is not let go of yet", volume=objects.name(volume), error=str(error))
            return False
        return True
