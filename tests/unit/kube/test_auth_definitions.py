"""Tenant and Token as custom resources: what a real cluster would take, and what it would make of objects."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers.tenant import Tenants
from cuboid.kube import kinds, own_definitions
from cuboid.kube.client import DEFINITIONS, Listed, Resource
from cuboid.kube.crd import validation
from cuboid.kube.fields import Fields
from cuboid.kube.local import LocalClient
from cuboid.lib.errors import NotFoundError
from tests.harness.control import World

Object = dict[str, Any]
FOUND = {row["spec"]["names"]["kind"]: row for row in own_definitions.custom_resources()}


def schema(kind: str) -> Object:
    found: Object = FOUND[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.parametrize("kind", ["Tenant", "Token"])
def test_a_definition_is_one_that_kubernetes_takes(kind: str) -> None:
    strategy, fields = kinds.builtin("CustomResourceDefinition", "apiextensions.k8s.io").strategy, Fields()
    new = {**FOUND[kind], "metadata": {**FOUND[kind]["metadata"]}}
    strategy.prepare_create(new, "2026-01-01T00:00:00Z")
    strategy.default(new)
    strategy.validate(new, fields)
    assert [str(error) for error in fields.errors] == []


@pytest.mark.parametrize(
    ("kind", "spec", "fits"),
    [
        ("Tenant", {"quota": {"pods": 3, "requests.memory": "1Gi"}, "limits": [{"type": "Container"}]}, True),
        ("Tenant", {"members": [{"kind": "User", "name": "jane"}], "namespaces": ["a"], "weight": 2}, True),
        ("Tenant", {"weight": "many"}, False),
        ("Token", {"tenant": "a", "sha256": "0", "expirationTimestamp": "2100-01-01T00:00:00Z"}, True),
        ("Token", {"expirationTimestamp": "soon"}, False),
    ],
)
def test_objects_are_checked_by_it(kind: str, spec: Object, fits: bool) -> None:
    fields = Fields()
    validation.check(schema(kind), {"metadata": {"name": "x"}, "spec": spec}, "", fields)
    assert (not fields.errors) is fits


class Elsewhere(LocalClient):
    """A cluster that serves tenants once both are defined."""

    def __init__(self, world: World) -> None:
        super().__init__(world.registry)
        self.made: list[str] = []

    async def list(self, *args: Any, **more: Any) -> Listed:
        if len(self.made) < 2:
            raise NotFoundError("the server could not find the requested resource")
        return Listed([], "1")

    async def create(self, resource: Resource, body: Object, *args: Any, **more: Any) -> Object:
        assert resource == DEFINITIONS
        self.made.append(body["metadata"]["name"])
        return body


async def test_they_are_made_where_they_are_not_served_and_only_there() -> None:
    async with World(lambda: [Tenants()]) as world:
        await own_definitions.ensure_served(world.client)
        assert world.select(DEFINITIONS) == [], "our own server has them built in"
        elsewhere = Elsewhere(world)
        await own_definitions.ensure_served(elsewhere)
        assert elsewhere.made == ["tenants.cuboid.dev", "tokens.cuboid.dev"]
