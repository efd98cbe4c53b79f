"""What objects take of a quota."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube.kinds import builtin
from cuboid.kube.quota_usage import amount, constrained, matches, scopes_match, text, usage
from cuboid.lib.clock import rfc3339

POD, CLAIM, SERVICE = builtin("Pod"), builtin("PersistentVolumeClaim"), builtin("Service")


def pod(*containers: dict[str, Any], status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    given = [{"name": f"c{n}", "resources": one} for n, one in enumerate(containers or ({},))]
    return {"metadata": {"name": "p"}, "spec": {"containers": given, **spec}, "status": status or {}}


def sized(cpu: str, **other: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, **other}}


def test_a_pod_counts_itself_its_requests_and_its_limits() -> None:
    one = {"requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "1"}}
    assert usage(POD, pod(one, sized("250m"))) == {
        "count/pods": 1, "pods": 1, "cpu": 350, "requests.cpu": 350, "memory": 1 << 30, "requests.memory": 1 << 30,
        "requests.example.com/gpu": 2, "limits.cpu": 1000,
    }  # fmt: skip


def test_init_containers_count_by_their_greatest_and_sidecars_always() -> None:
    inits = [
        {"name": "side", "restartPolicy": "Always", "resources": sized("1")},
        {"name": "big", "resources": sized("4")},
        {"name": "small", "resources": sized("2")},
    ]
    assert usage(POD, pod(sized("2"), initContainers=inits))["cpu"] == 5000
    assert usage(POD, pod(sized("6"), initContainers=inits))["cpu"] == 7000


def test_overhead_adds_to_requests_and_only_to_limits_that_exist() -> None:
    used = usage(
        POD, pod({"requests": {"memory": "1Gi"}, "limits": {"cpu": "1"}}, overhead={"memory": "64Mi", "cpu": "5m"})
    )
    assert (used["memory"], used["limits.cpu"], "limits.memory" in used) == ((1 << 30) + (64 << 20), 1005, False)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_only_an_object(phase: str) -> None:
    assert usage(POD, pod(sized("1"), status={"phase": phase})) == {"count/pods": 1}


def test_a_pod_past_its_grace_period_lets_its_quota_go() -> None:
    going = pod(sized("1"))
    going["metadata"] |= {"deletionTimestamp": rfc3339(1000), "deletionGracePeriodSeconds": 30}
    assert usage(POD, going, 1030.0)["pods"] == 1
    assert "pods" not in usage(POD, going, 1031.0)
    assert usage(POD, going)["pods"] == 1, "without a time it is taken as it is"


def test_a_claim_counts_its_size_also_for_its_class() -> None:
    claim = {"metadata": {}, "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}}
    assert usage(CLAIM, claim) == {
        "count/persistentvolumeclaims": 1, "persistentvolumeclaims": 1, "requests.storage": 2 << 30,
        "fast.storageclass.storage.k8s.io/requests.storage": 2 << 30,
        "fast.storageclass.storage.k8s.io/persistentvolumeclaims": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "ports", "balancers"),
    [
        ({"type": "ClusterIP", "ports": [{"port": 1}]}, 0, 0),
        ({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}, 2, 0),
        ({"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}, 2, 1),
        (
            {
                "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": False,
                "ports": [{"port": 1}, {"port": 2, "nodePort": 30001}],
            },
            1,
            1,
        ),
    ],
)
def test_a_service_counts_its_node_ports(spec: dict[str, Any], ports: int, balancers: int) -> None:
    used = usage(SERVICE, {"metadata": {}, "spec": spec})
    assert (used["services"], used["services.nodeports"], used["services.loadbalancers"]) == (1, ports, balancers)


def test_kinds_of_a_group_are_counted_under_it() -> None:
    assert usage(builtin("Deployment", "apps"), {"metadata": {}}) == {"count/deployments.apps": 1}
    assert usage(builtin("ConfigMap"), {"metadata": {}}) == {"count/configmaps": 1, "configmaps": 1}


def scope(name: str, operator: str = "Exists", *values: str) -> dict[str, Any]:
    expression = {"scopeName": name, "operator": operator, **({"values": list(values)} if values else {})}
    return {"spec": {"scopeSelector": {"matchExpressions": [expression]}}}


AFFINITY = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}}


@pytest.mark.parametrize(
    ("quota", "given", "expected"),
    [
        ({"spec": {}}, pod(), True),
        ({"spec": {"scopes": ["Terminating"]}}, pod(activeDeadlineSeconds=5), True),
        ({"spec": {"scopes": ["Terminating"]}}, pod(), False),
        ({"spec": {"scopes": ["NotTerminating"]}}, pod(), True),
        ({"spec": {"scopes": ["BestEffort"]}}, pod(), True),
        ({"spec": {"scopes": ["BestEffort"]}}, pod(sized("1m")), False),
        ({"spec": {"scopes": ["NotBestEffort"]}}, pod({"limits": {"memory": "1Mi"}}), True),
        ({"spec": {"scopes": ["NotBestEffort", "Terminating"]}}, pod(sized("1")), False),
        (scope("PriorityClass", "In", "high"), pod(priorityClassName="high"), True),
        (scope("PriorityClass", "In", "high"), pod(), False),
        (scope("PriorityClass", "NotIn", "high"), pod(priorityClassName="low"), True),
        (scope("PriorityClass", "Exists"), pod(priorityClassName="low"), True),
        (scope("PriorityClass", "DoesNotExist"), pod(), True),
        (scope("CrossNamespacePodAffinity"), pod(affinity=AFFINITY), True),
        (scope("CrossNamespacePodAffinity"), pod(), False),
        (scope("OfTheFuture"), pod(), False),
    ],
)
def test_scopes(quota: dict[str, Any], given: dict[str, Any], expected: bool) -> None:
    assert scopes_match(quota, given) is expected


def test_a_quota_with_scopes_is_about_pods_only() -> None:
    assert not matches({"spec": {"scopes": ["NotTerminating"]}}, SERVICE, {"metadata": {}})
    assert matches({"spec": {}}, SERVICE, {"metadata": {}})


@pytest.mark.parametrize(
    ("resource", "written", "value", "shown"),
    [
        ("requests.cpu", "1500m", 1500, "1500m"),
        ("cpu", "2", 2000, "2"),
        ("limits.memory", "1Gi", 1 << 30, "1Gi"),
        ("requests.storage", "1500", 1500, "1500"),
        ("fast.storageclass.storage.k8s.io/requests.storage", "3Mi", 3 << 20, "3Mi"),
        ("count/jobs.batch", "2k", 2000, "2k"),
        ("pods", "0", 0, "0"),
    ],
)
def test_amounts_are_read_and_written_in_their_units(resource: str, written: str, value: int, shown: str) -> None:
    assert amount(resource, written) == value
    assert text(resource, value) == shown


def test_only_what_a_quota_names_is_constrained() -> None:
    assert constrained({"pods": "5"}, {"pods": 1, "cpu": 5}) == {"pods": 1}
