"""The official Python client, its asynchronous sister, and lightkube: each does what programs do with the API."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import kubernetes
import kubernetes_asyncio
import lightkube
import pytest
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from tests.contract.test_kube_crd import DEFINITIONS, GROUP, NAME, crontab, definition
from tests.harness.kube_server import ServerProcess, serving

SPACE = "default"
KUBE: Any = kubernetes  # generated code whose types say that everything may be None
KUBE_ASYNC: Any = kubernetes_asyncio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("clients")) as running, running.http() as http:
        assert http.post(DEFINITIONS, json=definition()).status_code == 201
        yield running


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": name}}, "data": data}


# --- kubernetes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def official(server: ServerProcess) -> Iterator[Any]:
    client = KUBE.config.new_client_from_config(str(server.kubeconfig()))
    with client:
        yield client
    client.rest_client.pool_manager.clear()


def test_the_official_client_writes_reads_and_deletes(official: Any) -> None:
    core = KUBE.client.CoreV1Api(official)
    made = core.create_namespaced_config_map(SPACE, config_map("official", a="1"))
    made.data["a"] = "2"
    replaced = core.replace_namespaced_config_map("official", SPACE, made)
    assert replaced.data == {"a": "2"}
    made.metadata.resource_version = "1"
    with pytest.raises(KUBE.client.ApiException) as raised:
        core.replace_namespaced_config_map("official", SPACE, made)
    assert raised.value.status == 409
    assert core.patch_namespaced_config_map("official", SPACE, {"data": {"b": "3"}}).data == {"a": "2", "b": "3"}
    listed = core.list_namespaced_config_map(SPACE, label_selector="of=official", limit=1)
    assert [item.metadata.name for item in listed.items] == ["official"]
    core.delete_namespaced_config_map("official", SPACE)
    assert core.list_namespaced_config_map(SPACE, label_selector="of=official").items == []


def test_the_official_client_watches(official: Any) -> None:
    core = KUBE.client.CoreV1Api(official)
    since = core.list_namespaced_config_map(SPACE).metadata.resource_version
    write = threading.Timer(0.3, lambda: core.create_namespaced_config_map(SPACE, config_map("seen", a="1")))
    write.start()
    watch = KUBE.watch.Watch()
    stream = watch.stream(core.list_namespaced_config_map, SPACE, resource_version=since, timeout_seconds=20)
    event = next(event for event in stream if event["object"].metadata.name == "seen")
    assert (event["type"], event["object"].data) == ("ADDED", {"a": "1"})
    watch.stop()
    stream.close()
    write.join()
    core.delete_namespaced_config_map("seen", SPACE)


def test_the_official_client_finds_custom_resources_by_discovery(official: Any) -> None:
    dynamic = KUBE.dynamic.DynamicClient(official)
    kind = dynamic.resources.get(api_version=f"{GROUP}/v1", kind="CronTab")
    created = kind.create(body=crontab("dynamic", image="x"), namespace=SPACE)
    assert created.spec.replicas == 1
    body = {"spec": {"replicas": 4}}
    patched = kind.patch(name="dynamic", namespace=SPACE, body=body, content_type="application/merge-patch+json")
    assert patched.spec.replicas == 4
    applied = crontab("dynamic", image="z")
    kind.server_side_apply(body=applied, name="dynamic", namespace=SPACE, field_manager="me", force_conflicts=True)
    assert kind.get(name="dynamic", namespace=SPACE).spec.image == "z"
    assert [item.metadata.name for item in kind.get(namespace=SPACE).items] == ["dynamic"]
    kind.delete(name="dynamic", namespace=SPACE)
    custom = KUBE.client.CustomObjectsApi(official)
    with pytest.raises(KUBE.client.ApiException) as raised:
        custom.get_namespaced_custom_object(GROUP, "v1", SPACE, "crontabs", "dynamic")
    assert raised.value.status == 404
    definitions = KUBE.client.ApiextensionsV1Api(official)
    found = definitions.read_custom_resource_definition(NAME)
    assert {item.type: item.status for item in found.status.conditions}["Established"] == "True"


# --- kubernetes_asyncio ----------------------------------------------------------------------------------------------


async def test_the_asynchronous_client_writes_and_watches(server: ServerProcess) -> None:
    settings = KUBE_ASYNC.client.Configuration()
    await KUBE_ASYNC.config.load_kube_config(str(server.kubeconfig()), client_configuration=settings)
    async with asyncio.timeout(40), KUBE_ASYNC.client.ApiClient(settings) as client:
        core = KUBE_ASYNC.client.CoreV1Api(client)
        custom = KUBE_ASYNC.client.CustomObjectsApi(client)
        since = (await core.list_namespaced_config_map(SPACE)).metadata.resource_version
        made = await core.create_namespaced_config_map(SPACE, config_map("later", a="1"))
        patched = await core.patch_namespaced_config_map("later", SPACE, {"data": {"a": None, "b": "2"}})
        assert patched.data == {"b": "2"} and patched.metadata.uid == made.metadata.uid
        await core.delete_namespaced_config_map("later", SPACE)
        seen = []
        async with KUBE_ASYNC.watch.Watch() as watch:
            async for event in watch.stream(
                core.list_namespaced_config_map, SPACE, resource_version=since, timeout_seconds=20
            ):
                if event["object"].metadata.name == "later":
                    seen.append(event["type"])
                if seen[-1:] == ["DELETED"]:
                    break
        assert seen == ["ADDED", "MODIFIED", "DELETED"]
        await custom.create_namespaced_custom_object(GROUP, "v1", SPACE, "crontabs", crontab("later"))
        with pytest.raises(KUBE_ASYNC.client.ApiException) as raised:
            await custom.create_namespaced_custom_object(GROUP, "v1", SPACE, "crontabs", crontab("b", replicas=99))
        assert raised.value.status == 422 and "less than or equal to 10" in str(raised.value.body)
        await custom.delete_namespaced_custom_object(GROUP, "v1", SPACE, "crontabs", "later")


# --- lightkube -------------------------------------------------------------------------------------------------------


@pytest.fixture
def light(server: ServerProcess) -> Iterator[Any]:
    config = lightkube.KubeConfig.from_file(str(server.kubeconfig()))
    client = lightkube.Client(config=config, namespace=SPACE, field_manager="light", trust_env=False)
    yield client
    client._client._client.close()


def deployment(replicas: int, image: str = "registry.example/app:1") -> Deployment:
    labels = {"app": "light"}
    pods = PodTemplateSpec(ObjectMeta(labels=labels), PodSpec(containers=[Container("main", image=image)]))
    spec = DeploymentSpec(LabelSelector(matchLabels=labels), pods, replicas=replicas)
    return Deployment(apiVersion="apps/v1", kind="Deployment", metadata=ObjectMeta(name="light"), spec=spec)


def test_lightkube_applies_and_is_told_of_conflicts(light: Any) -> None:
    light.apply(deployment(0))
    scaled = light.patch(
        Deployment.Scale, "light", {"spec": {"replicas": 1}}, patch_type=PatchType.MERGE, field_manager="other"
    )
    assert scaled.spec is not None and scaled.spec.replicas == 1
    with pytest.raises(ApiError) as raised:
        light.apply(deployment(0))
    assert raised.value.status.code == 409 and 'conflict with "other"' in str(raised.value)
    forced = light.apply(deployment(0, "registry.example/app:2"), force=True)
    assert forced.spec is not None and forced.spec.replicas == 0
    light.delete(Deployment, "light", cascade=lightkube.types.CascadeType.BACKGROUND)


def test_lightkube_lists_in_pages_and_selects(light: Any) -> None:
    for index in range(5):
        light.create(
            ConfigMap(metadata=ObjectMeta(name=f"page-{index}", labels={"page": "yes"}), data={"i": str(index)})
        )
    found = list(light.list(ConfigMap, labels={"page": "yes"}, chunk_size=2))
    assert [item.metadata.name for item in found] == [f"page-{index}" for index in range(5)]
    for item in found:
        light.delete(ConfigMap, item.metadata.name)
    assert list(light.list(ConfigMap, labels={"page": "yes"})) == []


def test_lightkube_uses_custom_resources(light: Any) -> None:
    kind = create_namespaced_resource(GROUP, "v1", "CronTab", "crontabs")
    light.create(kind(metadata=ObjectMeta(name="light"), spec={"cronSpec": "* * * * *"}))
    status = light.patch(kind.Status, "light", {"status": {"replicas": 2}}, patch_type=PatchType.MERGE)
    assert status.to_dict()["status"] == {"replicas": 2}
    with pytest.raises(ApiError) as raised:
        light.patch(kind, "light", {"spec": {"cronSpec": "x"}}, patch_type=PatchType.MERGE)
    assert raised.value.status.code == 422
    assert next(iter(light.watch(kind)))[0] == "ADDED"
    light.delete(kind, "light")
