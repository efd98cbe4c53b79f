"""What an object takes of a ResourceQuota. Pure; shared by admission, which refuses, and the controller, which counts.

Amounts are integers in the unit of their resource: thousandths of a core for CPU, bytes for memory and storage, pieces
for the rest. Source: kubernetes/pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cuboid.kube import quantity
from cuboid.kube.kind import Kind
from cuboid.lib.clock import parse_rfc3339

Raw = Mapping[str, Any]
Usage = dict[str, int]

REQUESTS, LIMITS = "requests.", "limits."
_PLAIN = ("cpu", "memory", "ephemeral-storage")
"""Resources whose requests a quota may also name without the prefix."""
_COUNTED = ("configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services", "persistentvolumeclaims")
"""Kinds of the core group that a quota may also name without `count/`."""
_CLASS_NOTE = "volume.beta.kubernetes.io/storage-class"
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"


def usage(kind: Kind, document: Raw, now: float | None = None) -> Usage:
    """What the object counts for. `now` (seconds since the epoch) lets a pod go that should have ended by then."""
    plural = kind.stored_as[1]
    group = kind.stored_as[0]
    counted = {f"count/{plural}.{group}" if group else f"count/{plural}": 1}
    if not group and plural in _COUNTED:
        counted[plural] = 1
    if not group and plural in _SPECIAL:
        counted |= _SPECIAL[plural](document, now)
    return counted


def constrained(hard: Raw, used: Usage) -> Usage:
    """The part of a usage that a quota with these hard limits names."""
    return {name: amount for name, amount in used.items() if name in hard}


def amount(resource: str, text: str | int | float) -> int:
    """A limit of a quota in the units of `usage`."""
    return quantity.to_millis(text) if _is_cpu(resource) else quantity.to_int(text)


def text(resource: str, value: int) -> str:
    """An amount as the API shows it."""
    if _is_cpu(resource):
        return quantity.format_millis(value)
    if _is_bytes(resource):
        return quantity.format_bytes(value)
    return quantity.canonical(value)


def _is_cpu(resource: str) -> bool:
    return resource in ("cpu", "requests.cpu", "limits.cpu")


def _is_bytes(resource: str) -> bool:
    bare = resource.removeprefix(REQUESTS).removeprefix(LIMITS)
    return bare in ("memory", "ephemeral-storage", "storage") or resource.endswith("/requests.storage")


# --- pods ------------------------------------------------------------------------------------------------------------


def _pod(pod: Raw, now: float | None) -> Usage:
    if not counts(pod, now):
        return {}
    used: Usage = {"pods": 1}
    for name, value in pod_amounts(pod["spec"], "requests").items():
        used[REQUESTS + name] = value
        if name in _PLAIN or name.startswith("hugepages-"):
            used[name] = value
    for name, value in pod_amounts(pod["spec"], "limits").items():
        if name in _PLAIN:
            used[LIMITS + name] = value
    return used


def counts(pod: Raw, now: float | None = None) -> bool:
    """A pod that has ended takes nothing, nor does one that is past its grace period: its node is not heard of."""
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return False
    metadata = pod["metadata"]
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if now is None or not deleted or grace is None:
        return True
    return bool(now <= parse_rfc3339(deleted) + grace)


def pod_amounts(spec: Raw, which: str) -> Usage:
    """`requests` or `limits` of a pod with its overhead: init containers count by their greatest, sidecars always."""
    total: Usage = {}
    for container in spec.get("containers") or []:
        _add(total, _amounts(container, which))
    peak, sidecars = dict[str, int](), dict[str, int]()
    for container in spec.get("initContainers") or []:
        own = _amounts(container, which)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            own = {}
        _raise(peak, {name: own.get(name, 0) + sidecars.get(name, 0) for name in own.keys() | sidecars.keys()})
    _add(total, sidecars)
    _raise(total, peak)
    total |= _amounts(spec, which)
    for name, given in (spec.get("overhead") or {}).items():
        if which == "requests" or total.get(name):  # without a limit there is nothing to enlarge
            total[name] = total.get(name, 0) + amount(name, given)
    return total


def _amounts(holder: Raw, which: str) -> Usage:
    given = (holder.get("resources") or {}).get(which) or {}
    return {name: amount(name, value) for name, value in given.items()}


def _add(total: Usage, more: Raw) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise(total: Usage, least: Raw) -> None:
    for name, value in least.items():
        total[name] = max(total.get(name, 0), value)


# --- services and claims ---------------------------------------------------------------------------------------------


def _service(service: Raw, now: float | None) -> Usage:
    spec = service.get("spec", {})
    type_, ports = spec.get("type", "ClusterIP"), spec.get("ports") or []
    used: Usage = {"services.nodeports": 0, "services.loadbalancers": 0}
    if type_ == "NodePort":
        used["services.nodeports"] = len(ports)
    elif type_ == "LoadBalancer":
        used["services.loadbalancers"] = 1
        if spec.get("allocateLoadBalancerNodePorts", True):
            used["services.nodeports"] = len(ports)
        else:
            used["services.nodeports"] = sum(1 for port in ports if port.get("nodePort"))
    return used


def _claim(claim: Raw, now: float | None) -> Usage:
    asked = amount("storage", (claim["spec"].get("resources") or {}).get("requests", {}).get("storage", 0))
    granted = amount("storage", (claim.get("status", {}).get("allocatedResources") or {}).get("storage", 0))
    size = max(asked, granted)
    used = {"requests.storage": size}
    if name := storage_class(claim):
        used[f"{name}{_CLASS_SUFFIX}requests.storage"] = size
        used[f"{name}{_CLASS_SUFFIX}persistentvolumeclaims"] = 1
    return used


def storage_class(claim: Raw) -> str:
    """The class that a claim or a volume names, "" for none."""
    old = (claim["metadata"].get("annotations") or {}).get(_CLASS_NOTE)
    return str(old if old is not None else claim["spec"].get("storageClassName") or "")


_SPECIAL: dict[str, Callable[[Raw, float | None], Usage]] = {
    "pods": _pod,
    "services": _service,
    "persistentvolumeclaims": _claim,
}

# --- scopes ----------------------------------------------------------------------------------------------------------


def scopes_match(quota: Raw, pod: Raw) -> bool:
    """Whether a quota is about this pod. What is no pod is only counted by quotas without scopes: see `matches`."""
    return all(_in_scope(scope, pod) for scope in scopes(quota))


def matches(quota: Raw, kind: Kind, document: Raw) -> bool:
    """Whether a quota is about this object at all; what it names of its usage is another question."""
    if kind.stored_as == ("", "pods"):
        return scopes_match(quota, document)
    return not scopes(quota)


def scopes(quota: Raw) -> list[Raw]:
    """Its scopes of both forms, as requirements."""
    spec = quota.get("spec", {})
    found: list[Raw] = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or []]
    return found + list((spec.get("scopeSelector") or {}).get("matchExpressions") or [])


def _in_scope(scope: Raw, pod: Raw) -> bool:
    name, operator = scope["scopeName"], scope.get("operator", "Exists")
    if name == "PriorityClass":
        return _priority(pod["spec"].get("priorityClassName") or "", operator, scope.get("values") or [])
    test = _SCOPES.get(name)
    return test is not None and test(pod)


def _priority(given: str, operator: str, values: Iterable[str]) -> bool:
    if operator == "In":
        return given in values
    if operator == "NotIn":
        return given not in values
    return bool(given) == (operator == "Exists")


def _terminating(pod: Raw) -> bool:
    seconds = pod["spec"].get("activeDeadlineSeconds")
    return seconds is not None and seconds >= 0


def _best_effort(pod: Raw) -> bool:
    """Nothing asked for and no limits, of CPU and memory: a pod's `qosClass`, which is not set yet at admission."""
    spec = pod["spec"]
    every = [*(spec.get("containers") or []), *(spec.get("initContainers") or []), spec]
    kinds = ("cpu", "memory")
    return not any(_amounts(holder, which).get(name) for holder in every for which in _BOTH for name in kinds)


_BOTH = ("requests", "limits")


def _other_namespaces(pod: Raw) -> bool:
    """A term of pod (anti-)affinity that looks into other namespaces."""
    affinity = pod["spec"].get("affinity") or {}
    for side in ("podAffinity", "podAntiAffinity"):
        given = affinity.get(side) or {}
        terms = list(given.get("requiredDuringSchedulingIgnoredDuringExecution") or [])
        soft = given.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        terms += [item.get("podAffinityTerm", {}) for item in soft]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


_SCOPES: dict[str, Callable[[Raw], bool]] = {
    "Terminating": _terminating,
    "NotTerminating": lambda pod: not _terminating(pod),
    "BestEffort": _best_effort,
    "NotBestEffort": lambda pod: not _best_effort(pod),
    "CrossNamespacePodAffinity": _other_namespaces,
}
