"""Small manifests of workloads."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def template(app: str = "web", image: str = "registry.example/app:1", **spec: Any) -> Object:
    containers = [{"name": "main", "image": image}]
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": containers, **spec}}


def workload(
    name: str = "web", replicas: int | None = 3, *, image: str = "registry.example/app:1", **spec: Any
) -> Object:
    """A ReplicaSet, Deployment, StatefulSet or (with None for the replicas) a DaemonSet."""
    count = {} if replicas is None else {"replicas": replicas}
    selector = {"matchLabels": {"app": name}}
    return {
        "metadata": {"name": name},
        "spec": {"selector": selector, "template": template(name, image), **count, **spec},
    }


def image_of(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])
