"""NodeRestriction: a node agent writes its own Node and Lease, and of its pods what it reports, nothing else.

Source of the idea: kubernetes/plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import CREATE, PODS, UPDATE, Plug, refusal
from cuboid.kube.rbac.nodes import node_of
from cuboid.kube.types import VOLUME_DATA

Raw = Mapping[str, Any]
_NODES, _LEASES, _VOLUMES = ("", "nodes"), ("coordination.k8s.io", "leases"), ("", "persistentvolumes")
_RESTRICTED = "node-restriction.kubernetes.io/"


class NodeRestriction(Plug):
    about = (_NODES, _LEASES, PODS, _VOLUMES)
    operations = (CREATE, UPDATE)
    subs = ("", "status")

    def admit(self, request: Request) -> None:
        node = node_of(request.user)
        if not node or request.new is None:
            return
        stored, old = request.kind.stored_as, request.old or {}
        if stored in (_NODES, _LEASES):
            if request.new["metadata"].get("name") != node:
                raise refusal(request, f'node "{node}" is not allowed to modify "{request.name}"')
            if stored == _NODES:
                _own_node(request, request.new, old)
        elif stored == PODS and not _same(request.new, old, ("labels", "ownerReferences")):
            raise refusal(request, f'node "{node}" may not change labels or owners of a pod')
        elif stored == _VOLUMES and not _lets_go(request.new, old):
            raise refusal(request, f'node "{node}" may only say that the data of a volume is removed')


def _own_node(request: Request, new: Raw, old: Raw) -> None:
    before, now = (document.get("metadata", {}).get("labels") or {} for document in (old, new))
    for key in before.keys() | now.keys():
        if _RESTRICTED in key and before.get(key) != now.get(key):
            raise refusal(request, f"is not allowed to set or remove the label {key} of its node")
    if old and (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
        raise refusal(request, "is not allowed to change the taints of its node")


def _same(new: Raw, old: Raw, keys: tuple[str, ...]) -> bool:
    return all((new["metadata"].get(key) or None) == (old["metadata"].get(key) or None) for key in keys)


def _lets_go(new: Raw, old: Raw) -> bool:
    """The finalizer of its data is all that changed."""
    before, now = (list(document["metadata"].get("finalizers") or []) for document in (old, new))
    rest = [item for item in before if item != VOLUME_DATA]
    return now in (before, rest) and all(new.get(key) == old.get(key) for key in ("spec", "status"))
