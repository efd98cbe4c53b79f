from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube.types import ConfigMap, Pod, Secret, config_map, pod, secret
from cuboid.node.env import DEFAULT_PATH, CreateContainerConfigError, expand, expand_args, resolve_env
from cuboid.node.objects import PodFacts

FACTS = PodFacts(node_name="node-1", host_ip="10.0.0.1", pod_ips=("10.1.2.3", "fd77::3"), hostname="web",
                 cpu_millis=2000, memory_bytes=512 << 20, ephemeral_bytes=1 << 30)  # fmt: skip


class Objects:
    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        self.secrets: dict[str, dict[str, bytes]] = {}

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        assert namespace == "default"
        return config_map({"data": self.maps[name]}) if name in self.maps else None

    async def secret(self, namespace: str, name: str) -> Secret | None:
        found = self.secrets.get(name)
        encoded = {key: base64.b64encode(value).decode() for key, value in (found or {}).items()}
        return None if found is None else secret({"data": encoded})


def make(container: dict[str, Any]) -> Pod:
    metadata = {"name": "web", "namespace": "default", "uid": "u", "labels": {"app": "x"}, "annotations": {"a/b": "é"}}
    return pod({"metadata": metadata, "spec": {"containers": [{"name": "main", **container}]}})


async def env(container: dict[str, Any], objects: Objects | None = None, image: tuple[str, ...] = ()) -> dict[str, str]:
    made = make(container)
    lines = await resolve_env(made, made.spec.containers[0], image, objects or Objects(), FACTS)
    return dict(line.split("=", 1) for line in lines)


def value_from(**source: Any) -> list[dict[str, Any]]:
    return [{"name": "X", "valueFrom": source}]


async def test_later_sources_win_over_earlier_ones() -> None:
    objects = Objects()
    objects.maps["m"] = {"A": "map", "B": "map", "C": "map"}
    objects.secrets["s"] = {"B": b"secret", "C": b"secret"}
    container = {
        "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}, "prefix": ""}],
        "env": [{"name": "C", "value": "own"}],
    }
    found = await env(container, objects, ("A=image", "D=image", "PATH=/image"))
    assert {k: found[k] for k in "ABCD"} == {"A": "map", "B": "secret", "C": "own", "D": "image"}
    assert found["PATH"] == "/image"


async def test_what_every_container_has() -> None:
    assert await env({}) == {"PATH": DEFAULT_PATH, "HOSTNAME": "web"}
    assert (await env({"tty": True}))["TERM"] == "xterm"


async def test_prefixes_and_optional_objects() -> None:
    objects = Objects()
    objects.maps["m"] = {"A": "1"}
    container = {"envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}},
                             {"secretRef": {"name": "none", "optional": True}}]}  # fmt: skip
    assert (await env(container, objects))["P_A"] == "1"


async def test_values_refer_to_earlier_ones_only() -> None:
    container = {"env": [{"name": "A", "value": "$(B)"}, {"name": "B", "value": "b"},
                         {"name": "C", "value": "$(A)-$(B)-$$(B)-$(NONE)"}]}  # fmt: skip
    found = await env(container)
    assert (found["A"], found["C"]) == ("$(B)", "$(B)-b-$(B)-$(NONE)")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['a/b']", "é"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app="x"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "10.0.0.1"),
        ("status.podIP", "10.1.2.3"),
        ("status.podIPs", "10.1.2.3,fd77::3"),
    ],
)
async def test_fields_of_the_pod(path: str, value: str) -> None:
    assert (await env({"env": value_from(fieldRef={"fieldPath": path})}))["X"] == value


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "512"),
        ("requests.memory", "", "0"),
        ("limits.ephemeral-storage", "1Gi", "1"),
    ],
)
async def test_resources_are_rounded_up_to_divisors_and_default_to_the_machine(
    resource: str, divisor: str, value: str
) -> None:
    container = {
        "resources": {"limits": {"cpu": "1500m"}, "requests": {"cpu": "250m"}},
        "env": value_from(resourceFieldRef={"resource": resource, "divisor": divisor}),
    }
    assert (await env(container))["X"] == value


@pytest.mark.parametrize(
    ("container", "text"),
    [
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, 'configmap "none" not found'),
        ({"env": value_from(secretKeyRef={"name": "none", "key": "k"})}, 'secret "none" not found'),
        ({"env": value_from(configMapKeyRef={"name": "m", "key": "k"})}, "couldn't find key k in ConfigMap default/m"),
        ({"env": value_from(secretKeyRef={"name": "s", "key": "nul"})}, 'key nul of secret "s" holds a NUL byte'),
        ({"env": value_from(secretKeyRef={"name": "s", "key": "bin"})}, 'key bin of secret "s" is not UTF-8 text'),
        ({"env": value_from(fieldRef={"fieldPath": "spec.priority"})}, "variable X: fieldRef 'spec.priority'"),
        ({"env": value_from(resourceFieldRef={"resource": "limits.gpu"})}, "variable X: resourceFieldRef 'limits.gpu'"),
    ],
)
async def test_what_is_missing_or_wrong_is_named(container: dict[str, Any], text: str) -> None:
    objects = Objects()
    objects.maps["m"] = {"other": "1"}
    objects.secrets["s"] = {"nul": b"a\0b", "bin": b"\xff"}
    with pytest.raises(CreateContainerConfigError) as error:
        await env(container, objects)
    assert text in error.value.message


async def test_an_optional_key_that_is_missing_leaves_the_variable_out() -> None:
    source = {"configMapKeyRef": {"name": "m", "key": "k", "optional": True}}
    assert "X" not in await env({"env": value_from(**source)})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$(", "$("), ("$A", "$A"), ("$", "$"),
        ("$()", "$()"), ("$(A", "$(A"), ("a$(A)b$(B)c", "a1b$(B)c"), ("$($(A))", "$($(A))"),
    ],
)  # fmt: skip
def test_expansion_is_kubernetes_own(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@settings(deadline=None)
@given(st.text(alphabet="$()ABx", max_size=20))
def test_expansion_never_fails_and_leaves_text_without_dollars_alone(text: str) -> None:
    result = expand(text, {"A": "1"})
    assert "$" in text or result == text


def test_arguments_see_the_environment() -> None:
    assert expand_args(["run", "$(A)", "$(B)"], ["A=x=y", "PATH=/"]) == ["run", "x=y", "$(B)"]
