"""How objects end: marks, grace, finalizers, and what becomes of what they own. Pure: the clock is given.

Source of the rules: k8s.io/apiserver/pkg/registry, `BeforeDelete` and the deletion of `generic/registry`.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import status
from cuboid.kube.kind import Kind
from cuboid.kube.options import DeleteOptions
from cuboid.lib.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
POLICIES = {"Orphan": (ORPHAN,), "Foreground": (FOREGROUND,), "Background": ()}
LONGEST_GRACE = 2**31 - 1
"""Seconds, 68 years: a pod may name 2^63, and a deletion timestamp has to be a date."""
_ORPHANED = frozenset((("batch", "jobs"),))
"""Kinds that leave their dependents unless they are told otherwise, for compatibility."""
_UNCOLLECTED = frozenset((("", "events"), ("", "namespaces")))
"""Kinds that own nothing a garbage collector looks after."""


def check_preconditions(kind: Kind, old: Object, options: DeleteOptions) -> None:
    """ConflictError when it is not the object that was meant."""
    metadata = old["metadata"]
    uid, version = metadata.get("uid", ""), metadata.get("resourceVersion", "")
    if options.uid and options.uid != uid:
        raise status.conflict(
            kind.kind, kind.group, metadata["name"],
            f"the UID in the precondition ({options.uid[:64]}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated",
        )  # fmt: skip
    if options.resource_version and options.resource_version != version:
        raise status.conflict(
            kind.kind, kind.group, metadata["name"],
            f"the ResourceVersion in the precondition ({options.resource_version[:64]}) does not match the "
            f"ResourceVersion in record ({version}). The object might have been modified",
        )  # fmt: skip


def decide(kind: Kind, old: Object, options: DeleteOptions, now: float) -> Object | None:
    """The object as it stays, asked to end; None when it goes at once. `old` may become part of the answer."""
    grace = kind.strategy.grace_seconds(old, options.grace)
    metadata = old["metadata"]
    if grace is not None and "deletionTimestamp" in metadata:
        pending = metadata.get("deletionGracePeriodSeconds")
        if pending is None:
            grace = None
        elif options.grace is None or max(options.grace, 0) >= pending:
            return None if finished(kind, old) else old
    new = {**old, "metadata": {**metadata, "finalizers": _finalizers(kind, metadata, options)}}
    if not new["metadata"]["finalizers"]:
        del new["metadata"]["finalizers"]
    if "deletionTimestamp" not in metadata:
        kind.strategy.started_deletion(new)
    stays = bool(grace) or "finalizers" in new["metadata"] or kind.strategy.holds(new)
    if stays:
        _mark(new["metadata"], grace or 0, now, kind)
    return new if stays else None


def _finalizers(kind: Kind, metadata: Object, options: DeleteOptions) -> list[str]:
    """Those of the object, with what the garbage collector has to do before it goes."""
    found: list[str] = metadata.get("finalizers", [])
    if kind.stored_as in _UNCOLLECTED:
        return found
    if options.propagation:
        wanted = POLICIES[options.propagation]
    elif ORPHAN in found or FOREGROUND in found:
        return found
    else:
        wanted = (ORPHAN,) if kind.stored_as in _ORPHANED else ()
    if set(wanted) == {item for item in found if item in (ORPHAN, FOREGROUND)}:
        return found
    return [*(item for item in found if item not in (ORPHAN, FOREGROUND)), *wanted]


def _mark(metadata: Object, grace: int, now: float, kind: Kind) -> None:
    """Set the deletion timestamp; a later request may only shorten it."""
    first = "deletionTimestamp" not in metadata
    if first and kind.strategy.has_generation:
        metadata["generation"] = metadata.get("generation", 0) + 1
    started = now
    if not first:
        started = parse_rfc3339(metadata["deletionTimestamp"]) - metadata.get("deletionGracePeriodSeconds", 0)
    grace = min(grace, LONGEST_GRACE)
    metadata["deletionTimestamp"] = rfc3339(started + grace)
    metadata["deletionGracePeriodSeconds"] = grace


def finished(kind: Kind, new: Object) -> bool:
    """A deleted object that nothing keeps any more: no grace, no finalizer."""
    metadata = new["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not kind.strategy.holds(new)
    )
