"""Writes as Kubernetes does them, through both clients: over HTTPS to a real server, and in the server's process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import namespaces
from cuboid.kube.cache import WINDOW, Cache
from cuboid.kube.client import (
    APPLY,
    BUDGETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    JSON,
    LEASES,
    MERGE,
    PODS,
    STATEFUL_SETS,
    Client,
    KubeClient,
    Resource,
)  # fmt: skip
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.errors import (
    AlreadyExistsError,
    ConflictError,
    CuboidError,
    ExhaustedError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
)
from tests.harness.kube_server import ServerProcess, pod, serving

NS = "default"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("writes")) as running:
        yield running


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalClient]:
    """Nothing but the registry: no controller writes here."""
    store = Store(tmp_path / "store.db")
    kinds = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in kinds.stored()})
    registry = Registry(store, cache, kinds)
    await namespaces.ensure_permanent(registry)
    yield LocalClient(registry, manager="tester")
    store.close()


@pytest.fixture(params=["http", "local"])
async def client(request: pytest.FixtureRequest, server: ServerProcess, local: LocalClient) -> AsyncIterator[Client]:
    if request.param == "local":
        yield local
        return
    async with KubeClient(server.url, server.token, server.ca_file, manager="tester") as http:
        yield http


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "example/app:1"}]}}
    whole = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": whole}


def still(name: str, **more: Any) -> Object:
    """A pod that nobody schedules."""
    return {**pod(name, schedulerName="nobody"), **more}


def managers(document: Object) -> list[tuple[str, str, str]]:
    entries = document["metadata"].get("managedFields", [])
    return [(entry["manager"], entry["operation"], entry.get("subresource", "")) for entry in entries]


def fields(document: Object, manager: str, operation: str) -> Object:
    entries = document["metadata"]["managedFields"]
    found: Object = next(e for e in entries if (e["manager"], e["operation"]) == (manager, operation))["fieldsV1"]
    return found


# --- field ownership -------------------------------------------------------------------------------------------------


async def test_every_write_says_who_wrote_what(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("owned", a="1", b="2"), NS)
    assert managers(made) == [("tester", "Update", "")]
    assert fields(made, "tester", "Update") == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}
    patched = await client.patch(CONFIG_MAPS, "owned", {"data": {"b": None, "c": "3"}}, NS, form=MERGE)
    assert fields(patched, "tester", "Update") == {"f:data": {".": {}, "f:a": {}, "f:c": {}}}


async def test_an_apply_creates_owns_and_removes_what_it_leaves_out(client: Client) -> None:
    made = await client.patch(CONFIG_MAPS, "applied", config_map("applied", a="1", b="2"), NS, form=APPLY)
    assert made["data"] == {"a": "1", "b": "2"} and managers(made) == [("tester", "Apply", "")]
    assert fields(made, "tester", "Apply") == {"f:data": {"f:a": {}, "f:b": {}}}
    await client.patch(CONFIG_MAPS, "applied", {"data": {"theirs": "x"}}, NS, form=MERGE)
    second = await client.patch(CONFIG_MAPS, "applied", config_map("applied", a="1"), NS, form=APPLY)
    assert second["data"] == {"a": "1", "theirs": "x"}
    again = await client.patch(CONFIG_MAPS, "applied", config_map("applied", a="1"), NS, form=APPLY)
    assert again["metadata"] == second["metadata"], "the same again is no new version"


async def test_an_apply_of_what_another_owns_is_a_conflict_unless_forced(client: Client) -> None:
    await client.create(DEPLOYMENTS, deployment("contested", replicas=0), NS)
    with pytest.raises(ConflictError) as caught:
        await client.patch(DEPLOYMENTS, "contested", deployment("contested", paused=True, replicas=2), NS, form=APPLY)
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "tester" using apps/v1: .spec.replicas'
    )
    assert caught.value.details["causes"][0]["field"] == ".spec.replicas"
    config = deployment("contested", paused=True, replicas=0)
    forced = await client.patch(DEPLOYMENTS, "contested", config, NS, form=APPLY, force=True)
    assert "f:replicas" in fields(forced, "tester", "Apply")["f:spec"]


async def test_an_applied_object_must_say_what_it_is_and_may_not_name_owners(client: Client) -> None:
    with pytest.raises(InvalidError, match="apiVersion"):
        await client.patch(CONFIG_MAPS, "x", {"metadata": {"name": "x"}}, NS, form=APPLY)
    owned = config_map("x")
    owned["metadata"]["managedFields"] = [{"manager": "me"}]
    with pytest.raises(InvalidError, match=r"metadata\.managedFields must be nil"):
        await client.patch(CONFIG_MAPS, "x", owned, NS, form=APPLY)
    with pytest.raises(InvalidError, match="does not match the name on the URL"):
        await client.patch(CONFIG_MAPS, "x", config_map("y"), NS, form=APPLY)
    twice = {**still("x"), "spec": {"containers": [{"name": "a"}, {"name": "a"}]}}
    words = (
        r"typed patch object \(default/x; /v1, Kind=Pod\): \.spec\.containers: duplicate entries for key \[name=\"a\"\]"
    )
    with pytest.raises(InvalidError, match=words):
        await client.patch(PODS, "x", twice, NS, form=APPLY)


async def test_owners_are_reset_on_demand_and_then_not_tracked_until_the_next_apply(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("reset", a="1"), NS)
    kept = await client.patch(CONFIG_MAPS, "reset", {"metadata": {"managedFields": []}}, NS, form=MERGE)
    assert managers(kept) == [("tester", "Update", "")]
    reset = await client.patch(CONFIG_MAPS, "reset", {"metadata": {"managedFields": [{}]}}, NS, form=MERGE)
    assert managers(reset) == []
    assert managers(await client.patch(CONFIG_MAPS, "reset", {"data": {"b": "2"}}, NS, form=MERGE)) == []
    applied = await client.patch(CONFIG_MAPS, "reset", config_map("reset", c="3"), NS, form=APPLY)
    assert managers(applied) == [("tester", "Apply", ""), ("before-first-apply", "Update", "")]


async def test_a_write_that_changes_nothing_is_no_new_version(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("same", a="1"), NS)
    for form, patch in ((MERGE, {"data": {"a": "1"}}), (JSON, [{"op": "test", "path": "/data/a", "value": "1"}])):
        same = await client.patch(CONFIG_MAPS, "same", patch, NS, form=form)
        assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert (await client.update(CONFIG_MAPS, made))["metadata"] == made["metadata"]


async def test_a_status_has_owners_of_its_own(client: Client) -> None:
    await client.create(PODS, still("status-owned"), NS)
    config = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "status-owned"}, "status": {"message": "hi"}}
    applied = await client.patch(PODS, "status-owned", config, NS, form=APPLY, sub="status")
    assert ("tester", "Apply", "status") in managers(applied)
    assert applied["status"]["message"] == "hi" and applied["status"]["phase"] == "Pending"
    assert (await client.get(PODS, "status-owned", NS, sub="status"))["status"]["message"] == "hi"
    with pytest.raises(NotFoundError):
        await client.patch(PODS, "nobody", {**config, "metadata": {"name": "nobody"}}, NS, form=APPLY, sub="status")


# --- births and changes ----------------------------------------------------------------------------------------------


async def test_a_put_creates_a_lease_and_no_config_map(client: Client) -> None:
    lease = {"metadata": {"name": "put", "namespace": NS}, "spec": {"holderIdentity": "me"}}
    assert (await client.update(LEASES, lease))["metadata"]["uid"]
    made = await client.get(LEASES, "put", NS)
    await client.delete(LEASES, "put", NS)
    with pytest.raises(ConflictError, match=r"UID in object meta: $"):
        await client.update(LEASES, made)
    with pytest.raises(NotFoundError):
        await client.update(CONFIG_MAPS, {"metadata": {"name": "put", "namespace": NS}})


async def test_the_name_of_an_object_can_not_be_changed(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("named"), NS)
    with pytest.raises(InvalidError, match="does not match the name on the URL"):
        await client.patch(CONFIG_MAPS, "named", {"metadata": {"name": "other"}}, NS, form=MERGE)


async def test_a_patch_for_another_uid_or_version_is_a_conflict(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("precise"), NS)
    for metadata in ({"uid": "another"}, {"resourceVersion": "1"}):
        with pytest.raises(ConflictError):
            await client.patch(CONFIG_MAPS, "precise", {"metadata": metadata}, NS, form=MERGE)


async def test_generated_names_differ_and_given_ones_collide(client: Client) -> None:
    body = {"metadata": {"generateName": "gen-"}}
    names = {(await client.create(CONFIG_MAPS, body, NS))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5 and all(name.startswith("gen-") for name in names)
    with pytest.raises(AlreadyExistsError):
        await client.create(CONFIG_MAPS, config_map(names.pop()), NS)


# --- deletion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_a_propagation_policy_becomes_a_finalizer(client: Client, policy: str, finalizer: str) -> None:
    name = f"propagated-{finalizer.lower()}"
    await client.create(CONFIG_MAPS, config_map(name), NS)
    asked = await client.delete(CONFIG_MAPS, name, NS, propagation=policy)
    assert asked["metadata"]["finalizers"] == [finalizer]
    assert asked["metadata"]["deletionTimestamp"] and asked["metadata"]["deletionGracePeriodSeconds"] == 0


async def test_a_job_leaves_its_pods_unless_it_is_told_otherwise(client: Client) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example/app:1"}]}}
    job = {"metadata": {"name": "keeper"}, "spec": {"suspend": True, "template": template}}
    await client.create(JOBS, job, NS)
    assert "orphan" in (await client.delete(JOBS, "keeper", NS))["metadata"]["finalizers"]


async def test_a_deleted_object_takes_no_new_finalizers_and_goes_with_its_last(client: Client) -> None:
    held = config_map("held-here")
    held["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await client.create(CONFIG_MAPS, held, NS)
    await client.delete(CONFIG_MAPS, "held-here", NS)
    more = {"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}}
    with pytest.raises(InvalidError, match=r"found new finalizers \[\]string\{\"example.com/c\"\}"):
        await client.patch(CONFIG_MAPS, "held-here", more, NS, form=MERGE)
    await client.patch(CONFIG_MAPS, "held-here", {"metadata": {"finalizers": ["example.com/b"]}}, NS, form=MERGE)
    await client.patch(CONFIG_MAPS, "held-here", {"metadata": {"finalizers": []}}, NS, form=MERGE)
    with pytest.raises(NotFoundError):
        await client.get(CONFIG_MAPS, "held-here", NS)


async def test_a_grace_period_can_only_be_shortened(client: Client) -> None:
    body = still("graceful")
    body["spec"]["nodeName"] = "nowhere"
    made = await client.create(PODS, body, NS)
    first = await client.delete(PODS, "graceful", NS, grace=60)
    assert first["metadata"]["generation"] == made["metadata"]["generation"] + 1
    longer = await client.delete(PODS, "graceful", NS, grace=90)
    assert longer["metadata"]["deletionTimestamp"] == first["metadata"]["deletionTimestamp"]
    shorter = await client.delete(PODS, "graceful", NS, grace=10)
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 10
    assert shorter["metadata"]["deletionTimestamp"] < first["metadata"]["deletionTimestamp"]
    assert shorter["metadata"]["generation"] == first["metadata"]["generation"]
    with pytest.raises(ConflictError, match=r"the UID in the precondition \(other\) does not match the UID in record"):
        await client.delete(PODS, "graceful", NS, uid="other")
    await client.delete(PODS, "graceful", NS, grace=0)
    with pytest.raises(NotFoundError):
        await client.get(PODS, "graceful", NS)


# --- sub-resources ---------------------------------------------------------------------------------------------------


async def test_a_scale_is_read_put_patched_and_applied(client: Client) -> None:
    await client.create(DEPLOYMENTS, deployment("scaled"), NS)
    scale = await client.get(DEPLOYMENTS, "scaled", NS, sub="scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {} and scale["status"] == {"replicas": 0, "selector": "app=scaled"}
    anyhow = {key: value for key, value in scale["metadata"].items() if key != "resourceVersion"}
    put = await client.update(DEPLOYMENTS, {**scale, "metadata": anyhow, "spec": {"replicas": 0}}, sub="scale")
    assert put["metadata"]["uid"] == scale["metadata"]["uid"]
    patched = await client.patch(DEPLOYMENTS, "scaled", {"spec": {"replicas": 2}}, NS, form=MERGE, sub="scale")
    assert patched["spec"] == {"replicas": 2}
    whole = await client.get(DEPLOYMENTS, "scaled", NS)
    assert whole["spec"]["replicas"] == 2 and ("tester", "Update", "scale") in managers(whole)
    with pytest.raises(ConflictError):
        await client.update(DEPLOYMENTS, {**scale, "spec": {"replicas": 3}}, sub="scale")
    config = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "scaled"}, "spec": {"replicas": 1}}
    with pytest.raises(ConflictError, match=r'conflict with "tester" with subresource "scale" using apps/v1'):
        await client.patch(DEPLOYMENTS, "scaled", config, NS, form=APPLY, sub="scale")
    forced = await client.patch(DEPLOYMENTS, "scaled", config, NS, form=APPLY, sub="scale", force=True)
    assert forced["spec"] == {"replicas": 1}
    with pytest.raises(InvalidError) as refused:
        await client.patch(DEPLOYMENTS, "scaled", {"spec": {"replicas": -1}}, NS, form=MERGE, sub="scale")
    assert refused.value.details["causes"][0]["field"] == "spec.replicas"
    await client.delete(DEPLOYMENTS, "scaled", NS)


async def test_a_stateful_set_scales_and_a_config_map_has_no_scale(client: Client) -> None:
    body = deployment("stateful")
    body["kind"] = "StatefulSet"
    await client.create(STATEFUL_SETS, body, NS)
    assert (await client.get(STATEFUL_SETS, "stateful", NS, sub="scale"))["status"]["selector"] == "app=stateful"
    with pytest.raises((UnsupportedError, NotFoundError)):
        await client.get(CONFIG_MAPS, "stateful", NS, sub="scale")


async def test_a_pod_is_bound_once_and_keeps_the_bindings_annotations(client: Client) -> None:
    made = await client.create(PODS, still("bound-once"), NS)
    binding = {
        "metadata": {"name": "bound-once", "annotations": {"a": "b"}, "uid": made["metadata"]["uid"]},
        "target": {"kind": "Node", "name": "n1"},
    }
    with pytest.raises(ConflictError):
        other = {**binding, "metadata": {"name": "bound-once", "uid": "another"}}
        await client.create(PODS, other, NS, name="bound-once", sub="binding")
    assert (await client.create(PODS, binding, NS, name="bound-once", sub="binding"))["status"] == "Success"
    bound = await client.get(PODS, "bound-once", NS)
    assert bound["spec"]["nodeName"] == "n1" and bound["metadata"]["annotations"]["a"] == "b"
    with pytest.raises(ConflictError, match='already assigned to node "n1"'):
        await client.create(PODS, binding, NS, name="bound-once", sub="binding")
    await client.delete(PODS, "bound-once", NS, grace=0)


def debugger(name: str, **more: Any) -> Object:
    return {"spec": {"ephemeralContainers": [{"name": name, "image": "example/debug:1", **more}]}}


async def test_ephemeral_containers_are_added_and_nothing_else(client: Client) -> None:
    await client.create(PODS, still("debugged"), NS)
    patch = {**debugger("d1", targetContainerName="main"), "metadata": {"labels": {"x": "y"}}}
    added = await client.patch(PODS, "debugged", patch, NS, sub="ephemeralcontainers")
    assert [c["name"] for c in added["spec"]["ephemeralContainers"]] == ["d1"]
    assert "labels" not in added["metadata"]
    for change, words in (
        ({"spec": {"ephemeralContainers": None}}, 'existing ephemeral containers "d1" may not be removed'),
        ({"spec": {"ephemeralContainers": [{"name": "d1", "image": "x"}]}}, '"d1" may not be changed'),
    ):
        with pytest.raises(InvalidError, match=words):
            await client.patch(PODS, "debugged", change, NS, form=MERGE, sub="ephemeralcontainers")
    for wrong, field in (
        (debugger("main"), "name"),
        (debugger("d2", ports=[{"containerPort": 80}]), "ports"),
        (debugger("d2", targetContainerName="none"), "targetContainerName"),
        (debugger("BAD"), "name"),
    ):
        with pytest.raises(InvalidError) as caught:
            await client.patch(PODS, "debugged", wrong, NS, sub="ephemeralcontainers")
        assert [cause["field"] for cause in caught.value.details["causes"]] == [f"spec.ephemeralContainers[1].{field}"]
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "example/app:2"}]
    moved = await client.patch(PODS, "debugged", image, NS, form=JSON)
    assert moved["spec"]["containers"][0]["image"] == "example/app:2", "a pod with one can still be changed"


def sized(cpu: str, memory: str) -> Object:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "1", "memory": "1Gi"}}


async def test_a_resize_changes_cpu_and_memory_and_nothing_else(client: Client) -> None:
    body = still("resized")
    body["spec"]["containers"][0]["resources"] = sized("100m", "64Mi")
    made = await client.create(PODS, body, NS)
    patch = {"spec": {"containers": [{"name": "main", "image": "other", "resources": sized("200m", "64Mi")}]}}
    resized = await client.patch(PODS, "resized", patch, NS, sub="resize")
    container = resized["spec"]["containers"][0]
    assert container["resources"]["requests"]["cpu"] == "200m" and container["image"] == "registry.example/app:1"
    assert resized["metadata"]["generation"] == made["metadata"]["generation"] + 1

    def resources(value: Object) -> Object:
        return {"spec": {"containers": [{"name": "main", "resources": value}]}}

    for wrong, words in (
        (resources({"limits": {"ephemeral-storage": "1Gi"}}), "only cpu and memory resources are mutable"),
        (resources({"requests": {"cpu": "1", "memory": "1Gi"}}), "Pod QOS Class may not change"),
        (resources({"requests": {"cpu": "2"}}), "must be less than or equal to cpu limit"),
        (resources({"limits": {"cpu": None}}), "resource limits cannot be removed"),
        ({"spec": {"containers": [{"name": "new", "image": "x"}]}}, "containers may not be renamed or reordered"),
    ):
        with pytest.raises(InvalidError, match=words):
            await client.patch(PODS, "resized", wrong, NS, sub="resize")


# --- eviction --------------------------------------------------------------------------------------------------------


async def running(client: Client, name: str, *, ready: bool = True, guard: str = "") -> Object:
    body = still(name)
    body["metadata"]["labels"] = {"guarded": guard or name}
    body["spec"]["nodeName"] = "nowhere"
    await client.create(PODS, body, NS)
    condition = {"type": "Ready", "status": str(ready)}
    status = {"status": {"phase": "Running", "conditions": [condition]}}
    return await client.patch(PODS, name, status, NS, sub="status")


async def budget(client: Client, guarded: str, **status: Any) -> Object:
    """With the status that the controller of budgets finds as well, where there is one."""
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"guarded": guarded}}}
    await client.create(BUDGETS, {"metadata": {"name": guarded}, "spec": spec}, NS)
    return await client.patch(BUDGETS, guarded, {"status": {"observedGeneration": 1, **status}}, NS, sub="status")


async def evict(client: Client, name: str, **options: Any) -> Object:
    body = {"metadata": {"name": name}, "deleteOptions": options}
    return await client.create(PODS, body, NS, name=name, sub="eviction")


async def cleaned(client: Client, *pods: str, guard: str) -> None:
    for name in pods:
        await client.delete(PODS, name, NS, grace=0)
    await client.delete(BUDGETS, guard, NS)


async def test_an_eviction_takes_from_the_budget_and_is_refused_when_it_is_used_up(client: Client) -> None:
    for name in ("evicted", "other"):
        await running(client, name, guard="g1")
    await budget(client, "g1", disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1, expectedPods=2)
    await evict(client, "evicted", dryRun=["All"])
    assert "deletionTimestamp" not in (await client.get(PODS, "evicted", NS))["metadata"]
    assert (await evict(client, "evicted"))["status"] == "Success"
    assert (await client.get(PODS, "evicted", NS))["metadata"]["deletionTimestamp"]
    left = (await client.get(BUDGETS, "g1", NS))["status"]
    assert left["disruptionsAllowed"] == 0, "who is disrupted, a controller may have confirmed already"
    with pytest.raises(ExhaustedError) as caught:
        await evict(client, "other")
    assert caught.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    [cause] = caught.value.details["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert re.fullmatch(r"The disruption budget g1 needs 1 healthy pods and has [12] currently", cause["message"])
    assert "deletionTimestamp" not in (await client.get(PODS, "other", NS))["metadata"]
    await cleaned(client, "evicted", "other", guard="g1")


async def test_a_budget_that_is_not_up_to_date_refuses_for_now(local: LocalClient) -> None:
    await running(local, "early")
    await budget(local, "early", observedGeneration=0, disruptionsAllowed=1, desiredHealthy=1)
    with pytest.raises(ExhaustedError) as caught:
        await evict(local, "early")
    assert caught.value.details["retryAfterSeconds"] == 10
    [cause] = caught.value.details["causes"]
    assert cause["message"] == "The disruption budget early is still being processed by the server."


async def test_many_evictions_at_once_take_no_more_than_there_is(local: LocalClient) -> None:
    names = [f"crowd-{number}" for number in range(8)]
    for name in names:
        await running(local, name, guard="crowd")
    await budget(local, "crowd", disruptionsAllowed=3, currentHealthy=8, desiredHealthy=5)
    results = await asyncio.gather(*(evict(local, name) for name in names), return_exceptions=True)
    assert sum(isinstance(result, ExhaustedError) for result in results) == 5
    deleted = [pod for pod in (await local.list(PODS, NS)).items if "deletionTimestamp" in pod["metadata"]]
    status = (await local.get(BUDGETS, "crowd", NS))["status"]
    assert len(deleted) == len(status["disruptedPods"]) == 3 and status["disruptionsAllowed"] == 0
    assert status["conditions"][0]["reason"] == "InsufficientPods"


async def test_pods_that_are_finished_or_beside_a_healthy_budget_may_always_go(client: Client) -> None:
    await running(client, "well", guard="g2")
    await running(client, "sick", guard="g2", ready=False)
    await running(client, "done", guard="g2")
    await client.patch(PODS, "done", {"status": {"phase": "Succeeded"}}, NS, sub="status")
    await budget(client, "g2", disruptionsAllowed=0, currentHealthy=1, desiredHealthy=1, expectedPods=2)
    assert (await evict(client, "sick"))["status"] == "Success"
    assert (await evict(client, "done"))["status"] == "Success"
    with pytest.raises(ExhaustedError):
        await evict(client, "well")
    await cleaned(client, "well", "sick", guard="g2")


async def test_a_pod_with_two_budgets_can_not_be_evicted(client: Client) -> None:
    await running(client, "twice")
    await budget(client, "twice", disruptionsAllowed=1)
    spec = {"minAvailable": 0, "selector": {"matchLabels": {"guarded": "twice"}}}
    await client.create(BUDGETS, {"metadata": {"name": "second"}, "spec": spec}, NS)
    with pytest.raises(CuboidError, match="more than one PodDisruptionBudget"):
        await evict(client, "twice")
    await client.delete(BUDGETS, "second", NS)
    await cleaned(client, "twice", guard="twice")


# --- lists -----------------------------------------------------------------------------------------------------------


async def test_a_page_goes_on_where_the_last_ended_and_only_in_its_own_collection(client: Client) -> None:
    for number in range(5):
        await client.create(CONFIG_MAPS, config_map(f"page-{number}"), NS)
    whole = [item["metadata"]["name"] for item in (await client.list(CONFIG_MAPS, NS)).items]
    first = await client.list(CONFIG_MAPS, NS, limit=2)
    second = await client.list(CONFIG_MAPS, NS, limit=100, token=first.token)
    assert [item["metadata"]["name"] for item in first.items + second.items] == whole
    for resource, namespace in ((PODS, NS), (CONFIG_MAPS, "kube-system")):
        with pytest.raises(InvalidError, match="continue key is not valid"):
            await client.list(resource, namespace, token=first.token)
    with pytest.raises(InvalidError, match="continue key is not valid"):
        await client.list(CONFIG_MAPS, NS, token="bm9uc2Vuc2U=")


async def test_every_kind_is_selected_by_name_and_labels(client: Client) -> None:
    await client.create(CONFIG_MAPS, {"metadata": {"name": "chosen", "labels": {"tier": "x"}}}, NS)
    for selector in ({"fields": "metadata.name=chosen"}, {"labels": "tier in (x,y)"}):
        found = await client.list(CONFIG_MAPS, NS, **selector)  # type: ignore[arg-type]
        assert [item["metadata"]["name"] for item in found.items] == ["chosen"]
    with pytest.raises(InvalidError, match="field label not supported"):
        await client.list(Resource("batch", "v1", "jobs"), NS, fields="spec.suspend=true")


async def test_a_watch_from_before_all_that_is_kept_has_to_list_again(local: LocalClient) -> None:
    since = (await local.list(CONFIG_MAPS, NS)).resource_version
    for start in range(0, WINDOW + 200, 200):
        bodies = (config_map(f"c{number}") for number in range(start, start + 200))
        await asyncio.gather(*(local.create(CONFIG_MAPS, body, NS) for body in bodies))
    with pytest.raises(GoneError, match="too old resource version"):
        async with aclosing(local.watch(CONFIG_MAPS, NS, since=since)) as changes:
            await anext(changes)
    newest = (await local.list(CONFIG_MAPS, NS, limit=1)).resource_version
    async with aclosing(local.watch(CONFIG_MAPS, NS, since=newest)) as changes:
        await local.patch(CONFIG_MAPS, "c0", {"data": {"a": "1"}}, NS, form=MERGE)
        kind, document = await anext(changes)
    assert (kind, document["metadata"]["name"]) == ("MODIFIED", "c0")
