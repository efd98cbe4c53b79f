"""Deleting an object, with what it owns, and saying what is waited for."""

from __future__ import annotations

import time
from typing import Any

from cuboid.cli import resources
from cuboid.cli.api import Api, pods_path
from cuboid.cli.http import ready
from cuboid.cli.output import Progress
from cuboid.cli.resources import Resource
from cuboid.lib.errors import DeadlineError, NotFoundError

Object = dict[str, Any]
SECONDS = 300.0
_LOOK = 2.0  # seconds after which what is left is counted again
_BACKGROUND = ("foregroundDeletion", "orphan")
CASCADES = {"background": "Background", "foreground": "Foreground", "orphan": "Orphan"}


def delete(
    api: Api, resource: Resource, namespace: str, name: str, line: Progress, *,
    wait: bool = True, cascade: str = "foreground", seconds: float = SECONDS, grace: int | None = None,
) -> None:  # fmt: skip
    """NotFoundError that names what is near; DeadlineError that says what is in the way."""
    body: Object = {"propagationPolicy": CASCADES[cascade]}
    if grace is not None:
        body["gracePeriodSeconds"] = grace
    before = resources.get(api, resource, namespace, name)
    api.delete(resource.path(namespace, name), body)
    if wait:
        _gone(api, resource, before, line, seconds)


def _gone(api: Api, resource: Resource, before: Object, line: Progress, seconds: float) -> None:
    until = time.monotonic() + seconds
    namespace, name = before["metadata"].get("namespace", ""), before["metadata"]["name"]
    while True:
        try:
            found = api.get(resource.path(namespace, name))
        except NotFoundError:
            return
        if found["metadata"]["uid"] != before["metadata"]["uid"]:
            return
        what = _waited_for(api, resource, found)
        if time.monotonic() > until:
            raise DeadlineError(
                f"{resource.noun} {name} is not gone after {seconds:g} s: it waits for {what}",
                hint=f"cuboid get {resource.plural} {name} -o yaml",
            )
        line.update(f"deleting {resource.noun} {name}: waiting for {what}")
        version = found["metadata"]["resourceVersion"]
        with api.changes(resource.path(namespace), name=name, version=version) as watch:
            ready([watch], min(_LOOK, max(0.0, until - time.monotonic())))


def _waited_for(api: Api, resource: Resource, found: Object) -> str:
    """In words: its pods, the finalizers that somebody has to take away, or its own end."""
    metadata = found["metadata"]
    if resource.kind == "Namespace":
        told = [row["message"] for row in found.get("status", {}).get("conditions", []) if row["status"] == "True"]
        return told[-1] if told else "what is in it"
    if resource.kind == "Pod":
        return "its program to end"
    others = [text for text in metadata.get("finalizers", []) if text not in _BACKGROUND]
    if others:
        return f"{', '.join(others)} (finalizers: whoever set them takes them away)"
    if "foregroundDeletion" in metadata.get("finalizers", []):
        pods = _pods(api, found)
        return f"{pods} pod{'' if pods == 1 else 's'} to end" if pods else "what it owns"
    return "its end"


def _pods(api: Api, found: Object) -> int:
    from cuboid.cli.waiting import selector

    if not (chosen := selector(found) if isinstance(found.get("spec", {}).get("selector"), dict) else ""):
        return 0
    return len(api.get(pods_path(found["metadata"]["namespace"]), labelSelector=chosen)["items"])
