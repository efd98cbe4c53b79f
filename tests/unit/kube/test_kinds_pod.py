"""Where pods may run, what they may need and what may change of them: refused with Kubernetes' paths and words."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import kinds
from cuboid.kube.fields import Fields

POD = kinds.builtin("Pod").strategy


def pod(**spec: Any) -> dict[str, Any]:
    full = {"containers": [{"name": "a", "image": "i"}], **spec}
    new = {"metadata": {"name": "p", "namespace": "d"}, "spec": copy.deepcopy(full)}
    POD.prepare_create(new, "2026-01-01T00:00:00Z")
    return new


def container(**values: Any) -> dict[str, Any]:
    return {"containers": [{"name": "a", "image": "i", **values}]}


def complaints(**spec: Any) -> list[str]:
    fields = Fields()
    POD.validate(pod(**spec), fields)
    return [str(error) for error in fields.errors]


def node(*requirements: dict[str, Any], key: str = "matchExpressions") -> dict[str, Any]:
    return {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{key: list(requirements)}]}
            }
        }
    }


def peer(**term: Any) -> dict[str, Any]:
    return {
        "affinity": {
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", **term}]}
        }
    }


def spread(**constraint: Any) -> dict[str, Any]:
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {},
                **constraint,
            }
        ]
    }


TERM = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
PEER = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
SPREAD = "spec.topologySpreadConstraints[0]"
C = "spec.containers[0]"
CASES: list[tuple[dict[str, Any], str]] = [
    # tolerations
    ({"tolerations": [{"key": "a b", "operator": "Exists"}]}, 'spec.tolerations[0].key: Invalid value: "a b": name part must consist of'),
    ({"tolerations": [{"value": "x"}]}, 'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty, which means "match all values and all keys"'),
    ({"tolerations": [{"key": "a", "value": "-"}]}, 'spec.tolerations[0].operator: Invalid value: "-": a valid label must be'),
    ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"),
    ({"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]}, "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"),
    ({"tolerations": [{"key": "a", "operator": "Exists", "effect": "No"}]}, 'spec.tolerations[0].effect: Unsupported value: "No": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"'),
    # node affinity
    (node({"key": "a", "operator": "In"}), f"{TERM}.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
    (node({"key": "a", "operator": "Exists", "values": ["b"]}), f"{TERM}.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
    (node({"key": "a", "operator": "Gt", "values": ["1", "2"]}), f"{TERM}.matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"),
    (node({"key": "a", "operator": "Near"}), f'{TERM}.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator'),
    (node({"key": "a b", "operator": "Exists"}), f'{TERM}.matchExpressions[0].key: Invalid value: "a b": name part must consist of'),
    (node({"key": "a", "operator": "In", "values": ["-"]}), f'{TERM}.matchExpressions[0].values[0]: Invalid value: "-": a valid label must be'),
    (node({"key": "spec.x", "operator": "In", "values": ["n"]}, key="matchFields"), f'{TERM}.matchFields[0].key: Invalid value: "spec.x": not a valid field selector key'),
    (node({"key": "metadata.name", "operator": "In", "values": ["n", "m"]}, key="matchFields"), f"{TERM}.matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
    ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}}, f"{TERM[:-3]}: Required value: must have at least one node selector term"),
    ({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}]}}}, "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100"),
    # pod affinity
    (peer(topologyKey=""), f"{PEER}.topologyKey: Required value: can not be empty"),
    (peer(namespaces=["A"]), f'{PEER}.namespace: Invalid value: "A": a lowercase RFC 1123 label'),
    (peer(labelSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}), f"{PEER}.labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
    (peer(namespaceSelector={"matchLabels": {"a": "-"}}), f'{PEER}.namespaceSelector.matchLabels: Invalid value: "-": a valid label must be'),
    (peer(matchLabelKeys=["a"]), f"{PEER}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"),
    (peer(labelSelector={}, matchLabelKeys=["a"], mismatchLabelKeys=["a"]), f'{PEER}.matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and mismatchLabelKeys'),
    ({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "z"}}]}}}, "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100"),
    # spread, gates
    (spread(maxSkew=0), f"{SPREAD}.maxSkew: Invalid value: 0: must be greater than zero"),
    (spread(topologyKey=""), f"{SPREAD}.topologyKey: Required value: can not be empty"),
    (spread(whenUnsatisfiable="Cry"), f'{SPREAD}.whenUnsatisfiable: Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway"'),
    (spread(minDomains=0), f"{SPREAD}.minDomains: Invalid value: 0: must be greater than zero"),
    (spread(minDomains=1, whenUnsatisfiable="ScheduleAnyway"), f"{SPREAD}.minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"),
    (spread(nodeTaintsPolicy="Maybe"), f'{SPREAD}.nodeTaintsPolicy: Unsupported value: "Maybe": supported values: "Honor", "Ignore"'),
    (spread(labelSelector={"matchLabels": {"a": "b"}}, matchLabelKeys=["a"]), f'{SPREAD}.matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector'),
    ({"topologySpreadConstraints": spread()["topologySpreadConstraints"] * 2}, 'spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}"'),
    ({"schedulingGates": [{"name": "a"}, {"name": "a"}]}, 'spec.schedulingGates[1]: Duplicate value: "a"'),
    ({"schedulingGates": [{"name": "a b"}]}, 'spec.schedulingGates[0]: Invalid value: "a b": name part must consist of'),
    ({"schedulingGates": [{"name": "a"}], "nodeName": "n"}, "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"),
    # the pod as a whole
    ({"readinessGates": [{"conditionType": "a b"}]}, 'spec.readinessGates[0].conditionType: Invalid value: "a b": name part must consist of'),
    ({"preemptionPolicy": "Maybe"}, 'spec.preemptionPolicy: Unsupported value: "Maybe": supported values: "Never", "PreemptLowerPriority"'),
    ({"overhead": {"cpu": "-1"}}, 'spec.overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
    ({"os": {"name": "windows"}}, 'spec.os.name: Unsupported value: "windows": supported values: "linux"'),
    ({"os": {}}, "spec.os.name: Required value: cannot be empty"),
    ({"resourceClaims": [{"name": "a"}]}, "spec.resourceClaims: Forbidden: Cuboid has no dynamic resource allocation"),
    ({"dnsPolicy": "None", "dnsConfig": {}}, "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"),
    ({"dnsConfig": {"searches": ["a" * 60] * 34}}, "spec.dnsConfig.searches: Invalid value"),
    ({"hostAliases": [{"ip": "1.1.1.1", "hostnames": ["A"]}]}, 'spec.hostAliases[0].hostnames[0]: Invalid value: "A": a lowercase RFC 1123 subdomain'),
    ({"resources": {"requests": {"cpu": "1"}}, **container(resources={"requests": {"cpu": "2"}})}, 'spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2'),
    ({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, "spec.volumes[0].persistentVolumeClaim.claimName: Required value"),
    # security
    ({"securityContext": {"sysctls": [{"name": "a."}]}}, 'spec.securityContext.sysctls[0].name: Invalid value: "a."'),
    ({"securityContext": {"sysctls": [{"name": "kernel.x"}, {"name": "kernel.x"}]}}, 'spec.securityContext.sysctls[1].name: Duplicate value: "kernel.x"'),
    ({"securityContext": {"supplementalGroupsPolicy": "Some"}}, 'spec.securityContext.supplementalGroupsPolicy: Unsupported value: "Some": supported values: "Merge", "Strict"'),
    ({"securityContext": {"seccompProfile": {}}}, "spec.securityContext.seccompProfile.type: Required value: type is required when seccompProfile is set"),
    ({"securityContext": {"seccompProfile": {"type": "Localhost"}}}, "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"),
    ({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}}, "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'"),
    ({"securityContext": {"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}}}, 'spec.securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost'),
    ({"securityContext": {"windowsOptions": {}}}, "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"),
    (container(securityContext={"procMount": "Some"}), f'{C}.securityContext.procMount: Unsupported value: "Some": supported values: "Default", "Unmasked"'),
    (container(securityContext={"procMount": "Unmasked"}), f'{C}.securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`'),
    (container(securityContext={"allowPrivilegeEscalation": False, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"),
    # containers
    (container(resizePolicy=[{"resourceName": "disk", "restartPolicy": "NotRequired"}]), f'{C}.resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"'),
    (container(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}] * 2), f'{C}.resizePolicy[1]: Duplicate value: "cpu"'),
    ({"restartPolicy": "Never", **container(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "RestartContainer"}])}, f"{C}.resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'"),
    (container(lifecycle={"preStop": {"sleep": {"seconds": 31}}}), f"{C}.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"),
    (container(livenessProbe={"httpGet": {"port": 80, "httpHeaders": [{"name": "a b"}]}}), f'{C}.livenessProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header'),
    (container(readinessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}), f"{C}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes"),
    (container(resources={"limits": {"hugepages-2Mi": "2Mi"}}), f"{C}.resources: Forbidden: HugePages require cpu or memory"),
    (container(resources={"requests": {"example.com/gpu": "1"}}), f"{C}.resources.limits: Required value: Limit must be set for non overcommitable resources"),
    (container(resources={"limits": {"example.com/gpu": "2"}, "requests": {"example.com/gpu": "1"}}), f'{C}.resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2'),
    ({"volumes": [{"name": "v"}], **container(volumeMounts=[{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}])}, f"{C}.volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"),
    ({"volumes": [{"name": "v"}], **container(volumeMounts=[{"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled"}])}, f"{C}.volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_a_wrong_pod_is_refused_in_kubernetes_words(spec: dict[str, Any], expected: str) -> None:
    found = complaints(**spec)
    assert any(expected in complaint for complaint in found), found


@pytest.mark.parametrize(
    "spec",
    [
        node({"key": "a", "operator": "Gt", "values": ["3"]}),
        node({"key": "metadata.name", "operator": "In", "values": ["n"]}, key="matchFields"),
        peer(labelSelector={"matchLabels": {"a": "b"}}, matchLabelKeys=["c"], namespaces=["d"]),
        spread(minDomains=2, nodeAffinityPolicy="Ignore"),
        {"schedulingGates": [{"name": "example.com/wait"}]},
        {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 3}]},
        {"resources": {"requests": {"cpu": "2"}}, **container(resources={"requests": {"cpu": "2"}})},
        {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}},
        {"hostUsers": False, **container(securityContext={"procMount": "Unmasked"})},
        {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
        container(resources={"limits": {"hugepages-2Mi": "2Mi", "memory": "1Gi"}}),
        {"initContainers": [{"name": str(i), "image": "i", "ports": [{"containerPort": 1, "hostPort": 1}]} for i in range(2)]},
    ],
)  # fmt: skip
def test_a_right_pod_is_accepted(spec: dict[str, Any]) -> None:
    assert complaints(**spec) == []


GATED: dict[str, Any] = {"schedulingGates": [{"name": "g"}], "nodeSelector": {"a": "b"}}
ONE, TWO = {"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}
OTHER = "pod updates may not change fields other than"
CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, container(image="new"), ""),
    ({}, container(image=""), f"{C}.image: Required value"),
    ({"activeDeadlineSeconds": 9}, {"activeDeadlineSeconds": 5}, ""),
    ({"activeDeadlineSeconds": 5}, {"activeDeadlineSeconds": 9}, "spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"),
    ({"activeDeadlineSeconds": 5}, {}, "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"),
    ({}, {"terminationGracePeriodSeconds": 1}, f"spec: Forbidden: {OTHER}"),
    ({}, {"schedulingGates": [{"name": "g"}]}, "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"),
    (GATED, {**GATED, "schedulingGates": []}, ""),
    (GATED, {**GATED, "nodeSelector": {"a": "b", "c": "d"}}, ""),
    (GATED, {**GATED, "nodeSelector": {"a": "x"}}, 'spec.nodeSelector: Invalid value: {"a":"x"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)'),
    ({}, {"nodeSelector": {"a": "b"}}, f"spec: Forbidden: {OTHER}"),
    (GATED, {**GATED, **node(ONE)}, ""),
    ({**GATED, **node(ONE)}, {**GATED, **node(ONE, TWO)}, ""),
    ({**GATED, **node(ONE)}, {**GATED, **node(TWO)}, "only additions are allowed (no mutations or deletions)"),
    ({**GATED, **node(ONE)}, GATED, "no additions/deletions to non-empty NodeSelectorTerms list are allowed"),
    ({}, node(ONE), f"spec: Forbidden: {OTHER}"),
    (GATED, {**GATED, **peer(labelSelector={})}, f"spec: Forbidden: {OTHER}"),
    ({}, {"hostname": "h"}, f"spec: Forbidden: {OTHER} `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), CHANGES, ids=[f"{i}" for i in range(len(CHANGES))])
def test_what_may_change_of_a_pod(before: dict[str, Any], after: dict[str, Any], expected: str) -> None:
    fields = Fields()
    POD.validate_update(pod(**after), pod(**before), fields)
    found = [str(error) for error in fields.errors]
    assert (found == []) if not expected else any(expected in complaint for complaint in found), found


def test_a_pod_that_is_debugged_can_still_be_changed() -> None:
    old, new = pod(), pod(**container(image="new"))
    for document in (old, new):
        document["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox"}]
    fields = Fields()
    POD.validate_update(new, old, fields)
    assert fields.errors == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.1"}], "conditions": [{"type": "cuboid.dev/Paused"}]}, ""),
        ({"conditions": [{"type": "a b"}]}, 'status.conditions[0].Type: Invalid value: "a b": name part must consist of'),
        ({"conditions": [{"type": "Ready", "observedGeneration": -1}]}, "status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer"),
        ({"podIPs": [{"ip": "x"}]}, 'status.podIPs[0]: Invalid value: "x": must be a valid IP address'),
        ({"hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.2"}]}, 'status.hostIPs[0].ip: Invalid value: "1.1.1.2": must be equal to `hostIP`'),
        ({"nominatedNodeName": "A"}, 'status.nominatedNodeName: Invalid value: "A": a lowercase RFC 1123 subdomain'),
        ({"observedGeneration": -1}, "status.observedGeneration: Invalid value: -1: must be a non-negative integer"),
    ],
)  # fmt: skip
def test_what_a_pod_may_say_of_itself(status: dict[str, Any], expected: str) -> None:
    old, fields = pod(), Fields()
    POD.validate_status({**old, "status": {**old["status"], **status}}, old, fields)
    found = [str(error) for error in fields.errors]
    assert (found == []) if not expected else any(expected in complaint for complaint in found), found
