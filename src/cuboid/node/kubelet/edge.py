"""What the handlers share: what they act on, how they find a pod, how they answer an error."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from cuboid.images.base import ImageStore
from cuboid.kube import status
from cuboid.lib.errors import CuboidError, NotFoundError
from cuboid.node.access import PodAccess, PodView
from cuboid.node.metrics import NodeMetrics
from cuboid.node.usage import StatsBook
from cuboid.storage.base import Disks

GUEST_SECONDS = 10.0  # for a guest to take a call


@dataclass(frozen=True)
class Edge:
    access: PodAccess
    images: ImageStore
    disks: Disks
    stats: StatsBook
    metrics: NodeMetrics
    node: str
    spool: Path  # folder for archives that are being imported
    started: float = field(default_factory=time.time)

    def pod(self, request: HTTPConnection) -> PodView:
        """The pod in the path. NotFoundError."""
        namespace, name = request.path_params["namespace"], request.path_params["pod"]
        view = self.access.find(namespace, name)
        if view is None:
            raise NotFoundError(f'pod "{name}" is not on this node')
        return view

    def container(self, request: HTTPConnection, view: PodView) -> str:
        name = str(request.path_params["container"])
        if name not in view.containers:
            raise NotFoundError(f"container {name} not found in pod {view.pod.metadata.name}")
        return name


async def answer_error(_: Request, error: Exception) -> Response:
    """Errors of ours as a Status; everything else is left to Starlette (500)."""
    assert isinstance(error, CuboidError)
    code, body = status.to_status(error)
    return JSONResponse(body, code)


def flag(request: HTTPConnection, *names: str) -> bool:
    """Whether a query option is set, under one of its names: `true`, `1`, or named without a value."""
    values = (request.query_params.get(name) for name in names)
    return any(value is not None and value.lower() in ("", "1", "true", "t") for value in values)


def number(request: HTTPConnection, name: str) -> int | None:
    """A query option that is a whole number from 0 on, None if it is not given. 400 otherwise."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise status.bad_request(f"{name} must be a whole number that is not negative, not {text[:40]!r}")
    return int(text)
