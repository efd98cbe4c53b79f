"""A WebSocket for port forwarding: many at once, so on asyncio. exec and attach have `streams`, which starts faster."""

from __future__ import annotations

from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from cuboid.cli.api import Api, error_of
from cuboid.lib.errors import UnavailableError

FORWARD = Subprotocol("v4.channel.k8s.io")


async def open_tunnel(api: Api, path: str, port: int) -> ClientConnection:
    """To a port of a pod; the API's own error where it refuses."""
    scheme = "wss" if api.tls else "ws"
    try:
        return await connect(
            f"{scheme}://{api.host}:{api.port}{path}?{urlencode([('ports', str(port))])}",
            ssl=api.tls,
            additional_headers=api.headers(),
            subprotocols=[FORWARD],
            max_size=None,
            ping_interval=None,
            compression=None,
            open_timeout=30,
            proxy=None,
        )
    except InvalidStatus as error:
        raise error_of(error.response.status_code, bytes(error.response.body or b"")) from error
    except OSError as error:
        raise UnavailableError(
            f"the API at {api.connection.server} does not answer: {error}", hint="cuboid up"
        ) from error
