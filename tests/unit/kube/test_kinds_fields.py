"""No field is ignored silently: each is in the table of those that work, are refused, or have no effect and warn."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import bodies, kinds, schema
from cuboid.kube.field_tables import IGNORED, REFUSED, WORKS
from cuboid.kube.fields import Fields
from cuboid.kube.kinds import Kind
from cuboid.kube.options import WriteOptions
from cuboid.kube.unsupported_fields import MOST, warnings

FRAME = {"apiVersion", "kind", "metadata", "status"}
POD: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "i"}]}}


def structs() -> dict[str, schema.Node]:
    """Every struct that the built-in kinds reach, by name."""
    found: dict[str, schema.Node] = {}
    left = [kind.schema for kind in kinds.KINDS if kind.kind != "CustomResourceDefinition"]
    while left:
        node = left.pop()
        if node.properties and node.name:
            if node.name in found:
                continue
            found[node.name] = node
        left += [*node.properties.values(), *([node.items] if node.items is not None else [])]
    return found


STRUCTS = structs()
TABLED = sorted({*WORKS, *REFUSED, *IGNORED})


@pytest.mark.parametrize("name", TABLED)
def test_every_field_is_in_one_table(name: str) -> None:
    fields = set(STRUCTS[name].properties) - (FRAME if "metadata" in STRUCTS[name].properties else set())
    tables = [set(WORKS.get(name, "").split()), set(REFUSED.get(name, {})), set(IGNORED.get(name, {}))]
    assert set.union(*tables) == fields
    assert sum(map(len, tables)) == len(fields)


def test_the_spec_of_every_kind_is_tabled() -> None:
    """Of kinds with more to say than a list or two: what is left out here holds no setting that could be ignored."""
    specs = {kind.schema.properties["spec"].name for kind in kinds.KINDS if "spec" in kind.schema.properties}
    whole = {STRUCTS[name].properties["spec"].name for name, rows in IGNORED.items() if "spec" in rows}
    plain = {"LimitRangeSpec", "NamespaceSpec", "CustomResourceDefinitionSpec", "TenantSpec", "TokenSpec"}
    assert specs - whole - plain - set(TABLED) == set()


def told(kind: Kind, body: dict[str, Any], validation: str = "Warn") -> tuple[str, ...]:
    return bodies.decode(kind, copy.deepcopy(body), WriteOptions(validation=validation))[1]


def pod(**spec: Any) -> dict[str, Any]:
    return {**POD, "spec": {**POD["spec"], **spec}}


def test_a_field_without_effect_is_told_wherever_it_is() -> None:
    users = "has no effect: a pod is a virtual machine and has users of its own in any case"
    assert told(kinds.builtin("Pod"), pod(hostUsers=False)) == (f"spec.hostUsers {users}",)
    template = {"spec": {"template": {"spec": {"jobTemplate": None, "hostUsers": False}}}}
    assert f"spec.template.spec.hostUsers {users}" in told(kinds.builtin("Deployment", "apps"), template)
    cron = {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostUsers": False}}}}}}
    assert told(kinds.builtin("CronJob", "batch"), cron) == (f"spec.jobTemplate.spec.template.spec.hostUsers {users}",)


def test_strict_clients_are_told_too_and_those_who_want_no_warnings_are_not() -> None:
    assert len(told(kinds.builtin("Pod"), pod(hostUsers=False), "Strict")) == 1
    assert told(kinds.builtin("Pod"), pod(hostUsers=False), "Ignore") == ()


@pytest.mark.parametrize(
    ("name", "group", "body", "expected"),
    [
        ("Service", "", {"spec": {"externalIPs": ["192.0.2.1"]}}, "spec.externalIPs has no effect"),
        (
            "Service",
            "",
            {"spec": {"loadBalancerIP": "192.0.2.1"}},
            "spec.loadBalancerIP has no effect: there is no load",
        ),
        ("Service", "", {"spec": {"internalTrafficPolicy": "Local"}}, "spec.internalTrafficPolicy has no effect"),
        ("NetworkPolicy", "networking.k8s.io", {"spec": {"podSelector": {}}}, "spec has no effect: Cuboid keeps"),
        ("Ingress", "networking.k8s.io", {"spec": {"rules": [{"host": "a.b"}]}}, "spec has no effect: no ingress"),
        ("StorageClass", "storage.k8s.io", {"allowVolumeExpansion": True}, "allowVolumeExpansion has no effect"),
        ("PersistentVolume", "", {"spec": {"hostPath": {"path": "/a"}}}, "spec.hostPath has no effect: no machine"),
    ],
)
def test_what_is_asked_for_in_vain_is_told(name: str, group: str, body: dict[str, Any], expected: str) -> None:
    found = told(kinds.builtin(name, group), body)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("Service", {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster"}),
        ("Service", {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}}, "externalIPs": []}),
        ("Pod", pod(hostUsers=True, securityContext={"supplementalGroupsPolicy": "Merge"})["spec"]),
        ("PersistentVolumeClaim", {"volumeMode": "Filesystem"}),
    ],
)
def test_who_asks_for_what_is_the_case_anyway_is_told_nothing(name: str, spec: dict[str, Any]) -> None:
    assert told(kinds.builtin(name), {"spec": spec}) == ()


def test_warnings_are_bounded() -> None:
    mounts = [{"name": "a", "mountPath": f"/{i}", "bindMountOptions": ["x"]} for i in range(50)]
    body = pod(containers=[{"name": "a", "image": "i", "volumeMounts": mounts}])
    found = warnings(kinds.builtin("Pod"), body)
    assert len(found) == MOST
    assert found[-1] == "more fields have no effect: see docs/reference/api.md"


VALUES: dict[str, Any] = {"hostPath": {"path": "/a"}, "resourceClaims": [{"name": "a"}]}


@pytest.mark.parametrize("key", sorted(REFUSED["PodSpec"]))
def test_what_is_said_to_be_refused_of_a_pod_is(key: str) -> None:
    assert any(key in text for text in complaints(pod(**{key: VALUES.get(key, True)})))


@pytest.mark.parametrize("key", sorted(REFUSED["Volume"]))
def test_volumes_that_are_said_to_be_refused_are(key: str) -> None:
    assert any(
        f"spec.volumes[0].{key}: Forbidden" in text for text in complaints(pod(volumes=[{"name": "a", key: {}}]))
    )


def complaints(body: dict[str, Any]) -> list[str]:
    strategy, fields = kinds.builtin("Pod").strategy, Fields()
    new = copy.deepcopy(body)
    strategy.default(new)
    strategy.validate(new, fields)
    return [str(error) for error in fields.errors]


def test_the_page_of_the_api_names_every_field_without_effect() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/api.md").read_text()
    for name, rows in IGNORED.items():
        assert all(f"`{name}.{key}`" in page for key in rows)
