"""Admission sees every write, also those through sub-resources, and a refusal leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import namespaces, status
from cuboid.kube.admission import Chain, Release, Request
from cuboid.kube.cache import Cache
from cuboid.kube.client import APPLY, CONFIG_MAPS, DEPLOYMENTS, MERGE, PODS
from cuboid.kube.kind import Kind
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.errors import ConflictError, ForbiddenError
from tests.harness.kube_server import pod

NS = "default"


class Witness:
    """Remembers what it is asked, and counts reservations that were not given back."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.held = 0
        self.refuse = False

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        return kind.namespaced

    def admit(self, request: Request) -> None:
        self.seen.append((request.operation, request.kind.kind, request.sub))
        if self.refuse:
            raise status.forbidden(request.kind.plural, request.kind.group, request.name, "refused")

    def reserve(self, request: Request) -> Release | None:
        self.held += 1

        def release() -> None:
            self.held -= 1

        return release


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
async def client(witness: Witness, tmp_path: Path) -> AsyncIterator[LocalClient]:
    store = Store(tmp_path / "store.db")
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    registry = Registry(store, cache, served, Chain(witness))
    await namespaces.ensure_permanent(registry)
    witness.seen.clear()
    yield LocalClient(registry, manager="tester")
    assert witness.held == 0
    store.close()


async def test_every_way_to_write_a_pod_is_seen(client: LocalClient, witness: Witness) -> None:
    body = pod("web")
    body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    await client.create(PODS, body, NS)
    debugger = {"spec": {"ephemeralContainers": [{"name": "d", "image": "x"}]}}
    bigger = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2"}}}]}}
    await client.patch(PODS, "web", debugger, NS, sub="ephemeralcontainers")
    await client.patch(PODS, "web", bigger, NS, sub="resize")
    await client.create(PODS, {"target": {"name": "n"}}, NS, name="web", sub="binding")
    await client.patch(PODS, "web", {"status": {"phase": "Running"}}, NS, sub="status")
    await client.create(PODS, {"metadata": {"name": "web"}}, NS, name="web", sub="eviction")
    await client.delete(PODS, "web", NS, grace=0)
    assert witness.seen == [
        ("CREATE", "Pod", ""), ("UPDATE", "Pod", "ephemeralcontainers"), ("UPDATE", "Pod", "resize"),
        ("CREATE", "Pod", "binding"), ("UPDATE", "Pod", "status"), ("CREATE", "Pod", "eviction"), ("DELETE", "Pod", ""),
    ]  # fmt: skip


async def test_an_apply_is_a_creation_or_a_change_and_a_scale_a_change(client: LocalClient, witness: Witness) -> None:
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}
    await client.patch(CONFIG_MAPS, "m", config, NS, form=APPLY)
    await client.patch(CONFIG_MAPS, "m", {**config, "data": {"a": "1"}}, NS, form=APPLY)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, NS)
    await client.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 2}}, NS, form=MERGE, sub="scale")
    assert witness.seen == [
        ("CREATE", "ConfigMap", ""), ("UPDATE", "ConfigMap", ""), ("CREATE", "Deployment", ""),
        ("UPDATE", "Deployment", "scale"),
    ]  # fmt: skip


async def test_what_is_refused_has_changed_nothing(client: LocalClient, witness: Witness) -> None:
    made = await client.create(PODS, pod("web"), NS)
    witness.refuse = True
    for sub, body in (("binding", {"target": {"name": "n"}}), ("eviction", {"metadata": {"name": "web"}})):
        with pytest.raises(ForbiddenError):
            await client.create(PODS, body, NS, name="web", sub=sub)
    with pytest.raises(ForbiddenError):
        await client.patch(PODS, "web", {"status": {"phase": "Running"}}, NS, sub="status")
    assert (await client.get(PODS, "web", NS)) == made


async def test_a_conflict_gives_back_what_was_reserved(client: LocalClient, witness: Witness) -> None:
    await client.create(PODS, pod("web"), NS)
    with pytest.raises(ConflictError):
        await client.patch(PODS, "web", {"metadata": {"resourceVersion": "1"}}, NS, form=MERGE)
    assert witness.held == 0
