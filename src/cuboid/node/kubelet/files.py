"""`/cuboid/v1/files`: a tar out of a container, a tar into one. `/cuboid/v1/volumes`: named volumes of this host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cuboid.guest.base import Guest, Stream
from cuboid.kube import status
from cuboid.lib.aio import within
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError
from cuboid.node.kubelet.edge import GUEST_SECONDS, Edge

PIECE_SECONDS = 60.0  # a client or guest that stalls for longer is given up
PATH_LIMIT = 4096


async def copy_out(request: Request, edge: Edge) -> Response:
    """The tar of a file or folder, named by its last part. 404 if there is none."""
    guest, container, path = _target(request, edge)
    pieces = _tar(guest, container, path)
    first = await anext(pieces, b"")  # an error of the guest's comes before any byte: it can still be told by its code
    return StreamingResponse(_joined(first, pieces), media_type="application/x-tar")


async def _tar(guest: Guest, container: str, path: str) -> AsyncIterator[bytes]:
    call = guest.copy_out(container, path)
    async with await within(GUEST_SECONDS, call, "reading files in the guest") as stream:
        async for _, data in stream.received():
            yield data
        await stream.reply()


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def copy_in(request: Request, edge: Edge) -> Response:
    """Unpack the body, a tar, in an existing folder of the container."""
    guest, container, path = _target(request, edge)
    call = guest.copy_in(container, path)
    async with await within(GUEST_SECONDS, call, "writing files in the guest") as stream:
        await _send_body(request, stream)
        await within(PIECE_SECONDS, stream.reply(), "unpacking in the guest")
    return JSONResponse({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})


async def _send_body(request: Request, stream: Stream) -> None:
    """A guest that has refused takes no more: its reply says why, so that is not an error here."""
    pieces = request.stream().__aiter__()
    try:
        while True:
            async with asyncio.timeout(PIECE_SECONDS):
                piece = await anext(pieces, None)
                if piece is None:
                    return await stream.send_end()
                await stream.send(piece)
    except TimeoutError as error:
        raise status.bad_request("the archive stopped coming or going") from error
    except (CuboidError, ConnectionError):
        return None


def _target(request: Request, edge: Edge) -> tuple[Guest, str, str]:
    view = edge.pod(request)
    container = edge.container(request, view)
    path = request.query_params.get("path", "")
    if not path or len(path) > PATH_LIMIT or "\0" in path:
        raise status.bad_request("name a path in the container: ?path=")
    return view.guest(), container, path


async def list_volumes(request: Request, edge: Edge) -> Response:
    rows = [
        {
            "namespace": volume.namespace,
            "name": volume.name,
            "size": volume.device.size_bytes,
            "used": volume.device.used_bytes,
            "holder": _holder(edge, volume.holder),
            "holderUid": volume.holder,
            "createdAt": rfc3339(volume.created_at),
        }
        for volume in edge.disks.volumes()
    ]
    return JSONResponse({"items": rows})


def _holder(edge: Edge, uid: str) -> str:
    """The name of the pod that holds a volume, its uid if it is not known here."""
    return next((view.pod.metadata.name for view in edge.access.pods() if view.uid == uid), uid)


async def remove_volume(request: Request, edge: Edge) -> Response:
    namespace, name = request.path_params["namespace"], request.path_params["name"]
    await edge.disks.remove_volume(namespace, name)
    return JSONResponse({"removed": [name]})
