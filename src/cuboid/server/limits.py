"""Around every request: who calls, how many at once, for how long, and what an error looks like."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from cuboid.kube import status
from cuboid.kube.rbac.attributes import Attributes
from cuboid.lib.aio import deadline, within
from cuboid.lib.errors import CuboidError, DeadlineError, UnauthorizedError
from cuboid.lib.log import get_log
from cuboid.server.context import Context
from cuboid.server.fairness import Fairness, Seat, Shares
from cuboid.server.flows import Flows
from cuboid.server.gate import Ended, is_open
from cuboid.server.protocol import Wire, wire_of
from cuboid.server.render import LAST, failure
from cuboid.server.uploads import Bodies, Gone

log = get_log(__name__)

NOT_ALLOWED = 1008
"""Close code of a WebSocket whose caller has lost the right to it."""
_STREAMING = ("log", "exec", "attach", "portforward", "proxy")


class Edge:
    """ASGI middleware of the whole server."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context
        self._gate = context.security.gate
        settings = context.settings
        self._flows = Flows(context.registry)
        self._fairness = Fairness(settings.max_requests)
        self._streams = Shares(settings.flow_streams, settings.max_streams)
        self._bodies = Bodies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._gate.enter(scope)
            flow = self._flows.of(scope)
            self._streams.take(flow)
        except CuboidError as error:
            code, body = status.to_status(error)
            await WebSocket(scope, receive, send).send_denial_response(JSONResponse(body, code, LAST))
            return
        try:
            with self._gate.streaming(scope):
                await self._app(scope, receive, send)
        except Ended:
            await send({"type": "websocket.close", "code": NOT_ALLOWED})
        finally:
            self._streams.give_back(flow)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._app  # then the router raises instead of answering in plain text
        answer = _Answer(send, self._context.settings.stall_seconds, wire_of(scope))
        try:
            await self._gate.enter(scope)
            await self._limited(scope, receive, answer)
        except Gone:
            return
        except _Stalled:
            log.info("a client that took nothing was cut off", path=scope["path"])
            answer.abort()
        except Ended:
            await self._end(scope, receive, answer)
        except CuboidError as error:
            await self._fail(failure(error), scope, receive, answer)
        except HTTPException as error:
            await self._fail(failure(status.from_status(error.status_code, {})), scope, receive, answer)
        except Exception:
            log.exception("a request failed", verb=scope["method"], path=scope["path"])
            await self._fail(failure(CuboidError("an internal error, see the server's log")), scope, receive, answer)

    async def _limited(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if is_open(scope["path"]):
            await self._app(scope, receive, answer)
            return
        flow = self._flows.of(scope)
        if _is_stream(scope):
            self._streams.take(flow)
            try:
                with self._gate.streaming(scope):
                    await self._app(scope, receive, answer)
            finally:
                self._streams.give_back(flow)
            return
        async with self._bodies.whole(scope, receive, flow) as ready:
            answer.seat = seat = await self._fairness.seat(flow, self._flows.width(scope))
            try:
                async with deadline(self._context.settings.request_seconds, "the request"):
                    await self._app(scope, ready, answer)
            finally:
                seat.give_back()

    async def _end(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """The caller of a stream has lost the right to it: the next request is refused in words."""
        if answer.started:
            await answer({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._fail(failure(UnauthorizedError("Unauthorized")), scope, receive, answer)

    async def _fail(self, response: Response, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if not answer.started:
            await response(scope, receive, answer)


class _Stalled(Exception):
    """The client takes no more bytes."""


class _Answer:
    """`send` with a deadline, which knows whether an answer has begun. A client that does not keep up gives its seat
    to others: it would hold it for as long as it likes."""

    def __init__(self, send: Send, seconds: float, wire: Wire | None) -> None:
        self._send = send
        self._seconds = seconds
        self._wire = wire
        self.seat: Seat | None = None
        self.started = False

    def abort(self) -> None:
        """Closing would wait until the client has taken the rest."""
        if self._wire is not None:
            self._wire.abort()

    async def __call__(self, message: Message) -> None:
        self.started = True
        if self._wire is not None and not self._wire.paused:
            await self._send(message)  # does not wait
            return
        if self.seat is not None:
            self.seat.give_back()
        try:
            await within(self._seconds, self._send(message), "sending")
        except DeadlineError as error:
            raise _Stalled from error


def _is_stream(scope: Scope) -> bool:
    """By what is asked for, not by words in the URL: `watch=` behind a creation gets nobody past the queue."""
    wanted: Attributes = scope["wanted"]
    return wanted.verb == "watch" or wanted.sub in _STREAMING
