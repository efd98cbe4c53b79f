"""Rows of `events.k8s.io`: the newer face of the core group's events."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube import events
from cuboid.kube.core import EventStrategy
from cuboid.kube.kind import Kind

ROWS: tuple[Kind, ...] = (
    Kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        True,
        "io.k8s.api.events.v1.Event",
        EventStrategy(),
        c.EVENT,
        c.event,
        ("ev",),
        storage=("", "events"),
        to_storage=events.to_core,
        from_storage=events.from_core,
    ),
)
