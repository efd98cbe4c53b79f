"""Priority, RuntimeClass and DefaultTolerationSeconds: what a pod gets from the classes it names, and from none.

Source: kubernetes/plugin/pkg/admission/{priority,runtimeclass,defaulttolerationseconds}.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import kinds
from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import CREATE, PODS, UPDATE, Plug, refusal
from cuboid.kube.groups.class_strategy import SYSTEM
from cuboid.kube.registry import Registry

Object = dict[str, Any]
CLASSES = ("scheduling.k8s.io", "priorityclasses")
_PRIORITY = kinds.builtin("PriorityClass", "scheduling.k8s.io")
_RUNTIME = kinds.builtin("RuntimeClass", "node.k8s.io")
_MARK = b'"globalDefault":true'
"""In the stored bytes of a class that may be the default: the others are not decoded for every pod."""
_AWAY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class Priority(Plug):
    about = (PODS, CLASSES)
    operations = (CREATE, UPDATE)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def admit(self, request: Request) -> None:
        if request.kind.stored_as == CLASSES:
            self._one_default(request)
        elif request.operation == CREATE and request.new is not None:
            self._pod(request, request.new.setdefault("spec", {}))
        elif request.new is not None and request.old is not None:
            _as_before(request.new.setdefault("spec", {}), request.old["spec"])

    def _one_default(self, request: Request) -> None:
        if not (request.new or {}).get("globalDefault"):
            return
        other = self._default()
        if other is not None and other["metadata"]["name"] != request.name:
            name = other["metadata"]["name"]
            raise refusal(request, f"PriorityClass {name} is already marked as default. Only one default can exist")

    def _default(self) -> Object | None:
        """The lowest of those that are marked, should there be several."""
        marked = [entry.object() for entry in self._registry.of(_PRIORITY) if _MARK in entry.value]
        return min((row for row in marked if row.get("globalDefault")), key=lambda row: int(row["value"]), default=None)

    def _pod(self, request: Request, spec: Object) -> None:
        name = spec.get("priorityClassName", "")
        found = self._class(request, name) if name else self._default()
        value = 0 if found is None else int(found["value"])
        if found is not None and not name:
            spec["priorityClassName"] = found["metadata"]["name"]
        if spec.get("priority", value) != value:
            raise refusal(
                request,
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name",
            )
        policy = (found or {}).get("preemptionPolicy", "PreemptLowerPriority")
        if spec.get("preemptionPolicy", policy) != policy:
            raise refusal(
                request,
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name",
            )
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def _class(self, request: Request, name: str) -> Object:
        entry = self._registry.of(_PRIORITY).get("", name)
        if entry is not None:
            return entry.object()
        if name in SYSTEM:
            return {"metadata": {"name": name}, "value": SYSTEM[name]}
        raise refusal(request, f"no PriorityClass with name {name} was found")


def _as_before(spec: Object, before: Object) -> None:
    """Who replaces a pod need not repeat what it got at its birth."""
    for key in ("priority", "preemptionPolicy"):
        if key in before:
            spec.setdefault(key, before[key])


class RuntimeClasses(Plug):
    """A pod's machine needs memory beside its containers: `spec.overhead`, where schedulers and quotas look for it.

    It comes from the pod's RuntimeClass; without one it is `overhead_mib`, unless that is 0 or the pod says its own.
    """

    about = (PODS,)

    def __init__(self, registry: Registry, *, overhead_mib: int) -> None:
        self._registry = registry
        self._overhead = overhead_mib

    def admit(self, request: Request) -> None:
        spec = (request.new or {}).setdefault("spec", {})
        name = spec.get("runtimeClassName", "")
        if not name:
            if self._overhead and not spec.get("overhead"):
                spec["overhead"] = {"memory": f"{self._overhead}Mi"}
            return
        entry = self._registry.of(_RUNTIME).get("", name)
        if entry is None:
            raise refusal(request, f'pod rejected: RuntimeClass "{name}" not found')
        found = entry.object()
        fixed = (found.get("overhead") or {}).get("podFixed")
        if spec.get("overhead") and spec["overhead"] != fixed:
            raise refusal(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        if fixed:
            spec["overhead"] = dict(fixed)
        self._place(request, spec, found.get("scheduling") or {})

    def _place(self, request: Request, spec: Object, scheduling: Object) -> None:
        wanted, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
        for key, value in wanted.items():
            if own.get(key, value) != value:
                raise refusal(request, f"conflict: {key} in the pod's nodeSelector is not what its RuntimeClass has")
        if wanted:
            spec["nodeSelector"] = {**own, **wanted}
        known = spec.get("tolerations", [])
        added = [row for row in scheduling.get("tolerations") or [] if row not in known]
        if added:
            spec["tolerations"] = [*known, *added]


class DefaultTolerationSeconds(Plug):
    """How long a pod stays on a node that is not ready or not heard of, where it does not say so itself."""

    about = (PODS,)

    def __init__(self, *, seconds: int) -> None:
        self._seconds = seconds

    def admit(self, request: Request) -> None:
        spec = (request.new or {}).setdefault("spec", {})
        known = spec.get("tolerations", [])
        added = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": self._seconds}
            for key in _AWAY
            if not any(_tolerates(row, key) for row in known)
        ]
        if added:
            spec["tolerations"] = [*known, *added]


def _tolerates(row: Object, key: str) -> bool:
    return row.get("key", "") in (key, "") and row.get("effect", "") in ("NoExecute", "")
