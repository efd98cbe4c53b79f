"""What the frame of controllers counts, for `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PLANS = Counter(
    "cuboid_controller_plans",
    "Plans that were carried out: done, conflict (made anew), failed (tried again) or broken (a defect).",
    ("controller", "outcome"),
)
DEPTH = Gauge("cuboid_controller_queue_depth", "Keys that wait for a controller.", ("controller",))
EVENTS_LOST = Counter("cuboid_controller_events_lost", "Events that were not written: too many, or no server.")
