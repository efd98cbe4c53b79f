"""How many pods there should be, by the scales of those that made them. Pure.

Source: kubernetes/pkg/controller/disruption, getExpectedScale and its finders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import DEFINITIONS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, Resource
from cuboid.kube.controller.view import View

Object = dict[str, Any]
Raw = Mapping[str, Any]
_APPS = {"Deployment": DEPLOYMENTS, "ReplicaSet": REPLICA_SETS, "StatefulSet": STATEFUL_SETS}


class ScaleError(Exception):
    """The number can not be known."""


def expected_pods(pods: Iterable[Raw], view: View) -> tuple[int, int]:
    """The sum over the controllers of these pods, and the number of pods that have none."""
    roots: dict[str, int] = {}  # two replica sets of one deployment count once
    seen: set[str] = set()
    unmanaged = 0
    for pod in pods:
        ref = objects.controller(pod)
        if ref is None:
            unmanaged += 1
        elif ref["uid"] not in seen:
            seen.add(ref["uid"])
            uid, count = _root(pod, ref, view)
            if count is None:
                raise ScaleError(f'found no controllers for pod "{objects.name(pod)}"')
            roots[uid] = count
    return sum(roots.values()), unmanaged


def _root(pod: Raw, ref: Raw, view: View) -> tuple[str, int | None]:
    """Uid of the outermost controller, and the replicas that it wants; None for one that nobody knows."""
    namespace, uid = objects.namespace(pod), str(ref["uid"])
    group = ref["apiVersion"].rpartition("/")[0]
    if group == "apps" and ref["kind"] in _APPS:
        found = _same(view.get(_APPS[ref["kind"]], namespace, ref["name"]), uid)
        if found is None:
            return uid, None
        above = objects.controller(found) if ref["kind"] == "ReplicaSet" else None
        if above is not None:
            return _root(found, above, view)
        return uid, int(found["spec"].get("replicas", 1))
    return uid, _custom(ref, group, namespace, view)


def _same(found: Object | None, uid: str) -> Object | None:
    return found if found is not None and objects.uid(found) == uid else None


def _custom(ref: Raw, group: str, namespace: str, view: View) -> int | None:
    """By the scale sub-resource of a custom resource."""
    version = ref["apiVersion"].rpartition("/")[2]
    for definition in view.select(DEFINITIONS):
        spec = definition["spec"]
        if spec["group"] != group or spec["names"]["kind"] != ref["kind"]:
            continue
        served: Object = next((item for item in spec["versions"] if item["name"] == version), {})
        path = (served.get("subresources") or {}).get("scale", {}).get("specReplicasPath", "")
        cluster = spec.get("scope") == "Cluster"
        resource = Resource(group, version, spec["names"]["plural"], cluster)
        found = _same(view.get(resource, "" if cluster else namespace, ref["name"]), str(ref["uid"]))
        if not path or found is None:
            return None
        value: Any = found
        for part in path.strip(".").split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value if isinstance(value, int) else 0
    return None
