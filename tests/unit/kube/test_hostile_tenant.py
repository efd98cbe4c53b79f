"""What a tenant may write and yet must not get by it: others' time, others' ports, rights of a later day.

What stopped the server for minutes, or for ever, is held by the time limit that every test has."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube import deletion, kinds, registry
from cuboid.kube.client import MERGE
from cuboid.kube.fields import Fields
from cuboid.kube.identity import SERVER, User
from cuboid.kube.options import JSON, DeleteOptions
from cuboid.kube.rbac.policy import Policy
from cuboid.kube.rbac.rules import MOST_TOLD, Rule, Table, rules_of, uncovered
from cuboid.kube.registry import WriteOptions
from cuboid.kube.validate_pod_change import validate_pod_change
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import ForbiddenError, InvalidError, NotFoundError
from cuboid.server.authn.account_tokens import issuer_in
from tests.unit.kube.test_auth_admission import JANE, RBAC, World, tenant, world

__all__ = ["world"]
Object = dict[str, Any]
NOW = 1_800_000_000.0


def many(letter: str, count: int = 3_000) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


# --- roles -----------------------------------------------------------------------------------------------------------


def test_a_rule_that_lists_more_rights_than_anybody_could_count_is_judged_at_once() -> None:
    asked = Rule(tuple(many("v")), tuple(many("g")), tuple(many("r")), tuple(many("n")))
    assert asked.size == 3_000**4
    assert len(uncovered([Table([Rule(("get",), ("",), ("pods",))])], [asked])) == MOST_TOLD


def test_what_a_rule_repeats_counts_once() -> None:
    raw = {"verbs": ["get"] * 9, "apiGroups": [""] * 9, "resources": ["pods", "pods"], "resourceNames": ["a", "a"]}
    assert rules_of({"rules": [raw]}) == (Rule(("get",), ("",), ("pods",), ("a",)),)


async def test_a_role_of_a_tenant_lists_no_more_rights_than_a_server_can_look_at(world: World) -> None:
    await tenant(world)
    names = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": many("n", 60_000)}
    role = {"metadata": {"name": "r"}, "rules": [names]}
    assert "more than 50000 rights" in await world.refused("Role", role, "acme", user=JANE, group=RBAC)
    repeated = {"verbs": ["get"] * 5_000, "apiGroups": [""] * 5_000, "resources": ["pods"] * 5_000}
    await world.create("Role", {"metadata": {"name": "r"}, "rules": [repeated]}, "acme", user=JANE, group=RBAC)


@pytest.mark.parametrize("kind", ["Role", "ClusterRole"])
async def test_a_role_that_does_not_exist_yet_is_not_bound_for_what_it_may_give_one_day(
    world: World, kind: str
) -> None:
    await tenant(world)
    binding = {
        "metadata": {"name": "early"},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": "later"},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": "jane"}],
    }
    with pytest.raises(NotFoundError, match='"later" not found'):
        await world.create("RoleBinding", binding, "acme", user=JANE, group=RBAC)
    await world.create("RoleBinding", binding, "acme", user=SERVER, group=RBAC)


def test_a_role_is_there_from_its_first_word_to_its_last() -> None:
    policy = Policy()
    policy.put("Role", {"metadata": {"name": "r", "namespace": "a"}})
    policy.put("ClusterRole", {"metadata": {"name": "c"}})
    assert policy.has_role(("a", "r")) and policy.has_role(("", "c"))
    assert not policy.has_role(("b", "r")) and not policy.has_role(("", "r")) and not policy.has_role(("a", "c"))
    policy.remove("Role", ("a", "r"))
    assert not policy.has_role(("a", "r"))


# --- services --------------------------------------------------------------------------------------------------------


async def test_a_number_of_a_node_port_is_not_a_tenants_under_another_type(world: World) -> None:
    """An ExternalName service has no traffic, but what it writes down is taken from everybody."""
    await tenant(world)
    outside = {"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]}
    await world.create("Service", {"metadata": {"name": "s"}, "spec": outside}, "acme", user=JANE)
    service = kinds.builtin("Service")
    patch = {"spec": {"ports": [{"port": 80, "nodePort": 30080}]}}
    with pytest.raises(ForbiddenError, match="a port of the node"):
        await world.registry.patch(service, "acme", "s", patch, MERGE, WriteOptions(user=JANE))


async def test_every_port_of_the_machine_is_not_a_tenants_by_a_balanced_service(world: World) -> None:
    await tenant(world)
    balanced = {"type": "LoadBalancer", "ports": [{"port": 22}]}
    with pytest.raises(ForbiddenError, match="any port of the machine"):
        await world.create("Service", {"metadata": {"name": "s"}, "spec": balanced}, "acme", user=JANE)


async def test_node_ports_that_an_administrator_gave_stay_and_do_not_become_more(world: World) -> None:
    await tenant(world)
    given = {"type": "NodePort", "ports": [{"name": "a", "port": 80}]}
    await world.create("Service", {"metadata": {"name": "s"}, "spec": given}, "acme")
    service, own = kinds.builtin("Service"), WriteOptions(user=JANE)
    await world.registry.patch(service, "acme", "s", {"metadata": {"labels": {"a": "b"}}}, MERGE, own)
    more = [{"op": "add", "path": "/spec/ports/-", "value": {"name": "b", "port": 81}}]
    with pytest.raises(ForbiddenError, match="a port of the node"):
        await world.registry.patch(service, "acme", "s", more, JSON, own)


@pytest.mark.parametrize("key", ["containers", "initContainers"])
async def test_a_port_of_the_node_is_not_a_tenants_by_a_container_either(world: World, key: str) -> None:
    await tenant(world)
    plain = {"name": "c", "image": "i"}
    ported = {"name": "p", "image": "i", "ports": [{"containerPort": 80, "hostPort": 443}]}
    spec = {"containers": [plain], **({"initContainers": [ported]} if key == "initContainers" else {})}
    spec["containers"] = [plain, ported] if key == "containers" else [plain]
    told = await world.refused("Pod", {"metadata": {"name": "x"}, "spec": spec}, "acme", user=JANE)
    assert "hostPort, a port of the node, may not be had by a tenant" in told
    await world.create("Pod", {"metadata": {"name": "x"}, "spec": spec}, user=SERVER)


async def test_storage_that_is_bounded_is_not_had_without_a_claim(world: World) -> None:
    """A named volume in a pod's own words stays when the pod is gone, of any size and in any number."""
    await tenant(world)
    volume = {"name": "d", "csi": {"driver": "volume.cuboid.dev", "volumeAttributes": {"name": "x", "size": "500Gi"}}}
    spec = {"containers": [{"name": "c", "image": "i"}], "volumes": [volume]}
    await world.create("Pod", {"metadata": {"name": "before"}, "spec": spec}, "acme", user=JANE)
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.storage": "1Gi"}}}
    await world.create("ResourceQuota", quota, "acme")
    told = await world.refused("Pod", {"metadata": {"name": "x"}, "spec": spec}, "acme", user=JANE)
    assert "volume d would not be counted by the quota q" in told


