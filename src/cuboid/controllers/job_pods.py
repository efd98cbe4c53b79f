"""The pods of a Job: which are its own, how they are marked, made and chosen for removal.

Source: kubernetes/pkg/controller/job, job_controller.go and indexed_job_utils.go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from cuboid.kube import objects
from cuboid.kube.client import PODS
from cuboid.kube.controller.instructions import Create, Delete, Object, Patch, Tell
from cuboid.kube.objects import Raw

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its end is counted."""
INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation and label."""
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
ENVIRONMENT = "JOB_COMPLETION_INDEX"
_LONGEST_PREFIX = 58


def indexed(job: Raw) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def index_of(pod: Raw) -> int | None:
    text = objects.notes(pod).get(INDEX, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def tracked(pod: Raw) -> bool:
    return TRACKING in pod["metadata"].get("finalizers", [])


def only_failed_replaced(job: Raw) -> bool:
    """A pod that is ending is not replaced before it has ended."""
    spec = job["spec"]
    return bool(spec.get("podReplacementPolicy") == "Failed" or spec.get("podFailurePolicy"))


def failed(pod: Raw, job: Raw) -> bool:
    """A deleted pod counts as failed, since it may never come to say so itself."""
    if objects.phase(pod) == "Failed":
        return True
    return not only_failed_replaced(job) and objects.deleting(pod) and objects.phase(pod) != "Succeeded"


def terminating(pod: Raw) -> bool:
    return objects.deleting(pod) and not objects.finished(pod)


def failure_count(pod: Raw, *, ignored: bool = False) -> int:
    text = objects.notes(pod).get(IGNORED_FAILURES if ignored else FAILURES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def new_pod(job: Raw, index: int | None, failures: tuple[int, int] | None) -> Create:
    """`failures`: of this index so far, those that count and those that were ignored; None where they are not kept."""
    template = copy.deepcopy(job["spec"]["template"])
    given = template.get("metadata") or {}
    name = objects.name(job)
    metadata: Object = {
        "generateName": _prefix(name, index),
        "labels": dict(given.get("labels") or {}),
        "annotations": dict(given.get("annotations") or {}),
        "finalizers": [*(item for item in given.get("finalizers") or [] if item != TRACKING), TRACKING],
        "ownerReferences": [objects.owner_reference(job)],
    }
    spec: Object = template["spec"]
    if index is not None:
        metadata["labels"][INDEX] = metadata["annotations"][INDEX] = str(index)
        spec["hostname"] = f"{name}-{index}"
        for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
            _tell_index(container)
    if failures is not None:
        metadata["annotations"][FAILURES] = str(failures[0])
        if failures[1]:
            metadata["annotations"][IGNORED_FAILURES] = str(failures[1])
    body: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    told = Tell(dict(job), "Normal", "SuccessfulCreate", "Created pod: {name}")
    return Create(PODS, body, objects.namespace(job), tell=told)


def _prefix(name: str, index: int | None) -> str:
    end = "-" if index is None else f"-{index}-"
    return name[: _LONGEST_PREFIX - len(end)] + end


def _tell_index(container: Object) -> None:
    """By the downward API, unless the user has a variable of this name."""
    known = container.get("env") or []
    if all(item.get("name") != ENVIRONMENT for item in known):
        source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
        container["env"] = [*known, {"name": ENVIRONMENT, "valueFrom": source}]


def untrack(pod: Raw) -> Patch:
    left = [item for item in pod["metadata"].get("finalizers", []) if item != TRACKING]
    return _patch(pod, finalizers=left or None)


def adopt(pod: Raw, job: Raw) -> Patch:
    metadata = pod["metadata"]
    owners = [*metadata.get("ownerReferences", []), objects.owner_reference(job)]
    finalizers = [*metadata.get("finalizers", []), *([] if tracked(pod) else [TRACKING])]
    return _patch(pod, ownerReferences=owners, finalizers=finalizers)


def release(pod: Raw, job: Raw) -> Patch:
    """Its labels are no longer those that the job selects: somebody took it out."""
    metadata = pod["metadata"]
    owners = [ref for ref in metadata.get("ownerReferences", []) if ref.get("uid") != objects.uid(job)]
    finalizers = [item for item in metadata.get("finalizers", []) if item != TRACKING]
    return _patch(pod, ownerReferences=owners or None, finalizers=finalizers or None)


def _patch(pod: Raw, **metadata: object) -> Patch:
    """Only if it is as it was seen: lists are replaced as a whole."""
    seen = {"uid": objects.uid(pod), "resourceVersion": pod["metadata"].get("resourceVersion", "")}
    return Patch(PODS, objects.name(pod), {"metadata": {**seen, **metadata}}, objects.namespace(pod))


def delete(pod: Raw, job: Raw) -> Delete:
    told = Tell(dict(job), "Normal", "SuccessfulDelete", f"Deleted pod: {objects.name(pod)}")
    return Delete(PODS, objects.name(pod), objects.namespace(pod), objects.uid(pod), tell=told)


def surplus(job: Raw, active: Sequence[Raw], count: int) -> list[Raw]:
    """At least `count` active pods to remove: those of no index or of one that has another pod, then the least useful.

    A pod whose finalizer is gone was on its way out when its removal was interrupted: it can no longer be counted.
    """
    chosen = [pod for pod in active if not tracked(pod)]
    left = [pod for pod in active if tracked(pod)]
    if indexed(job):
        spare, left = _doubled(left, int(job["spec"].get("completions") or 0))
        chosen += spare
    if len(chosen) < count:
        chosen += sorted(left, key=_usefulness)[: count - len(chosen)]
    return chosen


def _doubled(pods: Iterable[Raw], completions: int) -> tuple[list[Raw], list[Raw]]:
    """(those to remove, the one of each index to keep)."""
    spare: list[Raw] = []
    kept: dict[int, Raw] = {}
    for pod in sorted(pods, key=_usefulness):
        index = index_of(pod)
        if index is None or index >= completions:
            spare.append(pod)
        else:
            if index in kept:
                spare.append(kept[index])
            kept[index] = pod  # the most useful comes last
    return spare, list(kept.values())


def _usefulness(pod: Raw) -> tuple[bool, int, bool, tuple[int, ...], str]:
    """Least useful first: not on a node, pending, not ready, younger."""
    metadata = pod["metadata"]
    phase = {"Pending": 0, "Unknown": 1}.get(objects.phase(pod), 2)
    born = tuple(-ord(letter) for letter in metadata.get("creationTimestamp", ""))
    return bool(pod.get("spec", {}).get("nodeName")), phase, objects.ready(pod), born, objects.uid(pod)
