"""Decisions of the scheduler: where a pod can be, in Kubernetes' words why not elsewhere, and which node is best."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.scheduler.decide import decide
from cuboid.scheduler.resources import requested
from cuboid.scheduler.snapshot import Snapshot, placed
from cuboid.scheduler.volumes import claims

Object = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"


def pod(name: str = "p", node: str = "", labels: Object | None = None, **spec: Any) -> Object:
    requests = spec.pop("requests", {})
    container = {"name": "c", "image": "i", "resources": {"requests": requests}}
    metadata = {"name": name, "namespace": "d", "uid": name, "labels": labels or {}}
    placed_on = {"nodeName": node} if node else {}
    return {"metadata": metadata, "spec": {"containers": [container], **placed_on, **spec}}


def node(name: str, labels: Object | None = None, *, ready: bool = True, **spec: Any) -> Object:
    allocatable = spec.pop("allocatable", {"cpu": "4", "memory": "4Gi", "pods": "110"})
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "allocatable": allocatable,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def snapshot(nodes: list[Object], pods: list[Object] = []) -> Snapshot:  # noqa: B006 - never changed
    made = Snapshot()
    for item in nodes:
        made.set_node(item)
    for item in pods:
        made.set_pod(placed(item))
    return made


def near(key: str, labels: Object, *, away: bool = False, weight: int = 0) -> Object:
    term: Object = {"topologyKey": key, "labelSelector": {"matchLabels": labels}}
    side = "podAntiAffinity" if away else "podAffinity"
    if weight:
        return {
            side: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}
        }
    return {side: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def on_nodes(*expressions: Object) -> Object:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


NEVER: Object = {"preemptionPolicy": "Never"}
SPREAD = {
    "topologyKey": ZONE,
    "maxSkew": 1,
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"a": "b"}},
}
REFUSALS: list[tuple[str, Object, list[Object], list[Object], str]] = [
    ("cordoned", pod(), [node("n", unschedulable=True)], [], "1 node(s) were unschedulable"),
    ("not ready", pod(), [node("n", ready=False)], [], "1 node(s) were not ready"),
    (
        "taint",
        pod(),
        [node("n", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])],
        [],
        "1 node(s) had untolerated taint {gpu: yes}",
    ),
    (
        "another value is not tolerated",
        pod(tolerations=[{"key": "gpu", "value": "no", "effect": "NoSchedule"}]),
        [node("n", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])],
        [],
        "1 node(s) had untolerated taint {gpu: yes}",
    ),
    ("selector", pod(nodeSelector={"a": "b"}), [node("n")], [], "1 node(s) didn't match Pod's node affinity/selector"),
    (
        "affinity to nodes",
        pod(affinity=on_nodes({"key": "cores", "operator": "Gt", "values": ["8"]})),
        [node("n", {"cores": "8"})],
        [],
        "1 node(s) didn't match Pod's node affinity/selector",
    ),
    ("cpu", pod(requests={"cpu": "5"}), [node("n")], [], "1 Insufficient cpu"),
    (
        "two resources of two nodes",
        pod(requests={"cpu": "5", "memory": "5Gi"}),
        [node("n"), node("m")],
        [],
        "2 Insufficient cpu, 2 Insufficient memory",
    ),
    (
        "overhead",
        pod(requests={"memory": "4Gi"}, overhead={"memory": "1Mi"}),
        [node("n")],
        [],
        "1 Insufficient memory",
    ),
    ("a device nobody has", pod(requests={"x.y/gpu": "1"}), [node("n")], [], "1 Insufficient x.y/gpu"),
    (
        "too many",
        pod(),
        [node("n", allocatable={"pods": "1"})],
        [pod("q", "n")],
        "1 Too many pods",
    ),
    (
        "attraction without a partner",
        pod(affinity=near(ZONE, {"a": "b"})),
        [node("n", {ZONE: "z"})],
        [],
        "1 node(s) didn't match pod affinity rules",
    ),
    (
        "repelled",
        pod(affinity=near(ZONE, {"a": "b"}, away=True)),
        [node("n", {ZONE: "z"}), node("m", {ZONE: "z"})],
        [pod("q", "m", {"a": "b"})],
        "2 node(s) didn't match pod anti-affinity rules",
    ),
    (
        "repelled by one that is there",
        pod(labels={"a": "b"}),
        [node("n")],
        [pod("q", "n", affinity=near("kubernetes.io/hostname", {"a": "b"}, away=True))],
        "1 node(s) didn't satisfy existing pods anti-affinity rules",
    ),
    (
        "spread",
        pod(labels={"a": "b"}, topologySpreadConstraints=[SPREAD]),
        [node("n", {ZONE: "1"}), node("m", {ZONE: "2"}, unschedulable=True)],
        [pod("q", "n", {"a": "b"})],
        "1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable",
    ),
    (
        "spread over a label that is missing",
        pod(labels={"a": "b"}, topologySpreadConstraints=[SPREAD]),
        [node("n")],
        [],
        "1 node(s) didn't match pod topology spread constraints (missing required label)",
    ),
]


@pytest.mark.parametrize(
    ("pending", "nodes", "there", "told"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_a_pod_that_fits_nowhere_is_told_why(
    pending: Object, nodes: list[Object], there: list[Object], told: str
) -> None:
    pending["spec"].update(NEVER)
    decision = decide(pending, snapshot(nodes, there))
    tail = " preemption: not eligible due to preemptionPolicy=Never."
    assert (decision.node, decision.message) == ("", f"0/{len(nodes)} nodes are available: {told}.{tail}")


def test_without_nodes_nothing_is_counted() -> None:
    assert decide(pod(), snapshot([])).message == "no nodes available to schedule pods"


def test_host_ports_are_taken_once_per_address() -> None:
    def with_port(name: str, address: str, where: str = "") -> Object:
        made = pod(name, where)
        made["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80, "hostIP": address}]
        return made

    there = snapshot([node("n")], [with_port("q", "10.0.0.1", "n")])
    assert decide(with_port("p", "10.0.0.2"), there).node == "n"
    refused = decide(with_port("p", ""), there).message
    assert "didn't have free ports" in refused
    assert "port 80/tcp is taken by the pod q." in refused
    elsewhere = with_port("p", "")
    elsewhere["metadata"]["namespace"] = "other"
    assert "port 80/tcp is taken by a pod of another namespace." in decide(elsewhere, there).message


def test_a_pod_that_wants_to_be_near_its_own_kind_may_be_the_first() -> None:
    own = pod(labels={"a": "b"}, affinity=near(ZONE, {"a": "b"}))
    assert decide(own, snapshot([node("n", {ZONE: "z"})])).node == "n"


def test_a_term_of_all_namespaces_sees_pods_of_others() -> None:
    term = {"topologyKey": ZONE, "labelSelector": {}, "namespaceSelector": {}}
    wanted = pod(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    other = pod("q", "n")
    other["metadata"]["namespace"] = "elsewhere"
    there = snapshot([node("n", {ZONE: "1"}), node("m", {ZONE: "2"})], [other])
    assert decide(wanted, there).node == "m"


@pytest.mark.parametrize(
    ("wanted", "nodes", "there", "best"),
    [
        (pod(requests={"cpu": "1"}), [node("n"), node("m")], [pod("q", "n", requests={"cpu": "2"})], "m"),
        (
            pod(),
            [node("n", taints=[{"key": "k", "effect": "PreferNoSchedule"}]), node("o")],
            [pod("q", "o")],
            "o",
        ),
        (
            pod(
                affinity={
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 5, "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]}}
                        ]
                    }
                }
            ),
            [node("m"), node("n", {"ssd": ""})],
            [],
            "n",
        ),
        (
            pod(affinity=near(ZONE, {"a": "b"}, weight=9)),
            [node("m", {ZONE: "1"}), node("n", {ZONE: "2"})],
            [pod("q", "n", {"a": "b"})],
            "n",
        ),
        (
            pod(affinity=near(ZONE, {"a": "b"}, away=True, weight=9)),
            [node("m", {ZONE: "1"}), node("n", {ZONE: "2"})],
            [pod("q", "m", {"a": "b"})],
            "n",
        ),
        (pod(), [node("b"), node("a")], [], "a"),
    ],
    ids=["most room", "fewer soft taints", "preferred label", "preferred company", "unwanted company", "by name"],
)
def test_the_best_node_is_chosen(wanted: Object, nodes: list[Object], there: list[Object], best: str) -> None:
    assert decide(wanted, snapshot(nodes, there)).node == best


def test_what_a_pod_asks_for_counts_sidecars_peaks_and_overhead() -> None:
    wanted = {
        "spec": {
            "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"resources": {"requests": {"cpu": "2"}}},
            ],
            "overhead": {"memory": "64Mi"},
        }
    }
    assert requested(wanted) == {"cpu": 2500, "memory": 1024**3 + 64 * 1024**2}


def test_requests_of_the_whole_pod_replace_those_of_its_parts() -> None:
    wanted = {
        "spec": {
            "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
            "resources": {"requests": {"cpu": "3"}},
        }
    }
    assert requested(wanted) == {"cpu": 3000, "memory": 1024**3}


# --- volumes ---------------------------------------------------------------------------------------------------------


def with_claim(name: str = "data") -> Object:
    return pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": name}}])


def claim(volume: str = "", phase: str = "Pending", storage_class: str = "now") -> Object:
    spec = {"volumeName": volume, "storageClassName": storage_class}
    return {"metadata": {"name": "data", "namespace": "d", "uid": "c"}, "spec": spec, "status": {"phase": phase}}


def looked_up(found: Object | None, volume: Object | None = None) -> Any:
    classes = {"later": {"volumeBindingMode": "WaitForFirstConsumer"}, "now": {"volumeBindingMode": "Immediate"}}
    return claims(with_claim(), lambda *_: found, lambda *_: volume, lambda _, name: classes.get(name))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, 'persistentvolumeclaim "data" not found'),
        (claim(), "pod has unbound immediate PersistentVolumeClaims"),
        (claim("v", "Lost"), 'persistentvolumeclaim "data" bound to non-existent persistentvolume'),
    ],
)
def test_a_claim_that_is_not_ready_keeps_its_pod_waiting(found: Object | None, told: str) -> None:
    decision = decide(with_claim(), snapshot([node("n")]), looked_up(found))
    assert decision.message == f"0/1 nodes are available: {told}."


def test_a_claim_that_waits_for_its_consumer_is_told_the_node() -> None:
    decision = decide(with_claim(), snapshot([node("n")]), looked_up(claim(storage_class="later")))
    assert (decision.node, len(decision.waiting)) == ("n", 1)


def test_the_node_that_a_claim_was_told_is_kept() -> None:
    told = claim(storage_class="later")
    told["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "n"}
    there = snapshot([node("a"), node("n")], [pod("q", "n")])
    assert decide(with_claim(), there, looked_up(told)).node == "n"


def test_a_volume_of_one_node_draws_its_pod_there() -> None:
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]
    volume = {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}
    found = looked_up(claim("v", "Bound"), volume)
    assert decide(with_claim(), snapshot([node("a"), node("b")]), found).node == "b"
    alone = decide({**with_claim(), "spec": {**with_claim()["spec"], **NEVER}}, snapshot([node("a")]), found)
    assert "1 node(s) didn't match PersistentVolume's node affinity" in alone.message


# --- preemption ------------------------------------------------------------------------------------------------------


def important(**fields: Any) -> Object:
    return pod("boss", priority=100, **fields)


def test_the_least_important_pods_make_room() -> None:
    there = [
        pod("low", "a", requests={"cpu": "3"}, priority=1),
        pod("mid", "b", requests={"cpu": "3"}, priority=50),
        pod("same", "c", requests={"cpu": "3"}, priority=100),
    ]
    decision = decide(important(requests={"cpu": "2"}), snapshot([node("a"), node("b"), node("c")], there))
    assert (decision.node, decision.nominated, [v.name for v in decision.victims]) == ("", "a", ["low"])


def test_no_more_pods_go_than_have_to() -> None:
    there = [pod(f"low-{n}", "a", requests={"cpu": "1"}, priority=n) for n in range(4)]
    decision = decide(important(requests={"cpu": "2"}), snapshot([node("a")], there))
    assert [v.name for v in decision.victims] == ["low-0", "low-1"]


def test_protected_pods_are_spared_where_there_is_a_choice() -> None:
    there = [
        pod("guarded", "a", requests={"cpu": "3"}, priority=1),
        pod("free", "b", requests={"cpu": "3"}, priority=2),
    ]
    found = snapshot([node("a"), node("b")], there)
    decision = decide(important(requests={"cpu": "2"}), found, protected=lambda other: other.name == "guarded")
    assert [v.name for v in decision.victims] == ["free"]


def test_where_nobody_can_go_the_sentence_says_so() -> None:
    there = [pod("same", "a", requests={"cpu": "3"}, priority=100)]
    nodes = [node("a"), node("b", unschedulable=True)]
    assert decide(important(requests={"cpu": "2"}), snapshot(nodes, there)).message == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. "
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )


def test_a_pod_larger_than_the_node_costs_nobody_his_place() -> None:
    there = [pod("low", "a", requests={"cpu": "3"})]
    assert decide(important(requests={"cpu": "9"}), snapshot([node("a")], there)).victims == ()


def test_room_that_is_made_for_one_is_not_taken_by_a_lesser_one() -> None:
    found = snapshot([node("a")])
    found.nominate(placed(important(requests={"cpu": "3"}), "a"), "boss")
    lesser = pod("p", requests={"cpu": "2"}, **NEVER)
    assert "1 Insufficient cpu" in decide(lesser, found).message
    assert decide(pod("q", requests={"cpu": "2"}, priority=101), found).node == "a"
