"""`/containerLogs`: a container's log, in the options of `kubectl logs`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cuboid.guest import agent_pb2 as pb
from cuboid.kube import status
from cuboid.kube.types import ContainerStatus
from cuboid.lib.errors import CuboidError
from cuboid.node.access import PodView
from cuboid.node.kubelet.edge import Edge, flag, number
from cuboid.node.logs import LogOptions, has_previous, read_logs, wait_for_offset

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_STREAMS = {"": "", "All": "", "Stdout": "stdout", "Stderr": "stderr"}
SECONDS_LIMIT = 10**9
CATCH_UP_SECONDS = 1.0


async def container_logs(request: Request, edge: Edge) -> Response:
    view = edge.pod(request)
    name = edge.container(request, view)
    options = log_options(request)
    folder = view.log_folder(name)
    if not folder.exists():
        raise status.bad_request(_not_started(view, name))
    if options.previous and not has_previous(folder):
        raise status.bad_request(f'previous terminated container "{name}" in pod "{view.pod.metadata.name}" not found')
    if not options.follow and not options.previous:
        await _caught_up(view, name, folder)
    pieces = read_logs(folder, options, lambda: _running(edge, view, name))
    return StreamingResponse(pieces, media_type="text/plain; charset=utf-8")


async def _caught_up(view: PodView, container: str, folder: Path) -> None:
    """What the container has written by now is to be in the answer, also if it has only just ended."""
    try:
        guest = view.guest()
        known = await guest.list(timeout=CATCH_UP_SECONDS) if guest.connected else pb.State()
    except (CuboidError, ConnectionError):
        return
    for state in known.containers:
        if state.name == container:
            await wait_for_offset(folder, state.log_end_offset, timeout=CATCH_UP_SECONDS)


def _running(edge: Edge, view: PodView, container: str) -> bool:
    """Of the pod that was asked for, not of a later one of the same name."""
    current = edge.access.find(view.pod.metadata.namespace, view.pod.metadata.name)
    return current is not None and current.uid == view.uid and current.running(container)


def log_options(request: Request) -> LogOptions:
    """The query's options. 400 says which one is wrong."""
    stream = request.query_params.get("stream", "")
    if stream not in _STREAMS:
        raise status.bad_request(f"stream must be All, Stdout or Stderr, not {stream[:40]!r}")
    return LogOptions(
        tail_lines=number(request, "tailLines"),
        since=_since(request),
        timestamps=flag(request, "timestamps"),
        limit_bytes=number(request, "limitBytes"),
        follow=flag(request, "follow"),
        previous=flag(request, "previous"),
        stream=_STREAMS[stream],
    )


def _since(request: Request) -> str:
    seconds, moment = number(request, "sinceSeconds"), request.query_params.get("sinceTime", "")
    if seconds is not None and moment:
        raise status.bad_request("at most one of sinceTime or sinceSeconds may be specified")
    if seconds is not None:
        start = time.time() - min(seconds, SECONDS_LIMIT)
        return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return canonical_time(moment) if moment else ""


def canonical_time(text: str) -> str:
    """RFC 3339 in UTC with nine digits behind the second, as in the log file."""
    match = _TIME.fullmatch(text.replace(" ", "+"))  # an offset's plus sign that nobody escaped
    try:
        if match is None:
            raise ValueError(text)
        zone = "+00:00" if match[3] in "Zz" else match[3]
        moment = datetime.fromisoformat(match[1].upper() + zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise status.bad_request(f"sinceTime must be a time in RFC 3339, not {text[:60]!r}") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + (match[2] or "").ljust(9, "0") + "Z"


def _not_started(view: PodView, container: str) -> str:
    waiting = next((s.state.waiting for s in _statuses(view) if s.name == container and s.state.waiting), None)
    reason = waiting.reason if waiting else "ContainerCreating"
    return f'container "{container}" in pod "{view.pod.metadata.name}" is waiting to start: {reason}'


def _statuses(view: PodView) -> list[ContainerStatus]:
    now = view.pod.status
    return [*now.container_statuses, *now.init_container_statuses, *now.ephemeral_container_statuses]
