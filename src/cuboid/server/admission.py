"""What the server adds to objects that are made, before their defaults. Pure."""

from __future__ import annotations

from typing import Any

from cuboid.server.settings import ServerSettings


def admit_pod(pod: Any, settings: ServerSettings) -> None:
    """A pod's machine needs memory beside its containers: told as `spec.overhead`, where schedulers look for it.

    Kubernetes takes it from a RuntimeClass. A pod that names one keeps it; what is no pod is left to validation.
    """
    spec = pod.get("spec") if isinstance(pod, dict) else None
    if settings.pod_overhead_mib and isinstance(spec, dict) and not spec.get("overhead"):
        spec["overhead"] = {"memory": f"{settings.pod_overhead_mib}Mi"}
