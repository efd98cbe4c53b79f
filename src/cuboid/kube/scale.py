"""`scale`: the number of replicas of any kind that has one, as `autoscaling/v1` Scale.

Source: k8s.io/kubernetes/pkg/registry/apps/*/storage and apiextensions' scale of custom resources.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import bodies, objects, selectors, status
from cuboid.kube.fields import FieldError
from cuboid.kube.kind import Kind, Scale
from cuboid.kube.options import APPLY
from cuboid.kube.registry import Registry, Result, WriteOptions, apply_patch
from cuboid.kube.strategy import Strategy

Object = dict[str, Any]
SUB = "scale"
_COLUMNS: tuple[Any, ...] = ()
KIND = Kind(
    "autoscaling", "v1", "Scale", "scale", True, "io.k8s.api.autoscaling.v1.Scale", Strategy(), _COLUMNS,
    lambda document, now: [],
)  # fmt: skip
"""For decoding and patching: there are no stored objects of this kind."""
BUILT_IN = Scale(".spec.replicas", ".status.replicas")


def get(registry: Registry, kind: Kind, namespace: str, name: str) -> Object:
    return _scale_of(kind, kind.from_storage(registry.entry(kind, namespace, name).object()))


async def update(registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions) -> Object:
    asked, _ = bodies.decode(KIND, body, options)
    bodies.name(asked, name)
    bodies.place(asked, namespace)
    return await _write(registry, kind, namespace, name, asked, options)


async def patch(
    registry: Registry, kind: Kind, namespace: str, name: str, body: Any, form: str, options: WriteOptions
) -> Object:
    if form == APPLY:
        return await _apply(registry, kind, namespace, name, body, options)
    before = get(registry, kind, namespace, name)
    asked, _ = bodies.decode(KIND, apply_patch(KIND, before, body, form), options)
    bodies.name(asked, name)
    bodies.place(asked, namespace)
    if not bodies.version_in(body, form):
        asked["metadata"].pop("resourceVersion", None)
    return await _write(registry, kind, namespace, name, asked, options)


async def _write(
    registry: Registry, kind: Kind, namespace: str, name: str, asked: Object, options: WriteOptions
) -> Object:
    """Only the replicas; the object's own patch sees to conflicts."""
    changed: Object = {"metadata": {}}
    for key in ("resourceVersion", "uid"):
        if asked["metadata"].get(key):
            changed["metadata"][key] = asked["metadata"][key]
    _put(changed, _of(kind).spec_path, _replicas(asked, name))
    result = await registry.patch(kind, namespace, name, changed, "application/merge-patch+json", options, SUB)
    return _scale_of(kind, result.object)


async def _apply(registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions) -> Object:
    asked, _ = bodies.decode(KIND, body, options)
    config: Object = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
    _put(config, _of(kind).spec_path, _replicas(asked, name))
    result: Result = await registry.apply(kind, namespace, name, config, options, SUB)
    return _scale_of(kind, result.object)


def _replicas(asked: Object, name: str) -> int:
    count: int = asked.get("spec", {}).get("replicas", 0)
    if count < 0:
        text = f"Invalid value: {count}: must be greater than or equal to 0"
        raise status.invalid("Scale", "autoscaling", name, [FieldError("FieldValueInvalid", "spec.replicas", text)])
    return count


def _of(kind: Kind) -> Scale:
    return kind.scale or BUILT_IN


def _scale_of(kind: Kind, document: Object) -> Object:
    place, metadata = _of(kind), document["metadata"]
    keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    spec = _found(document, place.spec_path)
    found: Object = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in keys if key in metadata},
        "spec": {"replicas": spec} if spec else {},
        "status": {"replicas": _found(document, place.status_path) or 0},
    }
    if selector := _selector(document, place):
        found["status"]["selector"] = selector
    return found


def _selector(document: Object, place: Scale) -> str:
    if place.selector_path:
        found = _found(document, place.selector_path)
        return found if isinstance(found, str) else ""
    if place is not BUILT_IN:
        return ""
    requirements = objects.label_selector(document.get("spec", {}).get("selector"))
    return selectors.render(requirements or ())


def _found(document: Any, path: str) -> Any:
    """What is at `.spec.replicas`; None when it is not there."""
    for part in path.strip(".").split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return document


def _put(document: Object, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for part in parents:
        document = document.setdefault(part, {})
    document[last] = value
