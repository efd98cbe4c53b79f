"""What a node agent may do: its own things and what its pods refer to."""

from __future__ import annotations

import pytest

from cuboid.kube import kinds
from cuboid.kube.client import MERGE
from cuboid.kube.identity import User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.nodes import NodeRules
from cuboid.kube.registry import WriteOptions
from cuboid.lib.errors import ForbiddenError
from tests.unit.kube.test_auth_admission import World, pod, world

__all__ = ["world"]
ONE = User("system:node:one", ("system:nodes", "system:authenticated"))
LEASES = "kube-node-lease"


def wanted(
    verb: str, resource: str, namespace: str = "", name: str = "", group: str = "", selector: str = ""
) -> Attributes:
    main, _, sub = resource.partition("/")
    return Attributes(verb, group, "v1", main, sub, namespace, name, "", selector)


async def rules(world: World) -> NodeRules:
    """Pod `here` is on node one, `there` on node two; each has a secret and an account of its own."""
    for name, node in (("here", "one"), ("there", "two")):
        await world.create("ServiceAccount", {"metadata": {"name": name}})
        volumes = [
            {"name": "s", "secret": {"secretName": f"s-{name}"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": f"c-{name}"}}]}},
        ]
        body = pod(name, nodeName=node, serviceAccountName=name, volumes=volumes)
        body["spec"]["containers"][0]["env"] = [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": f"e-{name}", "key": "k"}}}
        ]
        await world.create("Pod", body)
    return NodeRules(world.registry)


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        (wanted("list", "pods", selector="spec.nodeName=one"), True),
        (wanted("watch", "pods", selector="spec.nodeName=one"), True),
        (wanted("list", "pods", selector="spec.nodeName=two"), False),
        (wanted("list", "pods", selector="spec.nodeName!=one"), False),
        (wanted("list", "pods"), False),
        (wanted("get", "pods", "default", "here"), True),
        (wanted("get", "pods", "default", "there"), False),
        (wanted("patch", "pods/status", "default", "here"), True),
        (wanted("patch", "pods/status", "default", "there"), False),
        (wanted("delete", "pods", "default", "there"), False),
        (wanted("create", "pods", "default"), False),
        (wanted("create", "pods/exec", "default", "here"), False),
        (wanted("create", "pods/binding", "default", "here"), False),
        (wanted("get", "secrets", "default", "s-here"), True),
        (wanted("get", "secrets", "default", "e-here"), True),
        (wanted("watch", "secrets", "default", "s-here"), True),
        (wanted("get", "secrets", "default", "s-there"), False),
        (wanted("get", "secrets", "kube-system", "s-here"), False),
        (wanted("list", "secrets", "default"), False),
        (wanted("update", "secrets", "default", "s-here"), False),
        (wanted("get", "configmaps", "default", "c-here"), True),
        (wanted("get", "configmaps", "default", "c-there"), False),
        (wanted("create", "serviceaccounts/token", "default", "here"), True),
        (wanted("create", "serviceaccounts/token", "default", "there"), False),
        (wanted("patch", "nodes", "", "one"), True),
        (wanted("patch", "nodes/status", "", "one"), True),
        (wanted("patch", "nodes/status", "", "two"), False),
        (wanted("delete", "nodes", "", "one"), False),
        (wanted("patch", "leases", LEASES, "one", "coordination.k8s.io"), True),
        (wanted("patch", "leases", LEASES, "two", "coordination.k8s.io"), False),
        (wanted("patch", "leases", "kube-system", "one", "coordination.k8s.io"), False),
        (wanted("list", "services"), True),
        (wanted("create", "services", "default"), False),
        (wanted("create", "events", "default"), True),
        (wanted("list", "namespaces"), False),
        (wanted("create", "clusterrolebindings", group="rbac.authorization.k8s.io"), False),
    ],
)
async def test_a_node_reaches_what_its_pods_need(world: World, attributes: Attributes, allowed: bool) -> None:
    found = await rules(world)
    assert found.allows(ONE, attributes) is allowed
    assert found.allows(ONE, attributes) is allowed, "also from what it remembers"
    assert not found.allows(User("system:node:one"), attributes), "the name alone is nothing"


async def test_what_a_pod_no_longer_needs_is_out_of_reach(world: World) -> None:
    from cuboid.kube.registry import DeleteOptions

    found = await rules(world)
    secret = wanted("get", "secrets", "default", "s-here")
    assert found.allows(ONE, secret)
    await world.registry.delete(kinds.builtin("Pod"), "default", "here", DeleteOptions(grace=0))
    assert not found.allows(ONE, secret)


async def test_a_node_registers_itself_and_nobody_else(world: World) -> None:
    await world.create("Node", {"metadata": {"name": "one"}}, user=ONE)
    assert 'node "one" is not allowed to modify "two"' in await world.refused(
        "Node", {"metadata": {"name": "two"}}, user=ONE
    )
    row, options = kinds.builtin("Node"), WriteOptions(user=ONE)
    for body in (
        {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}},
        {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}},
    ):
        with pytest.raises(ForbiddenError):
            await world.registry.patch(row, "", "one", body, MERGE, options)
    await world.registry.patch(row, "", "one", {"metadata": {"labels": {"a": "b"}}}, MERGE, options)


async def test_a_node_does_not_dress_up_its_pods(world: World) -> None:
    await rules(world)
    row, options = kinds.builtin("Pod"), WriteOptions(user=ONE)
    with pytest.raises(ForbiddenError, match="labels or owners"):
        await world.registry.patch(row, "default", "here", {"metadata": {"labels": {"a": "b"}}}, MERGE, options)
    noted = {"metadata": {"annotations": {"cuboid.dev/receipt": "{}"}}}
    await world.registry.patch(row, "default", "here", noted, MERGE, options)