# --- pods ------------------------------------------------------------------------------------------------------------


def test_thousands_of_tolerations_are_compared_at_once() -> None:
    """3,000 stopped the server for 9 s."""
    tolerations = [{"key": key, "operator": "Exists"} for key in many("k", 20_000)]
    old: Object = {"spec": {"containers": [], "tolerations": tolerations}}
    new: Object = {"spec": {"containers": [], "tolerations": [*reversed(tolerations), {"key": "more"}]}}
    fields = Fields()
    validate_pod_change(new, old, fields)
    assert not fields.errors
    validate_pod_change(old, new, fields)
    assert "existing toleration can not be modified" in fields.errors[0].text


@pytest.mark.parametrize("grace", [2**63 - 1, 2**40, 300_000_000_000])
def test_a_grace_period_beyond_the_calendar_does_not_make_a_pod_undeletable(grace: int) -> None:
    """Nor its namespace, its node's drain or its tenant's end, which all delete it with its own grace."""
    spec = {"nodeName": "n", "terminationGracePeriodSeconds": grace}
    pod: Object = {"metadata": {"name": "x", "uid": "u", "generation": 1}, "spec": spec, "status": {}}
    for options in (DeleteOptions(), DeleteOptions(grace=grace)):
        ending = deletion.decide(kinds.builtin("Pod"), pod, options, NOW)
        assert ending is not None
        metadata = ending["metadata"]
        assert metadata["deletionGracePeriodSeconds"] == deletion.LONGEST_GRACE
        assert parse_rfc3339(metadata["deletionTimestamp"]) == NOW + deletion.LONGEST_GRACE
        shorter = deletion.decide(kinds.builtin("Pod"), ending, DeleteOptions(grace=5), NOW + 60)
        assert shorter is not None and parse_rfc3339(shorter["metadata"]["deletionTimestamp"]) == NOW + 5


# --- size and tokens -------------------------------------------------------------------------------------------------


async def test_no_object_grows_without_end_patch_by_patch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_BYTES", 5_000)
    container = {"name": "c", "image": "i", "args": ["x" * 1_000]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await world.create("Deployment", {"metadata": {"name": "d"}, "spec": spec}, group="apps")
    more = [{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "y" * 1_000}]
    row = kinds.builtin("Deployment", "apps")
    with pytest.raises(InvalidError, match="Request entity too large: limit is 5000"):
        for _ in range(9):
            await world.registry.patch(row, "default", "d", more, JSON, WriteOptions(user=User("jane")))
    monkeypatch.setattr(registry, "MOST_BYTES", 100)
    ending = await world.registry.delete(row, "default", "d", DeleteOptions(propagation="Foreground"))
    assert "deletionTimestamp" in ending.object["metadata"], "what is as large as it may be can still be told to end"


def test_a_token_that_nests_deeply_is_nobodys() -> None:
    """Anybody can send one: it was an internal error, with its traceback in the log each time."""
    assert issuer_in("x." + "W1tb" * 4_000 + ".x") == ""


@pytest.mark.parametrize("restart", [None, "Always"])
async def test_a_pod_as_a_whole_asks_for_no_less_than_its_init_containers(world: World, restart: str | None) -> None:
    """What a quota and the scheduler count of it is what the pod says as a whole."""
    large = {"requests": {"memory": "3Gi", "cpu": "3"}}
    first = {"name": "i", "image": "i", "resources": large, **({"restartPolicy": restart} if restart else {})}
    whole = {"requests": {"memory": "64Mi", "cpu": "100m"}}
    spec = {"initContainers": [first], "containers": [{"name": "c", "image": "i"}], "resources": whole}
    with pytest.raises(InvalidError, match="aggregate container requests of 3"):
        await world.create("Pod", {"metadata": {"name": "x"}, "spec": spec})
    await world.create("Pod", {"metadata": {"name": "x"}, "spec": {**spec, "resources": large}})
