"""Bodies of requests are read before a request takes a seat: who sends slowly keeps nobody else from being served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope

from cuboid.lib.aio import deadline
from cuboid.server.fairness import Flow, Shares
from cuboid.server.settings import ServerSettings

PART = 4
"""One flow's part of all bytes, as a divisor."""


class Gone(Exception):
    """The client went away in the middle of its body."""


class Bodies:
    def __init__(self, settings: ServerSettings) -> None:
        self._limit = settings.body_limit
        self._seconds = settings.body_seconds
        self._bytes = Shares(settings.body_bytes // PART, settings.body_bytes)

    @asynccontextmanager
    async def whole(self, scope: Scope, receive: Receive, flow: Flow) -> AsyncIterator[Receive]:
        """A `receive` that has the body at once; its bytes are accounted for until the end of the block.

        A body that is too long is not read to its end: the rest is left to the handler, which refuses it. Gone,
        DeadlineError (it took too long), ExhaustedError (too many bytes of this flow, or of all).
        """
        if not _has_body(scope):
            yield receive
            return
        taken = 0
        chunks: list[bytes] = []
        more = True
        try:
            async with deadline(self._seconds, "sending the request body"):
                while more and taken <= self._limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    self._bytes.take(flow, len(chunk))
                    taken += len(chunk)
                    chunks.append(chunk)
                    more = message.get("more_body", False)
            yield _replayed({"type": "http.request", "body": b"".join(chunks), "more_body": more}, receive)
        finally:
            self._bytes.give_back(flow, taken)


def _has_body(scope: Scope) -> bool:
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )


def _replayed(first: Message, receive: Receive) -> Receive:
    pending: list[Message] = [first]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
