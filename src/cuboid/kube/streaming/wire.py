"""WebSocket handshakes with Kubernetes' sub-protocol names.

`SPDY/3.1+portforward.k8s.io`, which kubectl offers for port forwarding, is no token in HTTP's sense because of its
slash, and the websockets library refuses it on both sides. Here names are compared as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.typing import Subprotocol

HEADER = "Sec-WebSocket-Protocol"


class ServerWire(WebSocketsSansIOProtocol):
    """For uvicorn's `ws=`: leaves the choice of the sub-protocol to the application, which sees what is offered."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        cast(Any, self.conn).process_subprotocol = lambda headers: None


def open_socket(url: str, protocols: Sequence[str], **options: Any) -> connect:
    """`websockets.asyncio.client.connect` that may offer any sub-protocol name."""

    def create(protocol: ClientProtocol, **rest: Any) -> ClientConnection:
        protocol.available_subprotocols = [Subprotocol(name) for name in protocols]
        cast(Any, protocol).process_subprotocol = lambda headers: _accepted(headers, protocols)
        return ClientConnection(protocol, **rest)

    return connect(url, create_connection=cast(Any, create), **options)


def _accepted(headers: Headers, offered: Sequence[str]) -> Subprotocol | None:
    found = headers.get_all(HEADER)
    if not found:
        return None
    if len(found) > 1 or found[0] not in offered:
        raise NegotiationError(f"the server chose a sub-protocol that was not offered: {found[0][:100]}")
    return Subprotocol(found[0])
