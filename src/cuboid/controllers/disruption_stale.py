"""A pod that was said to be about to be disrupted and then was not: after two minutes that is no longer said.

Source: kubernetes/pkg/controller/disruption, syncStalePodDisruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import PODS
from cuboid.kube.controller.instructions import NOTHING, Patch, Plan
from cuboid.kube.controller.view import Change, Key, View, Watch
from cuboid.lib.clock import parse_rfc3339, rfc3339

Raw = Mapping[str, Any]
PATIENCE = 120.0
"""Seconds."""
TYPE = "DisruptionTarget"


def disrupted(change: Change, view: View) -> Iterable[Key]:
    if change.type != "DELETED" and _waits(change.new):
        yield Key(objects.namespace(change.new), objects.name(change.new))


def _waits(pod: Raw) -> bool:
    return objects.is_true(pod, TYPE) and objects.active(pod)


class StaleDisruption:
    """The key is a pod."""

    name = "stale-pod-disruption"
    watches = (Watch(PODS, disrupted),)  # not all pods at the start: one that is meant is woken by its next change

    def plan(self, key: Key, view: View, now: float) -> Plan:
        pod = view.get(PODS, key.namespace, key.name)
        if pod is None or not _waits(pod):
            return NOTHING
        condition = objects.condition(pod, TYPE) or {}
        since = condition.get("lastTransitionTime")
        left = parse_rfc3339(since) + PATIENCE - now if since else 0.0
        if left > 0:
            return Plan(again=left)
        kept = [item for item in pod["status"]["conditions"] if item["type"] != TYPE]
        made = {"type": TYPE, "status": "False", "lastTransitionTime": rfc3339(now)}
        meta = {name: pod["metadata"][name] for name in ("uid", "resourceVersion")}
        body = {"metadata": meta, "status": {"conditions": [*kept, made]}}
        return Plan((Patch(PODS, key.name, body, key.namespace, sub="status"),))
