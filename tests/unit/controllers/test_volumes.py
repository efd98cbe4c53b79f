"""Claims and volumes: binding, provisioning, what happens at the end."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers.volumes import VolumeBinder
from cuboid.controllers.volumes_match import best, hostnames, misfit, reachable
from cuboid.controllers.volumes_provision import DATA_FINALIZER, STANDARD, ensure_standard
from cuboid.controllers.volumes_reclaim import ClaimProtection, VolumeReclaimer
from cuboid.kube import objects
from cuboid.kube.client import NODES, PODS, STORAGE_CLASSES, VOLUME_CLAIMS, VOLUMES
from cuboid.kube.controller.view import Controller
from cuboid.lib.errors import NotFoundError
from tests.harness.control import World, every_interrupted_point

Object = dict[str, Any]
GIB = 1 << 30


def make() -> list[Controller]:
    return [VolumeBinder(), VolumeReclaimer(), ClaimProtection()]


async def claim(world: World, name: str = "data", size: str = "1Gi", **spec: Any) -> None:
    given = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    await world.create(VOLUME_CLAIMS, {"metadata": {"name": name}, "spec": given})
    await world.settle()


async def volume(world: World, name: str, size: str = "1Gi", *, labels: Object | None = None, **spec: Any) -> None:
    given = {
        "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "manual",
        "nfs": {"server": "nfs.example.com", "path": "/x"}, **spec,
    }  # fmt: skip
    await world.create(VOLUMES, {"metadata": {"name": name, "labels": labels or {}}, "spec": given})
    await world.settle()


async def select(world: World, node: str, name: str = "data") -> None:
    """What the scheduler does for a claim that waits."""
    notes = {"volume.kubernetes.io/selected-node": node}
    await world.patch(VOLUME_CLAIMS, name, {"metadata": {"annotations": notes}})
    await world.settle()


async def user(world: World, name: str = "user", node: str = "a") -> None:
    spec = {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    await world.create(PODS, {"metadata": {"name": name}, "spec": spec})
    await world.kubelet.bind(name, node)
    await world.kubelet.run(name)
    await world.settle()


async def data_removed(world: World, name: str) -> None:
    """What the node agent does with a volume that is deleted."""
    left = [f for f in world.get(VOLUMES, name, "")["metadata"].get("finalizers", []) if f != DATA_FINALIZER]
    await world.patch(VOLUMES, name, {"metadata": {"finalizers": left}})
    await world.settle()


def phase(world: World, name: str = "data") -> str:
    return objects.phase(world.get(VOLUME_CLAIMS, name))


def bound(world: World, name: str = "data") -> str:
    found = world.get(VOLUME_CLAIMS, name)
    assert objects.phase(found) == "Bound"
    return str(found["spec"]["volumeName"])


def volume_phase(world: World, name: str) -> str:
    return objects.phase(world.get(VOLUMES, name, ""))


# --- provisioning ----------------------------------------------------------------------------------------------------


async def standard(world: World, *nodes: str) -> None:
    await ensure_standard(world.client)
    await ensure_standard(world.client)
    for node in nodes:
        await world.add_node(node)


async def test_a_claim_of_the_default_class_waits_for_its_first_pod_and_gets_a_volume_on_that_node() -> None:
    async with World(make) as world:
        await standard(world, "a", "b")
        await claim(world, size="1500Mi")
        assert world.get(VOLUME_CLAIMS, "data")["spec"]["storageClassName"] == "standard"
        assert phase(world) == "Pending"
        assert world.reasons()[-1] == "WaitForFirstConsumer"
        await select(world, "b")
        found = world.get(VOLUMES, bound(world), "")
        uid = objects.uid(world.get(VOLUME_CLAIMS, "data"))
        assert objects.name(found) == f"pvc-{uid}"
        assert objects.phase(found) == "Bound"
        assert hostnames(found) == ["b"]
        assert found["spec"]["csi"]["driver"] == "volume.cuboid.dev"
        assert found["spec"]["csi"]["volumeHandle"] == f"default/pvc-{uid}"
        assert found["spec"]["claimRef"]["uid"] == uid
        status = world.get(VOLUME_CLAIMS, "data")["status"]
        assert (status["capacity"], status["accessModes"]) == ({"storage": "1500Mi"}, ["ReadWriteOnce"])
        notes = objects.notes(world.get(VOLUME_CLAIMS, "data"))
        assert notes["pv.kubernetes.io/bind-completed"] == "yes"
        assert notes["volume.kubernetes.io/storage-provisioner"] == "volume.cuboid.dev"
        assert "ProvisioningSucceeded" in world.reasons()


async def test_an_immediate_class_takes_a_ready_node_and_waits_for_one() -> None:
    async with World(make) as world:
        await world.create(STORAGE_CLASSES, {**STANDARD, "metadata": {"name": "now"}, "volumeBindingMode": "Immediate"})
        await claim(world, storageClassName="now")
        assert phase(world) == "Pending"
        assert "no node is ready" in world.told[-1].message
        await world.add_node("a")
        await world.advance(6)
        assert hostnames(world.get(VOLUMES, bound(world), "")) == ["a"]


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"storageClassName": ""}, "FailedBinding", "no persistent volumes available for this claim and no storage"),
        ({"storageClassName": "gone"}, "ProvisioningFailed", 'storageclass.storage.k8s.io "gone" not found'),
        ({"storageClassName": "none"}, "ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-prov"),
        ({"storageClassName": "cloud"}, "ExternalProvisioning", "Waiting for a volume to be created either by"),
        ({"accessModes": ["ReadWriteMany"]}, "ProvisioningFailed", "cannot be ReadWriteMany: use NFS for several"),
        ({"volumeMode": "Block"}, "ProvisioningFailed", "a named volume is a file system, not Block"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "ProvisioningFailed", "claim.Spec.Selector is not supported"),
    ],
)  # fmt: skip
async def test_why_a_claim_waits_is_said(spec: Object, reason: str, message: str) -> None:
    async with World(make) as world:
        await standard(world, "a")
        for name, provisioner in (("none", "kubernetes.io/no-provisioner"), ("cloud", "ebs.example.com")):
            await world.create(STORAGE_CLASSES, {"metadata": {"name": name}, "provisioner": provisioner})
        await claim(world, **spec)
        if "storageClassName" not in spec:
            await select(world, "a")
        assert phase(world) == "Pending"
        assert world.told[-1].reason == reason
        assert message in world.told[-1].message


# --- binding ---------------------------------------------------------------------------------------------------------


async def test_the_smallest_volume_that_fits_is_taken_and_one_that_comes_later_too() -> None:
    async with World(make) as world:
        await volume(world, "small", "1Gi")
        await volume(world, "large", "9Gi")
        await volume(world, "medium", "3Gi")
        assert volume_phase(world, "small") == "Available"
        await claim(world, size="2Gi", storageClassName="manual")
        assert (bound(world), volume_phase(world, "medium")) == ("medium", "Bound")
        assert world.get(VOLUME_CLAIMS, "data")["status"]["capacity"] == {"storage": "3Gi"}
        await claim(world, "later", size="20Gi", storageClassName="manual")
        assert phase(world, "later") == "Pending"
        await volume(world, "huge", "30Gi")
        assert bound(world, "later") == "huge"


async def test_a_claim_and_a_volume_may_name_each_other() -> None:
    async with World(make) as world:
        await volume(world, "mine", claimRef={"namespace": "default", "name": "data"})
        await volume(world, "other", claimRef={"namespace": "default", "name": "somebody"})
        await claim(world, "thief", storageClassName="manual", volumeName="other")
        await claim(world, storageClassName="manual")
        assert bound(world) == "mine"
        assert phase(world, "thief") == "Pending"
        assert 'volume "other" already bound to a different claim.' in [told.message for told in world.told]
        await claim(world, "early", storageClassName="manual", volumeName="coming")
        await volume(world, "coming")
        assert bound(world, "early") == "coming"
        assert "pv.kubernetes.io/bound-by-controller" not in objects.notes(world.get(VOLUME_CLAIMS, "early"))


async def test_a_volume_that_is_named_but_does_not_fit_is_refused() -> None:
    async with World(make) as world:
        await volume(world, "small")
        await claim(world, size="5Gi", storageClassName="manual", volumeName="small")
        assert phase(world) == "Pending"
        assert world.told[-1].message == 'Cannot bind to requested volume "small": requested PV is too small'


async def test_two_claims_never_share_a_volume() -> None:
    async with World(make) as world:
        await world.create(VOLUME_CLAIMS, {"metadata": {"name": "a"}, "spec": _asking()})
        await world.create(VOLUME_CLAIMS, {"metadata": {"name": "b"}, "spec": _asking()})
        await volume(world, "one")
        assert sorted([phase(world, "a"), phase(world, "b")]) == ["Bound", "Pending"]


def _asking() -> Object:
    resources = {"requests": {"storage": "1Gi"}}
    return {"accessModes": ["ReadWriteOnce"], "resources": resources, "storageClassName": "manual"}


async def test_a_claim_whose_volume_vanished_is_lost() -> None:
    async with World(make) as world:
        await volume(world, "one")
        await claim(world, storageClassName="manual")
        await world.delete(VOLUMES, "one")
        await world.patch(VOLUMES, "one", {"metadata": {"finalizers": None}})
        await world.settle()
        assert phase(world) == "Lost"
        assert world.told[-1].reason == "ClaimLost"


def _exists(world: World, name: str) -> bool:
    return world.view.get(VOLUMES, "", name) is not None


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_claim_in_use_stays_until_its_pod_is_gone_and_its_volume_until_the_node_removed_the_data() -> None:
    async with World(make) as world:
        await standard(world, "a")
        await claim(world)
        await select(world, "a")
        await user(world)
        name = bound(world)
        await world.delete(VOLUME_CLAIMS, "data")
        await world.settle()
        assert objects.deleting(world.get(VOLUME_CLAIMS, "data")), "a pod uses it"
        await world.delete(PODS, "user", grace=0)
        await world.settle()
        with pytest.raises(NotFoundError):
            world.get(VOLUME_CLAIMS, "data")
        left = world.get(VOLUMES, name, "")
        assert objects.deleting(left)
        assert left["metadata"]["finalizers"] == [DATA_FINALIZER], "only its node can remove the data"
        await data_removed(world, name)
        assert not _exists(world, name)


async def test_the_data_of_a_node_that_is_gone_holds_nothing() -> None:
    async with World(make) as world:
        await standard(world, "a")
        await claim(world)
        await select(world, "a")
        name = bound(world)
        await world.delete(VOLUME_CLAIMS, "data")
        await world.settle()
        assert _exists(world, name)
        await world.delete(NODES, "a")
        await world.settle()
        assert not _exists(world, name)


async def test_a_retained_volume_is_released_and_not_given_to_the_next() -> None:
    async with World(make) as world:
        await volume(world, "one")
        await claim(world, storageClassName="manual")
        await world.delete(VOLUME_CLAIMS, "data")
        await world.settle()
        assert volume_phase(world, "one") == "Released"
        await claim(world, storageClassName="manual")
        assert phase(world) == "Pending", "a claim of the same name is another claim"
        await world.patch(VOLUMES, "one", {"spec": {"claimRef": None}})
        await world.settle()
        assert bound(world) == "one"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_volume_that_is_to_be_retained_after_all_keeps_its_data_whoever_deletes_it(when: str) -> None:
    async with World(make) as world:
        await standard(world, "a")
        await claim(world)
        await select(world, "a")
        name = bound(world)
        if when == "before":
            await world.patch(VOLUMES, name, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
            await world.settle()
            assert DATA_FINALIZER not in world.get(VOLUMES, name, "")["metadata"]["finalizers"]
        await world.delete(VOLUME_CLAIMS, "data")
        await world.settle()
        if when == "after":  # it is being deleted, and its node has not removed the data yet
            await world.patch(VOLUMES, name, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
        else:
            assert volume_phase(world, name) == "Released"
            await world.delete(VOLUMES, name)
        await world.settle()
        assert not _exists(world, name)


async def test_a_volume_that_nobody_can_delete_has_failed() -> None:
    async with World(make) as world:
        await volume(world, "one", persistentVolumeReclaimPolicy="Delete")
        await claim(world, storageClassName="manual")
        await world.delete(VOLUME_CLAIMS, "data")
        await world.settle()
        assert volume_phase(world, "one") == "Failed"
        assert world.told[-1].reason == "VolumeFailedDelete"


async def test_a_bound_volume_is_protected_from_deletion() -> None:
    async with World(make) as world:
        await standard(world, "a")
        await claim(world)
        await select(world, "a")
        name = bound(world)
        await world.delete(VOLUMES, name)
        await world.settle()
        assert objects.deleting(world.get(VOLUMES, name, ""))
        assert phase(world) == "Bound"


async def test_the_life_of_a_claim_is_the_same_from_every_interrupted_point() -> None:
    async def scenario(world: World) -> object:
        await standard(world, "a")
        await claim(world)
        await select(world, "a")
        middle = world.outline(VOLUMES, VOLUME_CLAIMS)
        name = bound(world)
        await world.delete(VOLUME_CLAIMS, "data")
        await world.settle()
        await data_removed(world, name)
        return middle, world.outline(VOLUMES, VOLUME_CLAIMS)

    assert await every_interrupted_point(make, scenario) >= 8


# --- matching --------------------------------------------------------------------------------------------------------


def pv(name: str = "pv", size: str = "1Gi", **spec: Any) -> Object:
    given = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c", **spec}
    return {"metadata": {"name": name, "labels": {"disk": name}}, "spec": given, "status": {"phase": "Available"}}


def pvc(size: str = "1Gi", **spec: Any) -> Object:
    given = {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", **spec}
    given["resources"] = {"requests": {"storage": size}}
    return {"metadata": {"name": "data", "namespace": "ns", "uid": "u"}, "spec": given}


@pytest.mark.parametrize(
    ("volume_", "claim_", "expected"),
    [
        (pv(), pvc(), ""),
        (pv(size="1Gi"), pvc("2Gi"), "requested PV is too small"),
        (pv(storageClassName="d"), pvc(), "storageClassName does not match"),
        (pv(volumeMode="Block"), pvc(), "incompatible volumeMode"),
        (pv(), pvc(accessModes=["ReadWriteMany"]), "incompatible accessMode"),
    ],
)
def test_what_does_not_fit(volume_: Object, claim_: Object, expected: str) -> None:
    assert misfit(volume_, claim_) == expected


def test_selectors_and_nodes_choose_among_volumes() -> None:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}
    local = pv("local", nodeAffinity={"required": {"nodeSelectorTerms": [term]}})
    nodes = {name: {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}} for name in "ab"}
    assert best(pvc(), [local], nodes["a"]) == local
    assert best(pvc(), [local], nodes["b"]) is None
    assert reachable(pv(), nodes["b"])
    other = pv("other", "9Gi")
    wanted = pvc(selector={"matchLabels": {"disk": "other"}})
    assert best(wanted, [local, other], None) == other
    odd = {"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["3"]}]}
    assert not reachable(pv(nodeAffinity={"required": {"nodeSelectorTerms": [odd]}}), nodes["a"])
