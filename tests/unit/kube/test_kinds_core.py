"""The kinds beside workloads are filled in, refused, changed and printed as Kubernetes does. A case is a line."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import bodies, kinds, schema
from cuboid.kube.fields import Fields
from cuboid.kube.kinds import Kind
from cuboid.kube.options import WriteOptions

GROUPS = {
    "Lease": "coordination.k8s.io",
    "EndpointSlice": "discovery.k8s.io", "PriorityClass": "scheduling.k8s.io", "StorageClass": "storage.k8s.io",
    "RuntimeClass": "node.k8s.io", "Ingress": "networking.k8s.io", "IngressClass": "networking.k8s.io",
    "NetworkPolicy": "networking.k8s.io", "Role": "rbac.authorization.k8s.io",
    "ClusterRole": "rbac.authorization.k8s.io", "RoleBinding": "rbac.authorization.k8s.io",
    "ClusterRoleBinding": "rbac.authorization.k8s.io",
}  # fmt: skip


def kind_of(name: str) -> Kind:
    return kinds.builtin(name, GROUPS.get(name, ""))


def made(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """As it is stored."""
    kind = kind_of(name)
    metadata = {"name": "x", **({"namespace": "d"} if kind.namespaced else {}), **body.get("metadata", {})}
    new, _ = bodies.decode(kind, {**copy.deepcopy(body), "metadata": metadata}, WriteOptions(validation="Strict"))
    kind.strategy.prepare_create(new, "2026-01-01T00:00:00Z")
    new["metadata"] |= {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    kind.strategy.default(new)
    return new


def complaints(name: str, body: dict[str, Any]) -> list[str]:
    fields = Fields()
    kind_of(name).strategy.validate(made(name, body), fields)
    return [str(error) for error in fields.errors]


def changed(
    name: str, before: dict[str, Any], after: dict[str, Any], status: dict[str, Any] | None = None
) -> list[str]:
    fields, strategy = Fields(), kind_of(name).strategy
    old, new = made(name, before), made(name, after)
    if status is not None:
        old["status"] = status
    strategy.prepare_update(new, old)
    strategy.validate_update(new, old, fields)
    return [str(error) for error in fields.errors]


def subset(**parts: Any) -> dict[str, Any]:
    return {"subsets": [{"addresses": [{"ip": "10.77.0.2"}], **parts}]}


def slice_(kind: str = "IPv4", addresses: Any = ("10.77.0.2",), **parts: Any) -> dict[str, Any]:
    return {"addressType": kind, "endpoints": [{"addresses": list(addresses), **parts}]}


def volume(**spec: Any) -> dict[str, Any]:
    full = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "nfs": {"server": "s", "path": "/p"},
        **spec,
    }
    return {"spec": {key: value for key, value in full.items() if value is not None}}


def claim(**spec: Any) -> dict[str, Any]:
    return {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}}


def range_(type_: str = "Container", **item: Any) -> dict[str, Any]:
    return {"spec": {"limits": [{"type": type_, **item}]}}


def rules(**rule: Any) -> dict[str, Any]:
    return {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], **rule}]}


def binding(subject: dict[str, Any] | None = None, **role: Any) -> dict[str, Any]:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view", **role}
    return {"roleRef": role, "subjects": [subject or {"kind": "User", "name": "u"}]}


def ingress(path: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    whole = {"pathType": "Prefix", "path": "/", "backend": backend, **(path or {})}
    return {"spec": {"rules": [{"http": {"paths": [whole]}}], **spec}}


def policy(**spec: Any) -> dict[str, Any]:
    return {"spec": {"podSelector": {}, **spec}}


PAIR = [{"port": 80}, {"port": 81}]
CSI = {"driver": "d", "volumeHandle": "h"}
LOOPBACK = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
ANY: dict[str, Any] = {"nodeSelectorTerms": []}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Endpoints", {"subsets": [{"ports": [{"port": 80}]}]}, "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
    ("Endpoints", subset(addresses=[{"ip": "127.0.0.1"}]), f'subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": {LOOPBACK}'),
    ("Endpoints", subset(addresses=[{"ip": "x"}]), 'subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address'),
    ("Endpoints", subset(addresses=[{"ip": "169.254.169.254"}]), "may not be in the link-local range"),
    ("Endpoints", subset(addresses=[{"ip": "0.0.0.0"}]), "may not be unspecified (0.0.0.0)"),
    ("Endpoints", subset(addresses=[{"ip": "224.0.0.1"}]), "may not be in the link-local multicast range"),
    ("Endpoints", subset(addresses=[{"ip": "10.77.0.2", "hostname": "A"}]), 'subsets[0].addresses[0].hostname: Invalid value: "A"'),
    ("Endpoints", subset(ports=PAIR), "subsets[0].ports[0].name: Required value"),
    ("Endpoints", subset(ports=[{"port": 0}]), "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ("Endpoints", subset(ports=[{"port": 1, "protocol": "X"}]), 'subsets[0].ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"'),
    ("EndpointSlice", slice_(""), "addressType: Required value"),
    ("EndpointSlice", slice_("IPX"), 'addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", "IPv6"'),
    ("EndpointSlice", slice_(addresses=[]), "endpoints[0].addresses: Required value: must contain at least 1 address"),
    ("EndpointSlice", slice_(addresses=["10.77.0.2"] * 101), "endpoints[0].addresses: Too many: 101: must have at most 100 items"),
    ("EndpointSlice", slice_(addresses=["fd00::1"]), 'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address'),
    ("EndpointSlice", slice_("IPv6", ["::1"]), LOOPBACK),
    ("EndpointSlice", slice_("FQDN", ["a"]), 'endpoints[0].addresses[0]: Invalid value: "a": should be a domain with at least two segments separated by dots'),
    ("EndpointSlice", slice_(hints={"forZones": [{"name": "z"}] * 9}), "endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"),
    ("EndpointSlice", {"addressType": "IPv4", "endpoints": [{"addresses": ["10.77.0.2"]}] * 1001}, "endpoints: Too many: 1001: must have at most 1000 items"),
    ("EndpointSlice", {**slice_(), "ports": PAIR}, 'ports[1].name: Duplicate value: ""'),
    ("EndpointSlice", {**slice_(), "ports": [{"port": 0}]}, "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ("PersistentVolume", volume(accessModes=None), "spec.accessModes: Required value: must have at least one access mode"),
    ("PersistentVolume", volume(accessModes=["Often"]), 'spec.accessModes: Unsupported value: "Often": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'),
    ("PersistentVolume", volume(accessModes=["ReadWriteOncePod", "ReadWriteOnce"]), "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"),
    ("PersistentVolume", volume(capacity=None), "spec.capacity: Required value"),
    ("PersistentVolume", volume(capacity={"cpu": "1"}), 'spec.capacity: Unsupported value: {"cpu":"1"}: supported values: "storage"'),
    ("PersistentVolume", volume(capacity={"storage": "0"}), 'spec.capacity[storage]: Invalid value: "0": must be greater than zero'),
    ("PersistentVolume", volume(persistentVolumeReclaimPolicy="Keep"), 'spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", "Recycle", "Retain"'),
    ("PersistentVolume", volume(volumeMode="Tape"), 'spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"'),
    ("PersistentVolume", volume(nfs=None), "spec: Required value: must specify a volume type"),
    ("PersistentVolume", volume(csi=CSI), "spec.nfs: Forbidden: may not specify more than 1 volume type"),
    ("PersistentVolume", volume(nfs={"server": "s", "path": "p"}), 'spec.nfs.path: Invalid value: "p": must be an absolute path'),
    ("PersistentVolume", volume(nfs={"server": "", "path": "/p"}), "spec.nfs.server: Required value"),
    ("PersistentVolume", volume(nfs=None, csi={**CSI, "driver": ""}), "spec.csi.driver: Required value"),
    ("PersistentVolume", volume(nfs=None, local={"path": "/a/../b"}), "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'"),
    ("PersistentVolume", volume(nfs=None, local={"path": "/a"}), "spec.nodeAffinity: Required value: Local volume requires node affinity"),
    ("PersistentVolume", volume(nodeAffinity={"required": ANY}), "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"),
    ("PersistentVolume", volume(storageClassName="A"), 'spec.storageClassName: Invalid value: "A"'),
    ("PersistentVolumeClaim", claim(accessModes=[]), "spec.accessModes: Required value: at least 1 access mode is required"),
    ("PersistentVolumeClaim", claim(resources={}), "spec.resources[storage]: Required value"),
    ("PersistentVolumeClaim", claim(resources={"requests": {"storage": "-1"}}), 'spec.resources[storage]: Invalid value: "-1": must be greater than zero'),
    ("PersistentVolumeClaim", claim(storageClassName="A"), 'spec.storageClassName: Invalid value: "A"'),
    ("PersistentVolumeClaim", claim(dataSource={"kind": "VolumeSnapshot", "name": ""}), "spec.dataSource.name: Required value"),
    ("PersistentVolumeClaim", claim(selector={"matchExpressions": [{"key": "a", "operator": "Is"}]}), 'spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator'),
    ("PersistentVolumeClaim", claim(dataSource={"kind": "K", "name": "a"}, dataSourceRef={"kind": "K", "name": "b"}), 'spec: Invalid value: "spec.dataSource": must match dataSourceRef'),
    ("ResourceQuota", {"spec": {"hard": {"cpus": "1"}}}, 'spec.hard[cpus]: Invalid value: "cpus": must be a standard resource for quota'),
    ("ResourceQuota", {"spec": {"hard": {"pods": "-1"}}}, 'spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0'),
    ("ResourceQuota", {"spec": {"hard": {"pods": "1500m"}}}, 'spec.hard[pods]: Invalid value: "1500m": must be an integer'),
    ("ResourceQuota", {"spec": {"hard": {"count/a b": "1"}}}, 'spec.hard[count/a b]: Invalid value: "count/a b"'),
    ("ResourceQuota", {"spec": {"scopes": ["Some"]}}, 'spec.scopes: Invalid value: ["Some"]: unsupported scope'),
    ("ResourceQuota", {"spec": {"scopes": ["BestEffort"], "hard": {"cpu": "1"}}}, 'spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource'),
    ("ResourceQuota", {"spec": {"scopes": ["Terminating", "NotTerminating"]}}, "conflicting scopes"),
    ("ResourceQuota", {"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}}, "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
    ("LimitRange", range_("Machine"), 'spec.limits[0].type: Invalid value: "Machine": must be a standard limit type or fully qualified'),
    ("LimitRange", {"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}}, 'spec.limits[1].type: Duplicate value: "Pod"'),
    ("LimitRange", range_(max={"cpus": "1"}), 'spec.limits[0].max[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified'),
    ("LimitRange", range_("Pod", default={"cpu": "1"}), "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"),
    ("LimitRange", range_("PersistentVolumeClaim"), "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"),
    ("LimitRange", range_(min={"cpu": "2"}, max={"cpu": "1"}), 'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1'),
    ("LimitRange", range_(min={"cpu": "2"}, defaultRequest={"cpu": "1"}), 'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1'),
    ("LimitRange", range_(max={"cpu": "1"}, defaultRequest={"cpu": "2"}), "default request value 2 is greater than max value 1"),
    ("LimitRange", range_(default={"cpu": "1"}, defaultRequest={"cpu": "2"}), "default request value 2 is greater than default limit value 1"),
    ("LimitRange", range_(min={"cpu": "2"}, default={"cpu": "1"}), 'spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1'),
    ("LimitRange", range_(max={"cpu": "1"}, default={"cpu": "2"}), 'spec.limits[0].default[cpu]: Invalid value: "1": default value 2 is greater than max value 1'),
    ("LimitRange", range_(maxLimitRequestRatio={"cpu": "500m"}), "ratio 500m is less than 1"),
    ("LimitRange", range_(min={"cpu": "1"}, max={"cpu": "2"}, maxLimitRequestRatio={"cpu": "3"}), "ratio 3 is greater than max/min = 2.000000"),
    ("LimitRange", range_(default={"a.b/gpu": "2"}, defaultRequest={"a.b/gpu": "1"}), "default value 2 must equal to defaultRequest value 1 in a.b/gpu"),
    ("ResourceQuota", {"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In", "values": ["a"]}]}}}, 'spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be \'Exist\' when scope is any of'),
    ("Secret", {"type": "kubernetes.io/ssh-auth", "stringData": {"ssh-privatekey": ""}}, "data[ssh-privatekey]: Required value"),
    ("PriorityClass", {"value": 1_000_000_001}, "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"),
    ("PriorityClass", {"value": 1, "preemptionPolicy": "Often"}, 'preemptionPolicy: Unsupported value: "Often": supported values: "Never", "PreemptLowerPriority"'),
    ("PriorityClass", {"value": 1, "metadata": {"name": "system-mine"}}, "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"),
    ("PriorityClass", {"value": 1, "metadata": {"name": "system-node-critical"}}, "value of system-node-critical PriorityClass must be 2000001000"),
    ("StorageClass", {"provisioner": ""}, "provisioner: Required value"),
    ("StorageClass", {"provisioner": "a b"}, 'provisioner: Invalid value: "a b"'),
    ("StorageClass", {"provisioner": "a", "reclaimPolicy": "Recycle"}, 'reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'),
    ("StorageClass", {"provisioner": "a", "volumeBindingMode": "Late"}, 'volumeBindingMode: Unsupported value: "Late": supported values: "Immediate", "WaitForFirstConsumer"'),
    ("StorageClass", {"provisioner": "a", "parameters": {"": "b"}}, 'parameters: Invalid value: "": field can not be empty.'),
    ("RuntimeClass", {"handler": "A_b"}, 'handler: Invalid value: "A_b": a lowercase RFC 1123 label'),
    ("RuntimeClass", {"handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}}, 'overhead.podFixed[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
    ("RuntimeClass", {"handler": "a", "scheduling": {"nodeSelector": {"a": "b c"}}}, 'scheduling.nodeSelector: Invalid value: "b c"'),
    ("RuntimeClass", {"handler": "a", "scheduling": {"tolerations": [{"key": "a", "operator": "Is"}]}}, 'scheduling.tolerations[0].operator: Unsupported value: "Is"'),
    ("Role", rules(verbs=[]), "rules[0].verbs: Required value: verbs must contain at least one value"),
    ("Role", rules(nonResourceURLs=["/x"]), 'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'),
    ("ClusterRole", rules(nonResourceURLs=["/x"]), "rules cannot apply to both regular resources and non-resource URLs"),
    ("ClusterRole", rules(apiGroups=[]), "rules[0].apiGroups: Required value: resource rules must supply at least one api group"),
    ("ClusterRole", rules(resources=[]), "rules[0].resources: Required value: resource rules must supply at least one resource"),
    ("ClusterRole", {"aggregationRule": {}}, "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"),
    ("Role", {"metadata": {"name": "a/b"}}, "metadata.name: Invalid value: \"a/b\": may not be '.', '..' or contain '/' or '%'"),
    ("RoleBinding", binding(apiGroup="x"), 'roleRef.apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io"'),
    ("RoleBinding", binding(kind="User"), 'roleRef.kind: Unsupported value: "User": supported values: "ClusterRole", "Role"'),
    ("ClusterRoleBinding", binding(kind="Role"), 'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'),
    ("RoleBinding", binding(name=""), "roleRef.name: Required value"),
    ("RoleBinding", binding({"kind": "Robot", "name": "u"}), 'subjects[0].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"'),
    ("RoleBinding", binding({"kind": "User", "name": ""}), "subjects[0].name: Required value"),
    ("ClusterRoleBinding", binding({"kind": "ServiceAccount", "name": "a"}), "subjects[0].namespace: Required value"),
    ("RoleBinding", binding({"kind": "ServiceAccount", "name": "a", "apiGroup": "x"}), 'subjects[0].apiGroup: Unsupported value: "x": supported values: ""'),
    ("Ingress", {"spec": {}}, "spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified"),
    ("Ingress", {"spec": {"defaultBackend": {}}}, "spec.defaultBackend: Required value: must specify either a service or a resource backend"),
    ("Ingress", ingress(rules=[{"host": "10.0.0.1"}]), 'spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address'),
    ("Ingress", ingress(rules=[{"host": "*a.b"}]), 'spec.rules[0].host: Invalid value: "*a.b": a wildcard DNS-1123 subdomain'),
    ("Ingress", ingress({"pathType": ""}), "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"),
    ("Ingress", ingress({"pathType": "Regex"}), 'spec.rules[0].http.paths[0].pathType: Unsupported value: "Regex": supported values: "Exact", "ImplementationSpecific", "Prefix"'),
    ("Ingress", ingress({"path": "x"}), 'spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path'),
    ("Ingress", ingress({"path": "/a//b"}), "must not contain '//'"),
    ("Ingress", ingress({"backend": {"service": {"name": "web", "port": {}}}}), "spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required"),
    ("Ingress", ingress({"backend": {"service": {"name": "1", "port": {"number": 1}}}}), 'backend.service.name: Invalid value: "1": a DNS-1035 label'),
    ("Ingress", ingress(rules=[{"http": {"paths": []}}]), "spec.rules[0].http.paths: Required value"),
    ("Ingress", ingress(ingressClassName="A"), 'spec.ingressClassName: Invalid value: "A"'),
    ("IngressClass", {"spec": {}}, "spec.controller: Required value"),
    ("IngressClass", {"spec": {"controller": "x"}}, 'spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")'),
    ("IngressClass", {"spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}}, "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"),
    ("Secret", {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}, 'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be JSON'),
    ("Secret", {"type": "kubernetes.io/basic-auth", "stringData": {"a": "b"}}, "data[username]: Required value"),
    ("Secret", {"type": "kubernetes.io/tls", "stringData": {"tls.crt": ""}}, "data[tls.key]: Required value"),
    ("Secret", {"type": "kubernetes.io/service-account-token"}, "metadata.annotations[kubernetes.io/service-account.name]: Required value"),
    ("ConfigMap", {"data": {"a": "b"}, "binaryData": {"a": "Yg=="}}, 'data[a]: Invalid value: "a": duplicate of key present in binaryData'),
    ("ConfigMap", {"data": {"a": "b" * 1_048_577}}, "Too long: may not be more than 1048576 bytes"),
    ("ConfigMap", {"data": {"..a": "b"}}, "data[..a]: Invalid value: \"..a\": must not start with '..'"),
    ("Lease", {"spec": {"preferredHolder": "a"}}, "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"),
    ("Lease", {"spec": {"leaseDurationSeconds": 0}}, "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"),
    ("Node", {"spec": {"taints": [{"key": "a b", "effect": "NoSchedule"}]}}, 'metadata.taints[0].key: Invalid value: "a b"'),
    ("Node", {"spec": {"taints": [{"key": "a", "value": "b c", "effect": "NoSchedule"}]}}, 'metadata.taints[0].value: Invalid value: "b c"'),
    ("Node", {"spec": {"taints": [{"key": "a", "effect": ""}]}}, "metadata.taints[0].effect: Required value"),
    ("Node", {"spec": {"taints": [{"key": "a", "effect": "Never"}]}}, 'metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"'),
    ("Node", {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}] * 2}}, "metadata.taints[1]: Duplicate value: "),
    ("NetworkPolicy", policy(policyTypes=["Sideways"]), 'spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Egress", "Ingress"'),
    ("NetworkPolicy", policy(ingress=[{"from": [{}]}]), "spec.ingress[0].from[0]: Required value: must specify a peer"),
    ("NetworkPolicy", policy(egress=[{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]), "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"),
    ("NetworkPolicy", policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]), 'spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`'),
    ("NetworkPolicy", policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]), 'ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value'),
    ("NetworkPolicy", policy(ingress=[{"ports": [{"port": 80, "endPort": 79}]}]), "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`"),
    ("NetworkPolicy", policy(ingress=[{"ports": [{"port": "http", "endPort": 80}]}]), "may not be specified when `port` is non-numeric"),
    ("NetworkPolicy", policy(ingress=[{"ports": [{"protocol": "X"}]}]), 'spec.ingress[0].ports[0].protocol: Unsupported value: "X"'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "expected"), REFUSED, ids=[f"{row[0]}-{i}" for i, row in enumerate(REFUSED)])
def test_a_wrong_object_is_refused_in_kubernetes_words(name: str, body: dict[str, Any], expected: str) -> None:
    found = complaints(name, body)
    assert any(expected in complaint for complaint in found), found


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("Endpoints", subset(ports=[{"port": 80}], notReadyAddresses=[{"ip": "fd00::1"}])),
    ("Endpoints", {"metadata": {"name": "kubernetes", "namespace": "default"}, **subset(addresses=[{"ip": "127.0.0.1"}])}),
    ("EndpointSlice", slice_("FQDN", ["a.example"])),
    ("EndpointSlice", {**slice_(), "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}),
    ("PersistentVolume", volume()),
    ("PersistentVolumeClaim", claim(storageClassName="")),
    ("ResourceQuota", {"spec": {"hard": {"cpu": "500m", "count/jobs.batch": "1", "requests.example.com/gpu": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}}),
    ("ResourceQuota", {"spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}}),
    ("LimitRange", range_(min={"cpu": "100m"}, max={"cpu": "1"}, maxLimitRequestRatio={"cpu": "10"})),
    ("LimitRange", range_("PersistentVolumeClaim", max={"storage": "1Gi"})),
    ("Secret", {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}}),
    ("Secret", {"type": "kubernetes.io/basic-auth", "stringData": {"password": "b"}}),
    ("Lease", {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 0}}),
    ("PriorityClass", {"value": 2_000_001_000, "metadata": {"name": "system-node-critical"}}),
    ("StorageClass", {"provisioner": "volumes.cuboid.dev"}),
    ("RuntimeClass", {"handler": "a", "overhead": {"podFixed": {"memory": "1Mi"}}}),
    ("ClusterRole", {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}], "metadata": {"name": "system:x"}}),
    ("RoleBinding", binding({"kind": "ServiceAccount", "name": "a"}, apiGroup="")),
    ("Ingress", ingress({"pathType": "ImplementationSpecific", "path": ""}, rules=[{"host": "*.a.example"}])),
    ("IngressClass", {"spec": {"controller": "a.b/c"}}),
    ("NetworkPolicy", policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body"), ACCEPTED, ids=[f"{row[0]}-{i}" for i, row in enumerate(ACCEPTED)])
def test_a_right_object_is_accepted(name: str, body: dict[str, Any]) -> None:
    assert complaints(name, body) == []
    assert changed(name, body, body) == []


CHANGE = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
LARGER = {"resources": {"requests": {"storage": "2Gi"}}}
BOUND = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None, str]] = [
    ("EndpointSlice", slice_(), slice_("IPv6", ["fd00::1"]), None, 'addressType: Invalid value: "IPv6": field is immutable'),
    ("PersistentVolume", volume(), volume(nfs={"server": "t", "path": "/p"}), None, "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"),
    ("PersistentVolume", volume(), volume(volumeMode="Block"), None, 'spec.volumeMode: Invalid value: "Block": field is immutable'),
    ("PersistentVolume", volume(), volume(capacity={"storage": "2Gi"}), None, ""),
    ("PersistentVolumeClaim", claim(), claim(accessModes=["ReadWriteMany"]), None, CHANGE),
    ("PersistentVolumeClaim", claim(storageClassName="a"), claim(storageClassName="b"), None, CHANGE),
    ("PersistentVolumeClaim", claim(), claim(storageClassName="b"), None, ""),
    ("PersistentVolumeClaim", claim(), claim(volumeName="v"), None, ""),
    ("PersistentVolumeClaim", claim(volumeName="v"), claim(volumeName="w"), BOUND, CHANGE),
    ("PersistentVolumeClaim", claim(), claim(**LARGER), None, CHANGE),
    ("PersistentVolumeClaim", claim(volumeName="v"), claim(volumeName="v", **LARGER), BOUND, ""),
    ("PersistentVolumeClaim", claim(volumeName="v"), claim(volumeName="v", resources={"requests": {"storage": "1Mi"}}), BOUND, "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"),
    ("PersistentVolumeClaim", claim(volumeName="v"), claim(volumeName="v", resources={"requests": {"storage": "1Gi"}, "limits": {"storage": "2Gi"}}), BOUND, CHANGE),
    ("ResourceQuota", {"spec": {"scopes": ["BestEffort"]}}, {"spec": {}}, None, "spec.scopes: Invalid value: []: field is immutable"),
    ("Node", {"spec": {"providerID": "a"}}, {"spec": {"providerID": "b"}}, None, 'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid'),
    ("Node", {"spec": {}}, {"spec": {"podCIDR": "10.0.0.0/24"}}, None, ""),
    ("PriorityClass", {"value": 1}, {"value": 2}, None, "value: Forbidden: may not be changed in an update."),
    ("PriorityClass", {"value": 1}, {"value": 1, "preemptionPolicy": "Never"}, None, 'preemptionPolicy: Invalid value: "Never": field is immutable'),
    ("PriorityClass", {"value": 1}, {"value": 1, "description": "a"}, None, ""),
    ("StorageClass", {"provisioner": "a"}, {"provisioner": "b"}, None, "provisioner: Forbidden: updates to provisioner are forbidden."),
    ("StorageClass", {"provisioner": "a"}, {"provisioner": "a", "parameters": {"a": "b"}}, None, "parameters: Forbidden: updates to parameters are forbidden."),
    ("StorageClass", {"provisioner": "a"}, {"provisioner": "a", "reclaimPolicy": "Retain"}, None, "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."),
    ("RuntimeClass", {"handler": "a"}, {"handler": "b"}, None, 'handler: Invalid value: "b": field is immutable'),
    ("RoleBinding", binding(), binding(name="edit"), None, "cannot change roleRef"),
    ("IngressClass", {"spec": {"controller": "a.b/c"}}, {"spec": {"controller": "a.b/d"}}, None, 'spec.controller: Invalid value: "a.b/d": field is immutable'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before", "after", "status", "expected"), CHANGES, ids=[f"{row[0]}-{i}" for i, row in enumerate(CHANGES)]
)
def test_what_may_change_is_as_in_kubernetes(
    name: str, before: dict[str, Any], after: dict[str, Any], status: dict[str, Any] | None, expected: str
) -> None:
    found = changed(name, before, after, status)
    assert found == [] if not expected else any(expected in complaint for complaint in found), found


STATUSES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("Service", {"spec": {"ports": [{"port": 80}]}}, {"ip": "192.0.2.1"}, 'status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is "LoadBalancer"'),
    ("Service", {"spec": {"ports": [{"port": 80}], "type": "LoadBalancer"}}, {"ip": "x"}, 'status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address'),
    ("Service", {"spec": {"ports": [{"port": 80}], "type": "LoadBalancer"}}, {"ip": "192.0.2.1"}, ""),
    ("Ingress", ingress(), {"hostname": "192.0.2.1"}, 'status.loadBalancer.ingress[0].hostname: Invalid value: "192.0.2.1": must be a DNS name, not an IP address'),
    ("Ingress", ingress(), {"hostname": "a.example"}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "way", "expected"), STATUSES)
def test_ways_in_are_addresses_or_names(name: str, body: dict[str, Any], way: dict[str, str], expected: str) -> None:
    old = made(name, body)
    new = {**copy.deepcopy(old), "status": {"loadBalancer": {"ingress": [way]}}}
    fields, strategy = Fields(), kind_of(name).strategy
    strategy.prepare_status(new, old)
    strategy.validate_status(new, old, fields)
    found = [str(error) for error in fields.errors]
    assert found == [] if not expected else any(complaint.startswith(expected) for complaint in found), found


DEFAULTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("PersistentVolume", volume(), {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}),
    ("PersistentVolumeClaim", claim(), {"volumeMode": "Filesystem"}),
    ("PersistentVolumeClaim", claim(dataSource={"kind": "PersistentVolumeClaim", "name": "a"}), {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a"}}),
    ("PersistentVolumeClaim", claim(dataSourceRef={"kind": "PersistentVolumeClaim", "name": "a"}), {"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}}),
    ("NetworkPolicy", policy(), {"policyTypes": ["Ingress"]}),
    ("NetworkPolicy", policy(egress=[{"ports": [{"port": 1}]}]), {"policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}),
    ("LimitRange", range_(max={"cpu": "2"}, min={"memory": "1Mi"}), {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "expected"), DEFAULTS)
def test_what_is_not_said_is_filled_in(name: str, body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert made(name, body)["spec"].items() >= expected.items()


def test_volumes_and_claims_are_protected_from_their_birth() -> None:
    assert made("PersistentVolume", volume())["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    assert made("PersistentVolumeClaim", claim())["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert made("PersistentVolumeClaim", claim())["status"] == {"phase": "Pending"}


TLS: dict[str, Any] = {"tls": [{"hosts": ["a.example"]}], "ingressClassName": "nginx"}
HOSTS: dict[str, Any] = {"rules": [{"host": f"{letter}.example"} for letter in "abcd"]}
CELLS: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("PersistentVolume", volume(accessModes=["ReadWriteMany", "ReadWriteOnce"], storageClassName="gold", claimRef={"namespace": "d", "name": "c"}), ["x", "1Gi", "RWO,RWX", "Retain", "Pending", "d/c", "gold", "<unset>", "", None, "Filesystem"]),
    ("PersistentVolumeClaim", claim(storageClassName="gold"), ["x", "Pending", "", "", "", "gold", "<unset>", None, "Filesystem"]),
    ("StorageClass", {"provisioner": "p", "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}, ["x (default)", "p", "Delete", "Immediate", "false", None]),
    ("PriorityClass", {"value": 7}, ["x", 7, False, "PreemptLowerPriority", None]),
    ("RuntimeClass", {"handler": "h"}, ["x", "h", None]),
    ("RoleBinding", binding(), ["x", "ClusterRole/view", None, "u", "", ""]),
    ("RoleBinding", binding({"kind": "ServiceAccount", "name": "a", "namespace": "d"}), ["x", "ClusterRole/view", None, "", "", "d/a"]),
    ("Role", rules(), ["x", "2026-01-01T00:00:00Z"]),
    ("LimitRange", range_(), ["x", "2026-01-01T00:00:00Z"]),
    ("Ingress", ingress(**TLS), ["x", "nginx", "*", "", "80, 443", None]),
    ("Ingress", ingress(**HOSTS), ["x", "<none>", "a.example,b.example,c.example + 1 more...", "", "80", None]),
    ("IngressClass", {"spec": {"controller": "a.b/c", "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}}, ["x", "a.b/c", "K.g/n", None]),
    ("NetworkPolicy", policy(podSelector={"matchLabels": {"a": "b"}}), ["x", "a=b", None]),
    ("Endpoints", subset(addresses=[{"ip": f"10.77.0.{i}"} for i in range(2, 7)], ports=[{"port": 80}]), ["x", "10.77.0.2:80,10.77.0.3:80,10.77.0.4:80 + 2 more...", None]),
    ("EndpointSlice", {**slice_(), "ports": [{"port": 80}]}, ["x", "IPv4", "80", "10.77.0.2", None]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "expected"), CELLS, ids=[f"{row[0]}-{i}" for i, row in enumerate(CELLS)])
def test_objects_are_printed_as_kubectl_does(name: str, body: dict[str, Any], expected: list[Any]) -> None:
    kind = kind_of(name)
    found = kind.cells(made(name, body), 0.0)
    assert len(found) == len(kind.columns)
    assert [cell for cell, wanted in zip(found, expected, strict=True) if wanted is not None] == [
        wanted for wanted in expected if wanted is not None
    ]


def test_a_quota_shows_what_is_used_of_it() -> None:
    quota = {
        "metadata": {"name": "x"},
        "status": {"hard": {"pods": "5", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "3"}},
    }
    assert kind_of("ResourceQuota").cells(quota, 0.0)[:3] == ["x", "cpu: 0/1, pods: 3/5", "limits.cpu: 0/2"]


def test_every_kind_is_served_with_its_own_columns() -> None:
    names = {kind.kind for kind in kinds.KINDS if [column.name for column in kind.columns] == ["Name", "Age"]}
    assert names == set()
    assert all(schema.node(kind.definition) for kind in kinds.KINDS)
