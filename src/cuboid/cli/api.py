"""A small synchronous client of the Kubernetes API for commands, with few imports: so that a verb starts fast."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from cuboid import __version__
from cuboid.cli import config, http, websocket
from cuboid.lib import errors

if TYPE_CHECKING:
    from ssl import SSLContext

Object = dict[str, Any]
MANAGER = "cuboid"  # the name under which fields are applied
TIMEOUT = 30.0  # seconds for an answer to begin; streams have none between lines

BY_REASON: dict[str, type[errors.CuboidError]] = {
    kind.reason: kind
    for kind in (
        errors.NotFoundError,
        errors.AlreadyExistsError,
        errors.ConflictError,
        errors.UnauthorizedError,
        errors.ForbiddenError,
        errors.GoneError,
        errors.InvalidError,
        errors.ExhaustedError,
        errors.UnsupportedError,
        errors.DeadlineError,
        errors.UnavailableError,
    )
}
BY_STATUS: dict[int, type[errors.CuboidError]] = {
    400: errors.InvalidError,
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.GoneError,
    415: errors.UnsupportedError,
    422: errors.InvalidError,
    429: errors.ExhaustedError,
    501: errors.UnsupportedError,
    503: errors.UnavailableError,
    504: errors.DeadlineError,
    507: errors.ExhaustedError,
}


def error_of(status: int, body: bytes) -> errors.CuboidError:
    """The error that an answer means: its `Status` object where it has one, else its code."""
    try:
        content = json.loads(body)
    except ValueError:
        content = {}
    reason = str(content.get("reason", "")) if isinstance(content, dict) else ""
    text = str(content.get("message", "")) if isinstance(content, dict) else ""
    kind = BY_REASON.get(reason) or BY_STATUS.get(status, errors.CuboidError)
    return kind(text or body[:300].decode(errors="replace").strip() or f"the API answered {status}", reason=reason)


class Api:
    """One keep-alive connection. Not for several threads at once; `stream`, `changes` and `upgrade` open their own."""

    def __init__(self, connection: config.Connection) -> None:
        self.connection = connection
        parts = urlsplit(connection.server)
        self.host, self.port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._netloc = parts.netloc
        self._secure = parts.scheme == "https"
        self._own: http.Connection | None = None

    @cached_property
    def tls(self) -> SSLContext | None:
        if not self._secure:
            return None
        import ssl  # not where a local socket is spoken to: it takes 10 ms

        return ssl.create_default_context(cadata=self.connection.ca or None)

    def _connect(self) -> http.Connection:
        return http.Connection(self._dial, self._netloc, TIMEOUT)

    def _dial(self, timeout: float | None) -> socket.socket:
        if self.connection.socket:
            wire = socket.socket(socket.AF_UNIX)
            wire.settimeout(timeout)
            try:
                wire.connect(self.connection.socket)
            except OSError:
                wire.close()
                raise
            return wire
        wire = socket.create_connection((self.host, self.port), timeout)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(wire, server_hostname=self.host) if self.tls else wire

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.connection.token}", "User-Agent": f"cuboid/{__version__}"}

    def request(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "",
        accept: str = "application/json",
    ) -> Any:
        """One call, its JSON answer. Raises the error that the API gave."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {**self.headers(), "Content-Type": kind or "application/json", "Accept": accept}
        self._own = self._own or self._connect()
        with self._telling(self._own):
            response = self._own.request(method, _with_query(path, query), headers, data)
            content = response.read()
        if response.status >= 400:
            raise error_of(response.status, content)
        return json.loads(content) if content else None

    @contextmanager
    def _telling(self, connection: http.Connection) -> Iterator[None]:
        """What the network does as an error for people."""
        where = self.connection.server
        try:
            yield
        except OSError as error:
            connection.close()
            if why := getattr(error, "verify_message", ""):  # ssl's, which may not be imported here
                raise errors.UnauthorizedError(f"{where} has a certificate of another platform: {why}") from error
            raise errors.UnavailableError(f"the API at {where} does not answer: {error}", hint="cuboid up") from error
        except errors.HostileError as error:
            connection.close()
            raise errors.UnavailableError(f"the API at {where} does not answer: {error}") from error

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Object, **query: str) -> Any:
        return self.request("POST", path, body, query=query)

    def patch(self, path: str, body: Object) -> Any:
        return self.request("PATCH", path, body, kind="application/merge-patch+json")

    def apply(self, path: str, body: Object, *, force: bool = True, dry_run: bool = False) -> Any:
        """Server-side apply: the object is made, or gets these fields. ConflictError without `force`, where a field is
        another's; InvalidError for a field that the kind does not have."""
        query = {
            "fieldManager": MANAGER, "force": str(force).lower(), "dryRun": "All" if dry_run else "",
            "fieldValidation": "Strict",
        }  # fmt: skip
        return self.request("PATCH", path, body, query=query, kind="application/apply-patch+yaml")

    def delete(self, path: str, body: Object | None = None) -> Any:
        return self.request("DELETE", path, body)

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: IO[bytes] | bytes | None = None,
        accept: str = "*/*",
    ) -> http.Response:
        """An answer to read piece by piece, without a deadline between the pieces."""
        connection = self._connect()
        headers = {**self.headers(), "Accept": accept, "Content-Type": "application/octet-stream"}
        with self._telling(connection):
            response = connection.request(method, _with_query(path, query), headers, data)
            if response.status >= 400:
                raise error_of(response.status, response.read())
        connection.wire.settimeout(None)
        return response

    def lines(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, data: Any = None
    ) -> Iterator[Object]:
        """The JSON lines of a streamed answer."""
        with self.stream(method, path, query=query, data=data) as response:
            for line in response:
                if line.strip():
                    yield json.loads(line)

    def changes(
        self, path: str, *, name: str = "", version: str = "", timeout: float = 0, labels: str = "", accept: str = "*/*"
    ) -> Changes:
        """A watch that can be waited for beside other things. It ends when the server ends it."""
        query = {"watch": "true", "resourceVersion": version, "labelSelector": labels}
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        if timeout:
            query["timeoutSeconds"] = str(max(1, int(timeout)))
        return Changes(self.stream("GET", path, query=query, accept=accept))

    def watch(
        self, path: str, *, name: str = "", version: str = "", timeout: float = 0
    ) -> Iterator[tuple[str, Object]]:
        """(type, object) of a watch; ends when the server ends it, at the latest after `timeout` seconds if not 0."""
        with self.changes(path, name=name, version=version, timeout=timeout) as changes:
            while not changes.over:
                yield from changes.take()

    def upgrade(self, path: str, query: Iterable[tuple[str, str]], protocol: str) -> Upgrade:
        """Ask for a WebSocket; the answer is for `Upgrade.finish`, which may be waited for."""
        return Upgrade(self, f"{path}?{urlencode(list(query))}", protocol)


