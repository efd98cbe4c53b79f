"""Aggregated ClusterRoles show the rules that they gather."""

from __future__ import annotations

from typing import Any

from cuboid.controllers.aggregation import Aggregation
from cuboid.kube.client import CLUSTER_ROLES
from tests.harness.control import World, every_interrupted_point

RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
OTHER = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}


def role(name: str, label: str = "", *rules: Any, gathers: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {"name": name, "labels": {label: "true"} if label else {}},
        "rules": list(rules),
    }
    if gathers:
        made["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {gathers: "true"}}]}
    return made


async def scenario(world: World) -> object:
    await world.create(CLUSTER_ROLES, role("admin", gathers="to-admin"))
    await world.create(CLUSTER_ROLES, role("edit", "to-admin", gathers="to-edit"))
    await world.create(CLUSTER_ROLES, role("a", "to-edit", RULE))
    await world.create(CLUSTER_ROLES, role("b", "to-edit", OTHER))
    await world.settle()
    assert world.get(CLUSTER_ROLES, "edit", "")["rules"] == [RULE, OTHER]
    assert world.get(CLUSTER_ROLES, "admin", "")["rules"] == [RULE, OTHER], "through the other"
    await world.delete(CLUSTER_ROLES, "a")
    await world.patch(CLUSTER_ROLES, "b", {"metadata": {"labels": {"to-edit": None}}})
    await world.settle()
    assert not world.get(CLUSTER_ROLES, "admin", "").get("rules")
    return world.outline(CLUSTER_ROLES)


async def test_rules_are_gathered_also_by_way_of_others_and_let_go() -> None:
    async with World(lambda: [Aggregation()]) as world:
        await scenario(world)


async def test_they_are_complete_from_every_interrupted_point() -> None:
    await every_interrupted_point(lambda: [Aggregation()], scenario)
