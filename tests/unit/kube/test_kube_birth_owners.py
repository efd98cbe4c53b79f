"""What the server adds to a new object is nobody's: whoever applies it later, without these fields, keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import kinds, namespaces
from cuboid.kube.admission import Chain
from cuboid.kube.admit.accounts import ServiceAccounts
from cuboid.kube.admit.scheduling import DefaultTolerationSeconds
from cuboid.kube.cache import Cache
from cuboid.kube.kinds import Kinds
from cuboid.kube.registry import APPLY, MERGE, Registry, WriteOptions
from cuboid.kube.store import Store

Object = dict[str, Any]
CLIENT = WriteOptions(manager="kubectl-client-side-apply")
SERVER = WriteOptions(manager="kubectl", force=True)
CONTAINER = {"name": "main", "image": "registry.example/app:1"}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [CONTAINER]}}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER], "restartPolicy": "Never"}}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": TEMPLATE}}
BODIES = {"Pod": POD, "Job": JOB}


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    store = Store(tmp_path / "store.db")
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    made = Registry(store, cache, served)
    await namespaces.ensure_permanent(made)
    made.admission = Chain(ServiceAccounts(made, mount=True), DefaultTolerationSeconds(seconds=300))
    yield made
    store.close()


def owned(document: Object) -> Object:
    (row,) = document["metadata"]["managedFields"]
    found: Object = row["fieldsV1"]
    return found


async def test_what_admission_adds_is_not_the_creators_but_what_is_a_default_is(registry: Registry) -> None:
    made = (await registry.create(kinds.builtin("Pod"), "default", POD, CLIENT)).object
    assert made["spec"]["volumes"] and made["spec"]["tolerations"]
    spec = owned(made)["f:spec"]
    assert not spec.keys() & {"f:tolerations", "f:volumes", "f:priority"}
    assert {"f:restartPolicy", "f:dnsPolicy", "f:terminationGracePeriodSeconds"} <= spec.keys()


async def test_what_is_made_of_the_uid_is_not_the_creators(registry: Registry) -> None:
    made = (await registry.create(kinds.builtin("Job", "batch"), "default", JOB, CLIENT)).object
    assert made["spec"]["selector"]["matchLabels"]
    fields = owned(made)
    assert "f:selector" not in fields["f:spec"] and "f:labels" not in fields.get("f:metadata", {})
    assert fields["f:spec"]["f:template"]["f:metadata"]["f:labels"].keys() == {".", "f:a"}
    assert "f:backoffLimit" in fields["f:spec"]


@pytest.mark.parametrize(("name", "group"), [("Pod", ""), ("Job", "batch")])
async def test_what_was_applied_by_the_client_is_applied_by_the_server_again_and_again(
    registry: Registry, name: str, group: str
) -> None:
    """kubectl gives what its client-side applies own to its server-side applies once it has done one."""
    kind, body = kinds.builtin(name, group), BODIES[name]
    made = (await registry.create(kind, "default", body, CLIENT)).object
    rows = [{**row, "operation": "Apply", "manager": "kubectl"} for row in made["metadata"]["managedFields"]]
    await registry.patch(kind, "default", "x", {"metadata": {"managedFields": rows}}, MERGE, SERVER)
    before = registry.entry(kind, "default", "x").object()["spec"]
    for _ in range(2):
        done = await registry.patch(kind, "default", "x", body, APPLY, SERVER)
        assert done.object["spec"] == before
