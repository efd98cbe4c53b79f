"""How an object ends, decided without a clock: finalizers for what it owns, grace, generations, preconditions."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import deletion, kinds
from cuboid.kube.kind import Kind
from cuboid.kube.options import DeleteOptions
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import ConflictError

MAP = kinds.builtin("ConfigMap")
JOB = kinds.builtin("Job", "batch")
POD = kinds.builtin("Pod")
EVENT = kinds.builtin("Event")
NAMESPACE = kinds.builtin("Namespace")
DEPLOYMENT = kinds.builtin("Deployment", "apps")
NOW = 1_800_000_000.0


def made(*finalizers: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": "x", "uid": "u", "resourceVersion": "7", "generation": 1}
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    return {"metadata": metadata, "spec": {}, "status": {}, **more}


def decided(kind: Kind, old: dict[str, Any], now: float = NOW, **options: Any) -> dict[str, Any] | None:
    return deletion.decide(kind, copy.deepcopy(old), DeleteOptions(**options), now)


@pytest.mark.parametrize(
    ("kind", "before", "policy", "after"),
    [
        (MAP, (), "", None),
        (MAP, (), "Background", None),
        (MAP, (), "Foreground", ["foregroundDeletion"]),
        (MAP, (), "Orphan", ["orphan"]),
        (MAP, ("a/b",), "", ["a/b"]),
        (MAP, ("a/b", "orphan"), "", ["a/b", "orphan"]),
        (MAP, ("orphan", "a/b"), "Foreground", ["a/b", "foregroundDeletion"]),
        (MAP, ("foregroundDeletion",), "Background", None),
        (JOB, (), "", ["orphan"]),
        (JOB, (), "Background", None),
        (JOB, ("foregroundDeletion",), "", ["foregroundDeletion"]),
        (EVENT, (), "Foreground", None),
    ],
)
def test_what_becomes_of_dependents_is_left_in_a_finalizer(
    kind: Kind, before: tuple[str, ...], policy: str, after: list[str] | None
) -> None:
    found = decided(kind, made(*before), propagation=policy)
    assert (found and found["metadata"]["finalizers"]) == after


def test_what_is_kept_is_marked_and_counts_as_changed() -> None:
    found = decided(DEPLOYMENT, made("a/b"))
    assert found is not None
    metadata = found["metadata"]
    assert (metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"]) == (rfc3339(NOW), 0)
    assert metadata["generation"] == 2
    assert decided(DEPLOYMENT, found, NOW + 100) == found, "asking again changes nothing"
    later = decided(DEPLOYMENT, found, NOW + 100, propagation="Orphan")
    assert later is not None and later["metadata"]["finalizers"] == ["a/b", "orphan"]
    assert later["metadata"]["deletionTimestamp"] == rfc3339(NOW) and later["metadata"]["generation"] == 2


def test_a_namespace_stays_until_its_finalizer_is_gone_whatever_the_policy() -> None:
    found = decided(NAMESPACE, made(spec={"finalizers": ["kubernetes"]}), propagation="Foreground")
    assert found is not None and "finalizers" not in found["metadata"]
    assert found["status"]["phase"] == "Terminating"


BOUND = made(spec={"nodeName": "n", "terminationGracePeriodSeconds": 30})


def test_grace_begins_with_the_first_request_and_only_shrinks() -> None:
    first = decided(POD, BOUND)
    assert first is not None
    assert first["metadata"]["deletionTimestamp"] == rfc3339(NOW + 30)
    assert decided(POD, first, NOW + 5) == first
    assert decided(POD, first, NOW + 5, grace=60) == first
    shorter = decided(POD, first, NOW + 5, grace=10)
    assert shorter is not None
    assert shorter["metadata"]["deletionTimestamp"] == rfc3339(NOW + 10), "counted from the first request"
    assert shorter["metadata"]["generation"] == first["metadata"]["generation"]
    assert decided(POD, first, NOW + 5, grace=0) is None


def test_a_pod_without_grace_but_with_a_finalizer_stays_and_goes_with_it() -> None:
    held = copy.deepcopy(BOUND)
    held["metadata"]["finalizers"] = ["a/b"]
    found = decided(POD, held, grace=0)
    assert found is not None and found["metadata"]["deletionGracePeriodSeconds"] == 0
    assert not deletion.finished(POD, found)
    del found["metadata"]["finalizers"]
    assert deletion.finished(POD, found)


@pytest.mark.parametrize("change", [{"spec": {}}, {"status": {"phase": "Failed"}}])
def test_a_pod_that_runs_nowhere_goes_at_once(change: dict[str, Any]) -> None:
    assert decided(POD, {**BOUND, **change}) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DeleteOptions(uid="v"), r"the UID in the precondition \(v\) does not match the UID in record \(u\)"),
        (DeleteOptions(resource_version="6"), r"the ResourceVersion in the precondition \(6\) does not match"),
    ],
)
def test_another_object_than_was_meant_is_a_conflict(options: DeleteOptions, words: str) -> None:
    with pytest.raises(ConflictError, match=words):
        deletion.check_preconditions(MAP, made(), options)
    deletion.check_preconditions(MAP, made(), DeleteOptions(uid="u", resource_version="7"))
