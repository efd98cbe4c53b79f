"""Pods with claims: what the claims become, waiting for them, and the data of volumes that are deleted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube.client import VOLUMES
from cuboid.kube.types import VOLUME_DATA
from cuboid.lib.errors import CuboidError, UnsupportedError
from cuboid.node.claims import kept, resolved
from cuboid.node.volumes import VolumeError
from cuboid.node.volumes_data import VolumeData, to_remove
from cuboid.storage.fake import FakeDisks
from tests.harness.control import World
from tests.harness.node_world import FakeClaims, Host, container

Raw = dict[str, Any]
UID = "00000000-0000-4000-8000-00000000abcd"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


def claim(phase: str = "Bound", **meta: Any) -> Raw:
    return {
        "metadata": {"name": "data", "namespace": "default", "uid": "claim", **meta},
        "spec": {"volumeName": "pv"}, "status": {"phase": phase},
    }  # fmt: skip


def volume(**source: Any) -> Raw:
    spec = {"capacity": {"storage": "2Gi"}, "claimRef": {"uid": "claim"}, **(source or NAMED)}
    return {"metadata": {"name": "pv"}, "spec": spec}


NAMED: Raw = {"csi": {"driver": "volume.cuboid.dev", "volumeHandle": "default/pvc-1"}}
USE: Raw = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}


def pod(**use: Any) -> Raw:
    given = {"name": "v", "persistentVolumeClaim": {"claimName": "data", **use}}
    return {"metadata": {"namespace": "default"}, "spec": {"volumes": [{"name": "e", "emptyDir": {}}, given]}}


def reader(claim_: Raw | None, volume_: Raw | None = None) -> FakeClaims:
    made = FakeClaims()
    if claim_ is not None:
        made.claims["default", "data"] = claim_
    if volume_ is not None:
        made.volumes["pv"] = volume_
    return made


@pytest.mark.parametrize(
    ("given", "use", "expected"),
    [
        (
            volume(),
            {},
            {"driver": "volume.cuboid.dev", "readOnly": False, "volumeAttributes": {"name": "pvc-1", "size": "2Gi"}},
        ),
        (
            volume(),
            {"readOnly": True},
            {"driver": "volume.cuboid.dev", "readOnly": True, "volumeAttributes": {"name": "pvc-1", "size": "2Gi"}},
        ),
        (
            volume(nfs={"server": "s", "path": "/x", "readOnly": True}, mountOptions=["vers=3", "soft"]),
            {},
            {
                "driver": "nfs.csi.k8s.io",
                "readOnly": True,
                "volumeAttributes": {"server": "s", "share": "/x", "mountOptions": "vers=3,soft"},
            },
        ),
        (
            volume(csi={"driver": "nfs.csi.k8s.io", "volumeAttributes": {"server": "s", "share": "/y"}}),
            {},
            {"driver": "nfs.csi.k8s.io", "readOnly": False, "volumeAttributes": {"server": "s", "share": "/y"}},
        ),
    ],
)
async def test_a_claim_becomes_the_volume_that_it_is_bound_to(given: Raw, use: Raw, expected: Raw) -> None:
    found = await resolved(pod(**use), reader(claim(), given))
    assert found["spec"]["volumes"] == [{"name": "e", "emptyDir": {}}, {"name": "v", "csi": expected}]


OTHER = {"capacity": {}, "claimRef": {"uid": "another"}, **NAMED}
FOREIGN = {"csi": {"driver": "volume.cuboid.dev", "volumeHandle": "other/pvc-1"}}
NAMELESS = {"csi": {"driver": "volume.cuboid.dev", "volumeHandle": "pvc-1"}}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (reader(None), VolumeError, 'persistentvolumeclaim "data" not found'),
        (reader(claim("Pending"), volume()), VolumeError, "PVC is not bound"),
        (reader(claim(), None), VolumeError, "PVC is not bound"),
        (reader(claim(), {"metadata": {"name": "pv"}, "spec": OTHER}), VolumeError, "not bound to the volume"),
        (reader(claim(deletionTimestamp="x"), volume()), VolumeError, "PVC is being deleted"),
        (reader(claim(), volume(**FOREIGN)), UnsupportedError, "no volume of the namespace default"),
        (reader(claim(), volume(**NAMELESS)), UnsupportedError, "its volumeHandle must be default/NAME"),
        (reader(claim(), volume(hostPath={"path": "/etc"})), UnsupportedError, "of a kind that this node can not"),
    ],
)  # fmt: skip
async def test_what_can_not_be_had_is_said(given: FakeClaims, error: type[CuboidError], words: str) -> None:
    with pytest.raises(error, match=words):
        await resolved(pod(), given)


def test_a_newer_state_of_a_pod_keeps_what_its_claims_became() -> None:
    before = {"spec": {"volumes": [{"name": "v", "csi": {}}]}}
    assert kept(pod(), before)["spec"]["volumes"] == [{"name": "v", "csi": {}}]
    plain = {"spec": {"volumes": [{"name": "e", "emptyDir": {}}]}}
    assert kept(plain, before) is plain


# --- in the node agent -----------------------------------------------------------------------------------------------


def ready(status: Raw) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))


async def test_a_pod_waits_for_its_claim_and_says_why_and_its_volume_outlives_the_agent(host: Host) -> None:
    host.api.put(host.pod(volumes=[USE]))
    async with host.agent_running():
        await host.api.until(lambda: ("FailedMount", 'persistentvolumeclaim "data" not found') in host.recorder.events)
        await host.api.until(lambda: host.api.status("demo").get("containerStatuses"))
        assert host.api.status("demo")["phase"] == "Pending"
        assert container(host.api.status("demo"))["state"]["waiting"]["reason"] == "ContainerCreating"
        host.claims.claims["default", "data"] = claim()
        host.claims.volumes["pv"] = volume()
        await host.api.until(lambda: ready(host.api.status("demo")))
        (held,) = host.disks.volumes()
        assert (held.name, held.device.size_bytes, bool(held.holder)) == ("pvc-1", 2 << 30, True)
        host.api.change("demo", {"metadata": {"labels": {"a": "b"}}})
    host.claims.claims.clear()
    async with host.agent_running() as daemon:
        await host.api.until(lambda: daemon.find("default", "demo"))
        view = daemon.find("default", "demo")
        assert view is not None
        assert view.pod.spec.volumes[0].csi is not None
        host.api.delete("demo", grace=0)
        await host.api.until(lambda: not host.api.pods and not host.leftovers())
        assert [held.holder for held in host.disks.volumes()] == [""]


async def test_a_pod_that_is_deleted_while_it_waits_is_gone(host: Host) -> None:
    host.api.put(host.pod(volumes=[USE]))
    async with host.agent_running():
        await host.api.until(lambda: host.recorder.events)
        host.api.delete("demo", grace=0)
        await host.api.until(lambda: not host.api.pods and not host.leftovers())


async def test_a_pod_that_vanishes_while_it_waits_is_forgotten(host: Host) -> None:
    host.api.put(host.pod(volumes=[USE]))
    async with host.agent_running() as daemon:
        await host.api.until(lambda: host.recorder.events)
        host.api.vanish("demo")
        host.claims.claims["default", "data"], host.claims.volumes["pv"] = claim(), volume()
        await asyncio.sleep(0.3)
        assert daemon.pods() == []


# --- data ------------------------------------------------------------------------------------------------------------


def stored(node: str = "a", **meta: Any) -> Raw:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    spec = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, **NAMED,
    }  # fmt: skip
    return {"metadata": {"name": "pv", "finalizers": [VOLUME_DATA], **meta}, "spec": spec}


@contextlib.asynccontextmanager
async def removing(world: World, disks: FakeDisks) -> AsyncIterator[None]:
    running = asyncio.ensure_future(VolumeData(world.client, disks, "a", again=0.05).run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


def finalizers(world: World) -> list[str]:
    found: list[str] = (world.view.get(VOLUMES, "", "pv") or {"metadata": {}})["metadata"].get("finalizers") or []
    return found


async def until_let_go(world: World, seconds: float = 5.0) -> None:
    """By this node; the finalizer that protects a volume in use is taken off by a controller."""
    async with asyncio.timeout(seconds):
        while VOLUME_DATA in finalizers(world):
            await asyncio.sleep(0.02)


async def test_the_data_of_a_deleted_volume_goes_when_no_pod_holds_it(tmp_path: Path) -> None:
    disks = FakeDisks(tmp_path)
    await disks.acquire_volume("default", "pvc-1", UID, 1 << 30)
    async with World() as world, removing(world, disks):
        await world.create(VOLUMES, stored())
        await world.delete(VOLUMES, "pv")
        await asyncio.sleep(0.2)
        assert world.get(VOLUMES, "pv", ""), "a pod holds it"
        assert disks.volumes()
        await disks.release_volumes(UID)
        await until_let_go(world)
        assert disks.volumes() == []


async def test_a_volume_that_never_had_data_and_one_of_an_earlier_life_of_the_agent_go_too(tmp_path: Path) -> None:
    async with World() as world:
        await world.create(VOLUMES, stored())
        await world.delete(VOLUMES, "pv")
        async with removing(world, FakeDisks(tmp_path)):
            await until_let_go(world)


@pytest.mark.parametrize(
    "given",
    [
        stored(),
        stored("b", deletionTimestamp="x"),
        stored(deletionTimestamp="x", finalizers=["kubernetes.io/pv-protection"]),
        {**stored(deletionTimestamp="x"), "spec": {"nfs": {}, "persistentVolumeReclaimPolicy": "Delete"}},
        {
            **stored(deletionTimestamp="x"),
            "spec": {**stored()["spec"], "persistentVolumeReclaimPolicy": "Retain"},
        },
        {**stored(deletionTimestamp="x"), "spec": {**NAMED, "persistentVolumeReclaimPolicy": "Delete"}},
    ],
)
def test_other_volumes_are_left_alone(given: Raw) -> None:
    assert not to_remove(given, "a")
    assert to_remove(stored(deletionTimestamp="x"), "a")
