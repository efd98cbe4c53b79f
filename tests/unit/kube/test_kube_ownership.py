"""Owners of fields where managers meet: kubectl's two applies, a crowd, a strategy's own changes, a deep object."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import kinds, namespaces, ownership
from cuboid.kube.cache import Cache
from cuboid.kube.client import APPLY, CONFIG_MAPS, DEPLOYMENTS, MERGE, PODS, Resource
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.options import WriteOptions
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.errors import ConflictError, InvalidError
from tests.harness.kube_server import pod

NS = "default"
As = Callable[[str], LocalClient]


@pytest.fixture
async def as_(tmp_path: Path) -> AsyncIterator[As]:
    """A client with the name of a manager."""
    store = Store(tmp_path / "store.db")
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    registry = Registry(store, cache, served)
    await namespaces.ensure_permanent(registry)
    yield lambda name: LocalClient(registry, manager=name)
    store.close()


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}


async def applied_by_kubectl_before(as_: As, **data: str) -> None:
    """As `kubectl apply` leaves it: the last configuration in an annotation."""
    body = config_map(**data)
    note = {ownership.LAST_APPLIED: json.dumps(config_map(**data))}
    await as_("kubectl-client-side-apply").create(
        CONFIG_MAPS, {**body, "metadata": {"name": "m", "annotations": note}}, NS
    )


async def test_kubectl_takes_over_what_it_applied_from_the_client_before(as_: As) -> None:
    await applied_by_kubectl_before(as_, a="1", b="2")
    taken = await as_("kubectl").patch(CONFIG_MAPS, "m", config_map(a="9", b="2"), NS, form=APPLY)
    assert taken["data"] == {"a": "9", "b": "2"}
    last = json.loads(taken["metadata"]["annotations"][ownership.LAST_APPLIED])
    assert last["data"] == {"a": "9", "b": "2"}, "so that a client-side apply can follow"


async def test_it_does_not_take_over_what_somebody_changed_since(as_: As) -> None:
    await applied_by_kubectl_before(as_, a="1")
    await as_("editor").patch(CONFIG_MAPS, "m", {"data": {"a": "5"}}, NS, form=MERGE)
    with pytest.raises(ConflictError, match='conflict with "editor"'):
        await as_("kubectl").patch(CONFIG_MAPS, "m", config_map(a="9"), NS, form=APPLY)


async def test_another_manager_than_kubectl_takes_nothing_over(as_: As) -> None:
    await applied_by_kubectl_before(as_, a="1")
    with pytest.raises(ConflictError, match='conflict with "kubectl-client-side-apply"'):
        await as_("flux").patch(CONFIG_MAPS, "m", config_map(a="9"), NS, form=APPLY)


async def test_two_appliers_share_what_they_agree_on_until_the_last_lets_go(as_: As) -> None:
    await as_("one").patch(CONFIG_MAPS, "m", config_map(a="1"), NS, form=APPLY)
    await as_("two").patch(CONFIG_MAPS, "m", config_map(a="1", b="2"), NS, form=APPLY)
    left = await as_("one").patch(CONFIG_MAPS, "m", config_map(), NS, form=APPLY)
    assert left["data"] == {"a": "1", "b": "2"}
    gone = await as_("two").patch(CONFIG_MAPS, "m", config_map(b="2"), NS, form=APPLY)
    assert gone["data"] == {"b": "2"}


async def test_a_crowd_of_appliers_is_refused_beyond_its_limit(as_: As) -> None:
    for number in range(ownership.MAX_MANAGERS):
        await as_(f"m{number}").patch(CONFIG_MAPS, "m", config_map(**{f"k{number}": ""}), NS, form=APPLY)
    with pytest.raises(InvalidError) as caught:
        await as_("one-more").patch(CONFIG_MAPS, "m", config_map(more=""), NS, form=APPLY)
    assert caught.value.details["causes"][0]["field"] == "metadata.managedFields"
    await as_("m0").patch(CONFIG_MAPS, "m", config_map(k0="changed"), NS, form=APPLY)


async def test_defaults_of_an_applied_object_are_nobodys(as_: As) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "m"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }  # fmt: skip
    made = await as_("gitops").patch(DEPLOYMENTS, "m", body, NS, form=APPLY)
    assert made["spec"]["replicas"] == 1
    await as_("gitops").patch(DEPLOYMENTS, "m", body, NS, form=APPLY)
    scaled = {**body, "spec": {"replicas": 3}}
    assert (await as_("scaler").patch(DEPLOYMENTS, "m", scaled, NS, form=APPLY))["spec"]["replicas"] == 3
    kept = await as_("gitops").patch(DEPLOYMENTS, "m", body, NS, form=APPLY)
    assert kept["spec"]["replicas"] == 3, "what it never named stays with who did"


async def test_a_status_in_an_applied_file_does_no_harm(as_: As) -> None:
    config = {**pod("m"), "status": {"phase": "Failed"}}
    await as_("gitops").patch(PODS, "m", config, NS, form=APPLY)
    await as_("kubelet").patch(PODS, "m", {"status": {"phase": "Running"}}, NS, form=MERGE, sub="status")
    again = await as_("gitops").patch(PODS, "m", config, NS, form=APPLY)
    assert again["status"]["phase"] == "Running"


async def test_an_older_version_of_a_kind_is_owned_as_it_is_stored(as_: As) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "m"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    v1 = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "m"}, "spec": spec}
    old, new = (Resource("autoscaling", version, "horizontalpodautoscalers") for version in ("v1", "v2"))
    await as_("old").create(old, v1, NS)
    [entry] = (await as_("x").get(new, "m", NS))["metadata"]["managedFields"]
    assert entry["apiVersion"] == "autoscaling/v1" and "f:metrics" in entry["fieldsV1"]["f:spec"]
    config = {"apiVersion": "autoscaling/v2", "kind": v1["kind"], "metadata": {"name": "m"}, "spec": {"maxReplicas": 5}}
    with pytest.raises(ConflictError, match='conflict with "old" using autoscaling/v1'):
        await as_("new").patch(new, "m", config, NS, form=APPLY)
    await as_("new").patch(new, "m", config, NS, form=APPLY, force=True)
    assert (await as_("x").get(old, "m", NS))["spec"]["maxReplicas"] == 5


async def test_nobody_owns_the_status_by_writing_the_object(as_: As) -> None:
    made = await as_("creator").create(PODS, {**pod("m"), "status": {"phase": "Running"}}, NS)
    assert all("f:status" not in entry["fieldsV1"] for entry in made["metadata"]["managedFields"])
    assert made["status"]["phase"] == "Pending"


def test_an_object_nested_beyond_measure_is_the_clients_mistake() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    body = {"metadata": {"name": "m"}, "spec": deep}
    kind = kinds.builtin("ControllerRevision", "apps")
    with pytest.raises(InvalidError, match="nested too deeply"):
        ownership.at_birth(kind, kind, {**body, "data": deep}, WriteOptions(manager="x"), "")
