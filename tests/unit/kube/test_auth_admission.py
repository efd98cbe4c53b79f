"""Admission plug-ins over a real registry: what is filled in, what is refused in which words, what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import kinds, namespaces
from cuboid.kube.admit import chain
from cuboid.kube.admit.accounts import MOUNT
from cuboid.kube.admit.chain import Options
from cuboid.kube.cache import Cache
from cuboid.kube.client import MERGE
from cuboid.kube.identity import SERVER, User
from cuboid.kube.kinds import Kinds
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.live import LivePolicy, ensure_builtin
from cuboid.kube.rbac.nodes import NodeRules
from cuboid.kube.registry import APPLY, Registry, WriteOptions
from cuboid.kube.store import Store
from cuboid.lib.errors import ForbiddenError

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
JANE = User("jane", ("system:authenticated",))


class World:
    def __init__(self, registry: Registry, policy: LivePolicy) -> None:
        self.registry = registry
        self.policy = policy
        self.nodes = NodeRules(registry)

    def allows(self, user: User, wanted: Attributes) -> bool:
        return self.policy.allows(user, wanted) or self.nodes.allows(user, wanted)

    async def create(
        self, kind: str, body: Object, namespace: str = "default", *, user: User = SERVER, group: str = ""
    ) -> Object:
        row = kinds.builtin(kind, group)
        place = namespace if row.namespaced else ""
        return (await self.registry.create(row, place, body, WriteOptions(user=user))).object

    async def refused(self, kind: str, body: Object, namespace: str = "default", **more: Any) -> str:
        with pytest.raises(ForbiddenError) as error:
            await self.create(kind, body, namespace, **more)
        return error.value.message


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = Store(tmp_path / "store.db")
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    registry = Registry(store, cache, served)
    await namespaces.ensure_permanent(registry)
    policy = LivePolicy()
    policy.load(registry)
    await ensure_builtin(registry)
    made = World(registry, policy)
    options = Options(pod_overhead_mib=32, toleration_seconds=7, mount_account_tokens=True)
    registry.admission = chain.make(registry, policy, made.allows, options)
    yield made
    store.close()


def pod(name: str = "x", resources: Object | None = None, **spec: Any) -> Object:
    container: Object = {"name": "main", "image": "i", **({"resources": resources} if resources else {})}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def tenant(world: World, name: str = "acme", **labels: str) -> None:
    """Its namespace, in which jane is admin."""
    metadata = {"name": name, "labels": {"cuboid.dev/tenant": "acme", **labels}}
    await world.create("Namespace", {"metadata": metadata})
    await admin_of(world, name, JANE.name)


# --- what a pod gets -------------------------------------------------------------------------------------------------


async def test_a_pod_gets_account_token_tolerations_overhead_and_priority(world: World) -> None:
    spec = (await world.create("Pod", pod()))["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert {(row["key"], row["tolerationSeconds"]) for row in spec["tolerations"]} == {
        ("node.kubernetes.io/not-ready", 7),
        ("node.kubernetes.io/unreachable", 7),
    }
    assert spec["overhead"] == {"memory": "32Mi"}
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    (mount,) = spec["containers"][0]["volumeMounts"]
    volume = next(row for row in spec["volumes"] if row["name"] == mount["name"])
    assert mount["mountPath"] == MOUNT and mount["readOnly"] and mount["name"].startswith("kube-api-access-")
    token, authority, _ = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}
    assert authority["configMap"]["name"] == "kube-root-ca.crt"


async def test_a_pod_without_automount_gets_no_token(world: World) -> None:
    assert "volumes" not in (await world.create("Pod", pod(automountServiceAccountToken=False)))["spec"]
    await world.create("ServiceAccount", {"metadata": {"name": "bare"}, "automountServiceAccountToken": False})
    assert "volumes" not in (await world.create("Pod", pod("y", serviceAccountName="bare")))["spec"]


async def test_an_account_that_does_not_exist_is_refused_in_words(world: World) -> None:
    assert await world.refused("Pod", pod(serviceAccountName="none")) == (
        'pods "x" is forbidden: error looking up service account default/none: serviceaccount "none" not found'
    )


async def test_pull_secrets_of_the_account_are_the_pods_unless_it_has_its_own(world: World) -> None:
    await world.create("ServiceAccount", {"metadata": {"name": "a"}, "imagePullSecrets": [{"name": "s"}]})
    assert (await world.create("Pod", pod(serviceAccountName="a")))["spec"]["imagePullSecrets"] == [{"name": "s"}]
    own = pod("y", serviceAccountName="a", imagePullSecrets=[{"name": "mine"}])
    assert (await world.create("Pod", own))["spec"]["imagePullSecrets"] == [{"name": "mine"}]


async def test_priority_comes_from_the_class_alone(world: World) -> None:
    group = "scheduling.k8s.io"
    await world.create("PriorityClass", {"metadata": {"name": "high"}, "value": 9}, group=group)
    assert (await world.create("Pod", pod(priorityClassName="high")))["spec"]["priority"] == 9
    assert "no PriorityClass with name none was found" in await world.refused("Pod", pod(priorityClassName="none"))
    assert "(7) must not be provided in pod spec" in await world.refused(
        "Pod", pod(priorityClassName="high", priority=7)
    )
    default = {"metadata": {"name": "base"}, "value": 3, "globalDefault": True}
    await world.create("PriorityClass", default, group=group)
    spec = (await world.create("Pod", pod("y")))["spec"]
    assert (spec["priority"], spec["priorityClassName"]) == (3, "base")
    other = {**default, "metadata": {"name": "other"}}
    assert "PriorityClass base is already marked as default. Only one default can exist" in await world.refused(
        "PriorityClass", other, group=group
    )


async def test_a_runtime_class_gives_overhead_and_place(world: World) -> None:
    row = {
        "metadata": {"name": "big"}, "handler": "big", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"disk": "ssd"}},
    }  # fmt: skip
    await world.create("RuntimeClass", row, group="node.k8s.io")
    spec = (await world.create("Pod", pod(runtimeClassName="big")))["spec"]
    assert spec["overhead"] == {"memory": "64Mi"} and spec["nodeSelector"] == {"disk": "ssd"}
    assert 'RuntimeClass "none" not found' in await world.refused("Pod", pod(runtimeClassName="none"))
    wrong = pod(runtimeClassName="big", overhead={"memory": "1Mi"})
    assert "doesn't match RuntimeClass's defined Overhead" in await world.refused("Pod", wrong)


# --- limits and quotas -----------------------------------------------------------------------------------------------


async def limit(world: World, **item: Any) -> None:
    await world.create("LimitRange", {"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **item}]}})


async def test_a_limit_range_fills_in_and_says_so(world: World) -> None:
    await limit(world, default={"memory": "64Mi"}, defaultRequest={"cpu": "100m"})
    made = await world.create("Pod", pod())
    resources = made["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == "64Mi" and resources["requests"]["cpu"] == "100m"
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].startswith(
        "LimitRanger plugin set: memory limit"
    )


@pytest.mark.parametrize(
    ("item", "resources", "words"),
    [
        ({"max": {"memory": "1Gi"}}, {"limits": {"memory": "2Gi"}},
         "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
        ({"min": {"cpu": "100m"}}, {"requests": {"cpu": "10m"}},
         "minimum cpu usage per Container is 100m, but request is 10m"),
        ({"maxLimitRequestRatio": {"cpu": "2"}}, {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
         "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
    ],
)  # fmt: skip
async def test_bounds_of_a_limit_range_are_kept(world: World, item: Object, resources: Object, words: str) -> None:
    await limit(world, **item)
    assert words in await world.refused("Pod", pod(resources=resources))


async def quota(world: World, namespace: str = "default", **hard: str) -> None:
    rows = {key.replace("_", "."): value for key, value in hard.items()}
    await world.create("ResourceQuota", {"metadata": {"name": "q"}, "spec": {"hard": rows}}, namespace)


async def test_a_quota_is_exceeded_in_kubernetes_words(world: World) -> None:
    await quota(world, pods="2", requests_memory="1Gi")
    assert "failed quota: q: must specify requests.memory for: main" in await world.refused("Pod", pod())
    small = {"requests": {"memory": "256Mi"}}
    for name in ("a", "b"):
        await world.create("Pod", pod(name, small))
    assert await world.refused("Pod", pod("c", small)) == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    )
    await world.registry.delete(kinds.builtin("Pod"), "default", "a", _at_once())
    large = {"requests": {"memory": "900Mi"}}
    told = await world.refused("Pod", pod("c", large))
    assert "requested: requests.memory=" in told and "limited: requests.memory=1Gi" in told
    await world.create("Pod", pod("c", small))


def _at_once() -> Any:
    from cuboid.kube.registry import DeleteOptions

    return DeleteOptions(grace=0)


async def test_no_number_of_creations_at_once_goes_beyond_a_quota(world: World) -> None:
    await quota(world, pods="10")
    results = await asyncio.gather(*(world.create("Pod", pod(f"p{n}")) for n in range(40)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 10
    assert all(isinstance(r, ForbiddenError) for r in results if isinstance(r, BaseException))


async def test_what_was_refused_or_ended_gives_its_room_back(world: World) -> None:
    await quota(world, pods="1")
    with pytest.raises(Exception, match="is invalid"):
        await world.create("Pod", {"metadata": {"name": "Not Valid"}, "spec": {"containers": []}})
    await world.create("Pod", pod("a"))
    row = kinds.builtin("Pod")
    await world.registry.patch(row, "default", "a", {"status": {"phase": "Succeeded"}}, MERGE, WriteOptions(), "status")
    await world.create("Pod", pod("b"))
    assert "exceeded quota" in await world.refused("Pod", pod("c"))


async def test_dry_runs_take_nothing(world: World) -> None:
    await quota(world, configmaps="1")
    row, body = kinds.builtin("ConfigMap"), {"metadata": {"name": "c"}}
    for _ in range(3):
        await world.registry.create(row, "default", body, WriteOptions(dry_run=True))
    await world.create("ConfigMap", body)
    assert "exceeded quota" in await world.refused("ConfigMap", {"metadata": {"name": "d"}})


async def test_an_update_that_enlarges_is_counted(world: World) -> None:
    await quota(world, requests_storage="10Gi")
    claim = {
        "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    }
    told = await world.refused("PersistentVolumeClaim", claim)
    assert "requested: requests.storage=20Gi, used: requests.storage=0, limited: requests.storage=10Gi" in told


async def test_a_tenants_quota_is_one_for_all_of_its_namespaces(world: World) -> None:
    for name in ("acme", "acme-ci"):
        await tenant(world, name)
        labels = {"cuboid.dev/tenant": "acme", "app.kubernetes.io/managed-by": "cuboid-tenant"}
        body = {"metadata": {"name": "cuboid-tenant", "labels": labels}, "spec": {"hard": {"pods": "3"}}}
        await world.create("ResourceQuota", body, name)
    for namespace, name in (("acme", "a"), ("acme", "b"), ("acme-ci", "c")):
        await world.create("Pod", pod(name), namespace)
    for namespace in ("acme", "acme-ci"):
        assert "used: pods=3, limited: pods=3" in await world.refused("Pod", pod("d"), namespace)


# --- tenants and rights ----------------------------------------------------------------------------------------------


async def test_a_tenant_chooses_no_node_no_overhead_and_no_foreign_priority(world: World) -> None:
    await tenant(world)
    assert "the scheduler chooses the node" in await world.refused("Pod", pod(nodeName="n"), "acme", user=JANE)
    assert "overhead may not be set" in await world.refused("Pod", pod(overhead={"memory": "1"}), "acme", user=JANE)
    critical = pod(priorityClassName="system-cluster-critical")
    assert "is not one that tenant acme may use" in await world.refused("Pod", critical, "acme", user=JANE)
    assert (await world.create("Pod", pod("fine"), "acme", user=JANE))["spec"]["overhead"] == {"memory": "32Mi"}


@pytest.mark.parametrize("term", [{"namespaces": ["rival"]}, {"namespaceSelector": {}}])
async def test_a_tenants_affinity_does_not_ask_where_pods_of_others_are(world: World, term: Object) -> None:
    await tenant(world)
    full = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}, **term}
    hard = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [full]}}
    soft = {
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": full}]}
    }
    for affinity in (hard, soft):
        assert "not a tenant's" in await world.refused("Pod", pod(affinity=affinity), "acme", user=JANE)


async def test_a_template_does_not_carry_past_the_guard_what_its_writer_may_not(world: World) -> None:
    await tenant(world)
    body = pod(nodeName="n")
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}
    body["metadata"]["ownerReferences"] = [owner]
    assert "the scheduler chooses the node" in await world.refused("Pod", body, "acme", user=SERVER)


async def test_what_is_kept_for_a_tenant_stays(world: World) -> None:
    await tenant(world)
    labels = {"app.kubernetes.io/managed-by": "cuboid-tenant"}
    await world.create("ResourceQuota", {"metadata": {"name": "q", "labels": labels}, "spec": {"hard": {}}}, "acme")
    row = kinds.builtin("ResourceQuota")
    from cuboid.kube.registry import DeleteOptions

    with pytest.raises(ForbiddenError, match="kept by the platform"):
        await world.registry.delete(row, "acme", "q", DeleteOptions(user=JANE))
    with pytest.raises(ForbiddenError, match="kept by the platform"):
        body = {"metadata": {"labels": None}}
        await world.registry.patch(row, "acme", "q", body, MERGE, WriteOptions(user=JANE))


async def test_node_ports_and_foreign_addresses_are_not_a_tenants(world: World) -> None:
    await tenant(world)
    base = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}}
    assert "use type ClusterIP" in await world.refused("Service", base, "acme", user=JANE)
    outside = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["10.0.0.1"]}}
    assert "externalIPs may not be set" in await world.refused("Service", outside, "acme", user=JANE)


async def admin_of(world: World, namespace: str, user: str) -> None:
    body = {
        "metadata": {"name": "admin"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
    }
    await world.create("RoleBinding", body, namespace, group=RBAC)


def role(*resources: str, verbs: tuple[str, ...] = ("get",)) -> Object:
    return {
        "metadata": {"name": "r"},
        "rules": [{"verbs": list(verbs), "apiGroups": [""], "resources": list(resources)}],
    }


async def test_nobody_grants_more_than_they_have(world: World) -> None:
    await tenant(world)
    told = await world.refused("Role", role("nodes"), "acme", user=JANE, group=RBAC)
    assert 'user "jane" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently' in told
    assert '{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}' in told
    await world.create("Role", role("pods"), "acme", user=JANE, group=RBAC)
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": "jane"}],
    }
    assert "not currently held" in await world.refused("RoleBinding", binding, "acme", user=JANE, group=RBAC)
    binding["roleRef"] = {"apiGroup": RBAC, "kind": "Role", "name": "r"}
    await world.create("RoleBinding", binding, "acme", user=JANE, group=RBAC)


async def test_who_may_patch_and_not_create_makes_nothing_by_applying(world: World) -> None:
    rules = [{"verbs": ["get", "patch", "update"], "apiGroups": [""], "resources": ["configmaps"]}]
    await world.create("Role", {"metadata": {"name": "p"}, "rules": rules}, group=RBAC)
    ref, subject = {"apiGroup": RBAC, "kind": "Role", "name": "p"}, {"kind": "User", "apiGroup": RBAC, "name": "jane"}
    await world.create("RoleBinding", {"metadata": {"name": "p"}, "roleRef": ref, "subjects": [subject]}, group=RBAC)
    row, options = kinds.builtin("ConfigMap"), WriteOptions(user=JANE, manager="jane")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
    with pytest.raises(ForbiddenError, match='cannot create resource "configmaps"'):
        await world.registry.patch(row, "default", "c", body, APPLY, options)
    await world.create("ConfigMap", body)
    await world.registry.patch(row, "default", "c", {**body, "data": {"b": "c"}}, APPLY, options)


async def test_a_role_that_is_bound_does_not_grow_by_its_holder(world: World) -> None:
    await tenant(world)
    await world.create("Role", role("pods"), "acme", user=JANE, group=RBAC)
    row = kinds.builtin("Role", RBAC)
    for grown in (role("nodes"), role("pods", verbs=("*",))):
        with pytest.raises(ForbiddenError, match="not currently held"):
            await world.registry.update(row, "acme", "r", grown, WriteOptions(user=JANE))


async def test_an_owner_that_one_may_not_change_is_not_held_back(world: World) -> None:
    await tenant(world)
    ref = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "blockOwnerDeletion": True}
    body = {"metadata": {"name": "c", "ownerReferences": [ref]}}
    assert "cannot set blockOwnerDeletion" in await world.refused("ConfigMap", body, "acme", user=JANE)
    ref |= {"kind": "Pod"}
    await world.create("ConfigMap", body, "acme", user=JANE)
