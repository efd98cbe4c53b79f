"""Whatever a client sends as object, patch or sub-resource is taken, or refused in a sentence of its own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuboid.kube import kinds, namespaces, subresource
from cuboid.kube.cache import Cache, Filter
from cuboid.kube.kinds import Kind, Kinds
from cuboid.kube.registry import APPLY, JSON, MERGE, STRATEGIC, DeleteOptions, Registry, WriteOptions
from cuboid.kube.store import Store
from cuboid.lib.errors import CuboidError
from tests.harness.kube_server import pod

POD = kinds.builtin("Pod")
DEPLOYMENT = kinds.builtin("Deployment", "apps")
KEYS = st.sampled_from(
    "metadata spec status data name namespace uid resourceVersion labels finalizers ownerReferences managedFields "
    "containers ephemeralContainers template replicas selector image ports env resources requests limits cpu "
    "conditions type target kind apiVersion deleteOptions $patch $retainKeys $setElementOrder/containers op path "
    "value from preconditions gracePeriodSeconds fieldsV1 f:spec manager operation".split()
)
SCALARS = st.sampled_from(
    [None, True, 0, -1, 2**70, 1.5, "", "a", "A B", "delete", "replace", "add", "/spec/containers/0", "100m", "\x00"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=15
)
OPTIONS = WriteOptions(dry_run=True, manager="hostile", force=True)
QUIET = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class World:
    """A registry with a pod and a deployment, on a loop of its own; everything tried on it is a dry run."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._store = Store(folder / "store.db")
        served = Kinds()
        cache = Cache(self._store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
        self.registry = Registry(self._store, cache, served)
        self.run(namespaces.ensure_permanent(self.registry))
        body = pod("web", nodeName="n")
        body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
        self.run(self.registry.create(POD, "default", body, WriteOptions(manager="creator")))
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        self.run(
            self.registry.create(DEPLOYMENT, "default", {"metadata": {"name": "web"}, "spec": spec}, WriteOptions())
        )

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def survives(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            self.run(work)
        except CuboidError as error:
            assert error.reason != "InternalError", error

    def close(self) -> None:
        self._store.close()
        self._runner.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


def grafted(base: dict[str, Any], graft: Any, place: list[str]) -> Any:
    """A valid object with something else at one place."""
    made = copy.deepcopy(base)
    node = made
    for key in place[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else node[0]
    node[place[-1]] = graft
    return made


PLACES = st.sampled_from(
    [
        ["metadata"], ["spec"], ["status"], ["metadata", "managedFields"], ["metadata", "finalizers"],
        ["metadata", "ownerReferences"], ["spec", "containers"], ["spec", "template"], ["spec", "replicas"],
        ["spec", "ephemeralContainers"], ["metadata", "labels"],
    ]
)  # fmt: skip


@QUIET
@given(VALUES, PLACES, st.sampled_from([POD, DEPLOYMENT]), st.sampled_from(["", "status"]))
def test_objects(world: World, graft: Any, place: list[str], kind: Kind, sub: str) -> None:
    registry = world.registry
    base = registry.entry(kind, "default", "web").object()
    body = grafted(base, graft, place)
    world.survives(registry.update(kind, "default", "web", body, OPTIONS, sub))
    body["metadata"] = {"generateName": "x-"}
    world.survives(registry.create(kind, "default", body, OPTIONS))
    config = {"apiVersion": kind.api_version, "kind": kind.kind, place[0]: body[place[0]]}
    world.survives(registry.apply(kind, "default", "web", config, OPTIONS, sub))
    world.survives(registry.apply(kind, "default", "new", config, OPTIONS))


@QUIET
@given(VALUES, st.sampled_from([MERGE, JSON, STRATEGIC, APPLY]), st.sampled_from([POD, DEPLOYMENT]))
def test_patches(world: World, body: Any, form: str, kind: Kind) -> None:
    world.survives(world.registry.patch(kind, "default", "web", body, form, OPTIONS))
    for sub in kind.subresources:
        if "patch" in sub.verbs:
            work = subresource.patch(world.registry, kind, "default", "web", sub.name, body, form, OPTIONS)
            world.survives(work)


@QUIET
@given(VALUES, st.sampled_from([POD, DEPLOYMENT]))
def test_sub_resources(world: World, body: Any, kind: Kind) -> None:
    for sub in kind.subresources:
        for verb, act in (("create", subresource.create), ("update", subresource.update)):
            if verb in sub.verbs:
                world.survives(act(world.registry, kind, "default", "web", sub.name, body, OPTIONS))


def test_nothing_of_all_that_was_written(world: World) -> None:
    assert world.registry.entry(POD, "default", "web").object()["spec"]["containers"][0]["name"] == "main"
    assert len(world.registry.list(POD, Filter("default")).entries) == 1
    world.survives(world.registry.delete(POD, "default", "web", DeleteOptions(dry_run=True)))