class Changes:
    """A watch under way. Close it, or use it as a context manager."""

    def __init__(self, response: http.Response) -> None:
        self._response = response
        self._rest = b""

    @property
    def waiting(self) -> bool:
        return self._response.waiting

    def fileno(self) -> int:
        return self._response.fileno()

    @property
    def over(self) -> bool:
        return self._response.over

    def take(self) -> list[tuple[str, Object]]:
        """What one read of the socket brings, which may be nothing. Raises the error that the watch ends with."""
        try:
            data = self._response.arrived()
        except (OSError, errors.HostileError) as error:
            raise errors.UnavailableError(f"a watch broke off: {error}") from error
        *lines, self._rest = (self._rest + data).split(b"\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        for row in rows:
            if row["type"] == "ERROR":
                raise error_of(int(row["object"].get("code", 500)), json.dumps(row["object"]).encode())
        return [(row["type"], row["object"]) for row in rows]

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Upgrade:
    """A request for a WebSocket that has been sent. Readable when the answer begins (`http.ready`)."""

    def __init__(self, api: Api, target: str, protocol: str) -> None:
        self._api = api
        self._connection = api._connect()
        key = websocket.key()
        headers = {**api.headers(), **websocket.handshake(key, protocol)}
        with api._telling(self._connection):
            self._parser = self._connection.send("GET", target, headers)
        self._accepted = websocket.accepted(key)

    @property
    def waiting(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._connection.wire.fileno()

    def finish(self) -> websocket.Socket:
        """The open WebSocket; the API's own error where it refuses."""
        with self._api._telling(self._connection):
            response = self._connection.answer(self._parser)
            if response.status != 101:
                raise error_of(response.status, response.read())
            if response.headers.get("sec-websocket-accept") != self._accepted:
                raise errors.HostileError("the answer to a WebSocket's key is wrong")
        return websocket.Socket(self._connection.hand_over(), self._parser.rest)

    def close(self) -> None:
        """Nothing happens to a WebSocket that was opened."""
        self._connection.close()


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    pairs = {key: value for key, value in (query or {}).items() if value != ""}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def pods_path(namespace: str, name: str = "", *sub: str) -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"
    return "/".join([path, *(quote(part, safe="") for part in (name, *sub) if part)])


def node_path(node: str, rest: str) -> str:
    """An endpoint of a node's agent, through the API."""
    return f"/api/v1/nodes/{quote(node, safe='')}/proxy/{rest.lstrip('/')}"
