"""A WebSocket as the sub-protocols see it: messages in order, back-pressure both ways, one error for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

T = TypeVar("T")


class DisconnectedError(ConnectionError):
    """The peer is gone."""


class Socket(Protocol):
    async def receive(self) -> bytes | str:
        """The next message. DisconnectedError at the end."""
        ...

    async def send(self, message: bytes | str) -> None:
        """Returns when the message is on its way and the peer keeps up. DisconnectedError."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Idempotent; no error if the peer is gone already."""
        ...


class ServerSocket:
    """A `Socket` over Starlette's."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> bytes | str:
        message = await self._socket.receive()
        if message["type"] != "websocket.receive":
            raise DisconnectedError("the client closed the connection")
        data = message.get("bytes")
        return data if data is not None else str(message.get("text", ""))

    async def send(self, message: bytes | str) -> None:
        try:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_text(message)
        except (WebSocketDisconnect, RuntimeError) as error:  # Starlette refuses to send after a close
            raise DisconnectedError("the client closed the connection") from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._socket.application_state == WebSocketState.CONNECTED:
            try:
                await self._socket.close(code, reason[:120])
            except (WebSocketDisconnect, RuntimeError):
                return


async def while_connected(socket: WebSocket, work: Coroutine[Any, Any, T]) -> T:
    """Work that comes before the handshake's answer. Cancelled, with DisconnectedError, if the client goes away."""
    working = asyncio.Task(work, name="before-accept")
    gone = asyncio.Task(_gone(socket), name="gone")
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise DisconnectedError("the client closed the connection")
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def choose(offered: Sequence[str], known: Sequence[str]) -> str | None:
    """The first sub-protocol in `known`, which is in order of preference, that the client offers."""
    return next((name for name in known if name in offered), None)
