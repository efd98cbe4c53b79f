"""The tenant controller: what it makes, keeps and removes, from every interrupted point."""

from __future__ import annotations

from typing import Any

from cuboid.controllers.tenant import NAME, Tenants
from cuboid.kube import namespaces, objects
from cuboid.kube.client import LIMIT_RANGES, NAMESPACES, QUOTAS, ROLE_BINDINGS
from cuboid.kube.tenants import LABEL, TENANTS, TOKENS
from tests.harness.control import World, every_interrupted_point

LIMITS = [{"type": "Container", "default": {"memory": "64Mi"}}]
TOKEN = {"tenant": "acme", "role": "edit", "sha256": "0" * 64, "expirationTimestamp": "2100-01-01T00:00:00Z"}


def tenant(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "acme"}, "spec": spec}


def bound(world: World, namespace: str) -> dict[str, list[str]]:
    """Subjects by cluster role."""
    found = world.select(ROLE_BINDINGS, namespace)
    return {row["roleRef"]["name"]: [subject["name"] for subject in row["subjects"]] for row in found}


async def test_a_tenant_gets_its_namespaces_with_bindings_quota_and_limits() -> None:
    async with World(lambda: [Tenants()]) as world:
        members = [{"kind": "User", "name": "jane", "role": "admin"}, {"kind": "Group", "name": "devs"}]
        await world.create(TENANTS, tenant(namespaces=["acme-ci"], quota={"pods": "5"}, limits=LIMITS, members=members))
        await world.settle()
        for name in ("acme", "acme-ci"):
            assert world.get(NAMESPACES, name, "")["metadata"]["labels"][LABEL] == "acme"
            assert bound(world, name) == {
                "admin": ["cuboid:tenant:acme:admin", "jane"],
                "edit": ["cuboid:tenant:acme:edit", "devs"],
                "view": ["cuboid:tenant:acme:view"],
            }
            assert world.get(QUOTAS, NAME, name)["spec"]["hard"] == {"pods": "5"}
            assert world.get(LIMIT_RANGES, NAME, name)["spec"]["limits"][0]["type"] == "Container"
        status = world.get(TENANTS, "acme", "")["status"]
        assert status["phase"] == "Active" and status["namespaces"] == ["acme", "acme-ci"] and "message" not in status


async def test_nobody_comes_into_a_namespace_before_its_bounds_hold() -> None:
    """A token that exists already could fill a namespace which its tenant gets, in the moment before its quota."""
    async with World(lambda: [Tenants()]) as world:
        await world.create(TENANTS, tenant(quota={"pods": "5"}, limits=LIMITS))
        await world.settle()
        bounds, doors = (
            [int(document["metadata"]["resourceVersion"]) for row in rows for document in world.select(row, "acme")]
            for rows in ((QUOTAS, LIMIT_RANGES), (ROLE_BINDINGS,))
        )
        assert len(bounds) == 2 and max(bounds) < min(doors)


async def test_what_is_removed_or_loosened_comes_back() -> None:
    async with World(lambda: [Tenants()]) as world:
        await world.create(TENANTS, tenant(quota={"pods": "5"}))
        await world.settle()
        await world.delete(ROLE_BINDINGS, f"{NAME}-edit", "acme")
        await world.patch(QUOTAS, NAME, {"spec": {"hard": {"pods": "500", "secrets": "9"}}}, "acme")
        await world.settle()
        assert bound(world, "acme")["edit"] == ["cuboid:tenant:acme:edit"]
        assert world.get(QUOTAS, NAME, "acme")["spec"]["hard"] == {"pods": "5"}


async def test_a_quota_that_the_tenant_has_no_more_goes() -> None:
    async with World(lambda: [Tenants()]) as world:
        await world.create(TENANTS, tenant(quota={"pods": "5"}))
        await world.settle()
        await world.patch(TENANTS, "acme", {"spec": {"quota": None}})
        await world.settle()
        assert world.select(QUOTAS, "acme") == []


async def test_a_namespace_of_somebody_else_is_told_and_not_taken() -> None:
    async with World(lambda: [Tenants()]) as world:
        await world.create(NAMESPACES, {"metadata": {"name": "acme"}})
        await world.create(TENANTS, tenant(namespaces=["acme-ci"]))
        await world.settle()
        assert LABEL not in objects.labels(world.get(NAMESPACES, "acme", ""))
        assert bound(world, "acme") == {} and bound(world, "acme-ci")
        status = world.get(TENANTS, "acme", "")["status"]
        assert status["phase"] == "Pending" and "namespace acme exists and is not this tenant's" in status["message"]


async def test_the_end_of_a_tenant_is_told_and_complete() -> None:
    async with World(lambda: [Tenants()]) as world:
        await world.create(TENANTS, tenant())
        await world.create(TOKENS, {"metadata": {"name": "t"}, "spec": TOKEN})
        await world.settle()
        await world.delete(TENANTS, "acme")
        await world.settle()
        assert world.select(TOKENS) == []
        status = world.get(TENANTS, "acme", "")["status"]
        assert status["phase"] == "Terminating" and status["message"] == "1 namespace is being removed: acme"
        await namespaces.set_finalizers(world.registry, "acme", [])
        await world.advance(3)
        await world.settle()
        assert world.select(TENANTS) == [] and all(objects.name(n) != "acme" for n in world.select(NAMESPACES))


async def test_a_tenant_is_complete_from_every_interrupted_point() -> None:
    async def scenario(world: World) -> object:
        await world.create(TENANTS, tenant(namespaces=["acme-ci"], quota={"pods": "5"}, limits=LIMITS))
        await world.settle()
        await world.patch(TENANTS, "acme", {"spec": {"quota": {"pods": "7"}, "limits": None}})
        await world.settle()
        return world.outline(NAMESPACES, ROLE_BINDINGS, QUOTAS, LIMIT_RANGES, TENANTS)

    await every_interrupted_point(lambda: [Tenants()], scenario)
