"""`nodes/{name}/proxy`: the HTTPS API of a node's agent, through this server; bodies are streamed both ways.

What a node answers is passed on as it is; the caller's own headers stay here, above all its token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cuboid.kube import status
from cuboid.kube.cache import Entry
from cuboid.lib.errors import UnavailableError
from cuboid.lib.log import get_log
from cuboid.server import nodes
from cuboid.server.context import Context

log = get_log(__name__)
PATH = "/api/v1/nodes/{name}/proxy/{path:path}"
CONNECT_SECONDS = 10.0
_PASSED_UP = ("content-type", "content-length", "accept")
_PASSED_DOWN = ("content-type", "content-length")


async def handle(request: Request, context: Context) -> Response:
    """UnavailableError if the node does not answer; its own errors pass through with their codes."""
    name = request.path_params["name"]
    entry: Entry | None = context.registry.of(nodes.NODE).get("", name)
    if entry is None:
        raise status.not_found("nodes", "", name)
    url = nodes.endpoint(entry.object()).base + "/" + quote(request.path_params["path"].lstrip("/"))
    client = httpx.AsyncClient(verify=context.kubelet or True, timeout=httpx.Timeout(CONNECT_SECONDS, read=None))
    headers = {key: request.headers[key] for key in _PASSED_UP if key in request.headers}
    body = request.stream() if request.method in ("POST", "PUT", "PATCH") else None
    try:
        upstream = client.build_request(request.method, url, params=request.url.query, headers=headers, content=body)
        answer = await client.send(upstream, stream=True)
    except httpx.HTTPError as error:
        await client.aclose()
        why = str(error) or type(error).__name__
        raise UnavailableError(
            f'the agent of node "{name}" does not answer: {why}', hint="is the node agent running?"
        ) from error
    except BaseException:
        await client.aclose()
        raise
    passed = {key: answer.headers[key] for key in _PASSED_DOWN if key in answer.headers}
    return StreamingResponse(_through(answer, client), answer.status_code, passed)


async def _through(answer: httpx.Response, client: httpx.AsyncClient) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        log.info("a node's answer ended early", error=str(error))
    finally:
        await answer.aclose()
        await client.aclose()
