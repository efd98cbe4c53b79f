"""`pods/binding`, and `bindings` of a namespace: put a pod on a node."""

from __future__ import annotations

import time
from typing import Any

from cuboid.kube import schema, status
from cuboid.kube.admission import Request
from cuboid.kube.kind import Kind
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import ConflictError

Object = dict[str, Any]
DEFINITION = "io.k8s.api.core.v1.Binding"


async def bind(registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions) -> None:
    """ConflictError when the pod is on a node already, is about to end, or was changed by somebody in between."""
    binding = schema.decode(schema.node(DEFINITION), body, [])
    metadata, target = binding.get("metadata", {}), binding.get("target", {})
    if metadata.get("name", name) != name:
        raise status.bad_request("name in URL does not match name in Binding object")
    if target.get("kind", "Node") not in ("", "Node"):
        raise status.bad_request(f'Binding target.kind: Unsupported value: "{target["kind"][:50]}": must be Node')
    if not target.get("name"):
        raise status.bad_request("Binding target.name: Required value")
    registry.admit(
        Request("CREATE", kind, namespace, name, binding, None, options.user, "binding", options.dry_run), whole=False
    )
    entry = registry.entry(kind, namespace, name)
    pod = entry.object()
    _check(pod, name, metadata)
    _assign(pod, target["name"], metadata.get("annotations", {}), rfc3339(time.time()))
    try:
        await registry.replace(kind, entry, pod, dry_run=options.dry_run)
    except ConflictError as error:
        raise status.conflict("pods/binding", "", name, str(error)) from error


def _check(pod: Object, name: str, metadata: Object) -> None:
    found = pod["metadata"]
    for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        asked = metadata.get(key, "")
        if asked and asked != found[key]:
            why = f"Precondition failed: {label} in precondition: {asked[:64]}, {label} in object meta: {found[key]}"
            raise status.conflict("pods/binding", "", name, why)
    if found.get("deletionTimestamp"):
        raise status.conflict("pods/binding", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        raise status.conflict("pods/binding", "", name, why)
    if pod["spec"].get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
        raise status.conflict("pods/binding", "", name, why)


def _assign(pod: Object, node: str, annotations: Object, now: str) -> None:
    pod["spec"]["nodeName"] = node
    if annotations:
        pod["metadata"]["annotations"] = {**pod["metadata"].get("annotations", {}), **annotations}
    conditions = [c for c in pod.get("status", {}).get("conditions", []) if c.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    pod["status"] = {**pod.get("status", {}), "conditions": [*conditions, scheduled]}
