"""`/cuboid/v1/images`: what is on this host, pulls and imports with their progress as JSON lines, removal."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cuboid.images.base import Credentials, Image, Progress, ProgressHook
from cuboid.kube import status
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError, ExhaustedError, NotFoundError
from cuboid.node.kubelet.edge import Edge

PROGRESS_SECONDS = 0.2  # between two lines of progress
ARCHIVE_LIMIT = 64 << 30  # bytes
BODY_LIMIT = 64 << 10
PIECE_SECONDS = 60.0  # an upload that stalls for longer is given up
Raw = dict[str, Any]


async def list_images(request: Request, edge: Edge) -> Response:
    return JSONResponse({"items": [image_row(image) for image in edge.images.images()]})


async def inspect_image(request: Request, edge: Edge) -> Response:
    reference = _reference(request)
    image = await edge.images.resolve(reference)
    if image is None:
        raise NotFoundError(f"no image {reference!r} is on this node", hint="cuboid images")
    return JSONResponse(image_row(image))


async def remove_image(request: Request, edge: Edge) -> Response:
    return JSONResponse({"removed": await edge.images.remove(_reference(request))})


async def pull_image(request: Request, edge: Edge) -> Response:
    body = await _json_body(request)
    reference, given = body.get("reference"), body.get("credentials") or {}
    if not isinstance(reference, str) or not reference or not isinstance(given, dict):
        raise status.bad_request("the body needs a reference, and credentials as an object if any")
    credentials = _credentials(given)

    async def pull(progress: ProgressHook) -> Raw:
        return {"image": image_row(await edge.images.pull(reference, credentials=credentials, progress=progress))}

    return _told(pull)


async def import_image(request: Request, edge: Edge) -> Response:
    """The body is spooled to disk first: an archive is read in no order, and more than once."""
    name = request.query_params.get("name") or None
    edge.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, text = tempfile.mkstemp(prefix="import-", suffix=".tar", dir=edge.spool)
    path = Path(text)
    try:
        await _receive(request, descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise

    async def take(progress: ProgressHook) -> Raw:
        try:
            images = await edge.images.import_archive(path, name=name, progress=progress)
        finally:
            path.unlink(missing_ok=True)
        return {"images": [image_row(image) for image in images]}

    return _told(take)


async def _receive(request: Request, descriptor: int) -> None:
    size = 0
    with os.fdopen(descriptor, "wb") as file:
        pieces = request.stream().__aiter__()
        while True:
            try:
                async with asyncio.timeout(PIECE_SECONDS):
                    piece = await anext(pieces, None)
            except TimeoutError as error:
                raise status.bad_request("the archive stopped coming") from error
            if piece is None:
                return
            size += len(piece)
            if size > ARCHIVE_LIMIT:
                raise status.too_large(ARCHIVE_LIMIT)
            try:
                await asyncio.to_thread(file.write, piece)
            except OSError as error:
                raise ExhaustedError(f"the archive cannot be kept: {error.strerror}") from error


def image_row(image: Image) -> Raw:
    config = image.config
    return {
        "id": image.id,
        "digest": image.digest,
        "names": list(image.names),
        "size": image.device_bytes,
        "created": image.created,
        "pulledAt": rfc3339(image.pulled_at) if image.pulled_at else "",
        "architecture": image.architecture,
        "layers": list(image.layers),
        "config": {
            "entrypoint": list(config.entrypoint),
            "cmd": list(config.cmd),
            "env": list(config.env),
            "workingDir": config.working_dir,
            "user": config.user,
            "stopSignal": config.stop_signal,
            "exposedPorts": list(config.exposed_ports),
            "volumes": list(config.volumes),
            "labels": dict(config.labels),
        },
    }


def _credentials(given: Raw) -> Credentials | None:
    def text(*names: str) -> str:
        value = next((given[name] for name in names if given.get(name)), "")
        if not isinstance(value, str):
            raise status.bad_request("credentials are texts")
        return value

    found = Credentials(text("username"), text("password"), text("identityToken", "identity_token"))
    return found if found.username or found.password or found.identity_token else None


def _reference(request: Request) -> str:
    reference = request.query_params.get("reference", "")
    if not reference:
        raise status.bad_request("name the image: ?reference=")
    return reference


async def _json_body(request: Request) -> Raw:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_LIMIT:
            raise status.too_large(BODY_LIMIT)
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise status.bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise status.bad_request("the body must be an object")
    return body


# --- progress --------------------------------------------------------------------------------------------------------

Work = Callable[[ProgressHook], Awaitable[Raw]]


def _told(work: Work) -> Response:
    return StreamingResponse(_lines(work), media_type="application/x-ndjson")


async def _lines(work: Work) -> AsyncIterator[bytes]:
    """Lines of progress, thinned out, then the result or the error. Work that nobody listens to any more is ended."""
    latest: list[Progress] = []
    async with TaskSet("image") as tasks:
        task = tasks.start(_outcome(work, lambda progress: latest.__setitem__(slice(None), [progress])), name="work")
        while not task.done():
            await asyncio.wait([task], timeout=PROGRESS_SECONDS)
            if latest and not task.done():
                progress = latest.pop()
                yield _line({"phase": progress.phase.value, "done": progress.done, "total": progress.total})
        with suppress(asyncio.CancelledError):
            yield _line(task.result())


async def _outcome(work: Work, progress: ProgressHook) -> Raw:
    try:
        return await work(progress)
    except CuboidError as error:
        return {"error": {"reason": error.reason, "message": error.message, "hint": error.hint}}


def _line(row: Raw) -> bytes:
    return msgspec.json.encode(row) + b"\n"
