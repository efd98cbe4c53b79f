"""A small synchronous client of the Kubernetes API for commands: standard library only, so that a verb starts fast."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from cuboid import __version__
from cuboid.cli.config import Connection
from cuboid.lib import errors

Object = dict[str, Any]
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
    """One keep-alive connection. Not for several threads at once; `stream` opens a connection of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        parts = urlsplit(connection.server)
        self.host, self.port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cadata=connection.ca or None) if parts.scheme == "https" else None
        self._http = self._connect(TIMEOUT)

    @property
    def tls(self) -> ssl.SSLContext | None:
        return self._tls

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.connection.token}", "User-Agent": f"cuboid/{__version__}"}

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "",
    ) -> Any:
        """One call, its JSON answer. Raises the error that the API gave."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {**self.headers(), "Content-Type": kind or "application/json", "Accept": "application/json"}
        response = self._send(self._http, method, _with_query(path, query), data, headers)
        content = response.read()
        if response.status >= 400:
            raise error_of(response.status, content)
        return json.loads(content) if content else None

    def _send(
        self, http_: http.client.HTTPConnection, method: str, target: str, data: Any, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        try:
            http_.request(method, target, body=data, headers=headers)
            return http_.getresponse()
        except (ConnectionError, http.client.HTTPException, OSError) as error:
            http_.close()
            where = self.connection.server
            if isinstance(error, ssl.SSLCertVerificationError):
                raise errors.UnauthorizedError(
                    f"{where} has a certificate of another platform: {error.verify_message}"
                ) from error
            raise errors.UnavailableError(f"the API at {where} does not answer: {error}", hint="cuboid up") from error

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Object, **query: str) -> Any:
        return self.request("POST", path, body, query=query)

    def patch(self, path: str, body: Object) -> Any:
        return self.request("PATCH", path, body, kind="application/merge-patch+json")

    def delete(self, path: str, body: Object | None = None) -> Any:
        return self.request("DELETE", path, body)

    def stream(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, data: IO[bytes] | bytes | None = None
    ) -> http.client.HTTPResponse:
        """An answer to read piece by piece, without a deadline between the pieces."""
        connection = self._connect(TIMEOUT)
        headers = {**self.headers(), "Accept": "*/*", "Content-Type": "application/octet-stream"}
        response = self._send(connection, method, _with_query(path, query), data, headers)
        if response.status >= 400:
            raise error_of(response.status, response.read())
        if connection.sock:
            connection.sock.settimeout(None)
        return response

    def lines(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, data: Any = None
    ) -> Iterator[Object]:
        """The JSON lines of a streamed answer."""
        with self.stream(method, path, query=query, data=data) as response:
            for line in response:
                if line.strip():
                    yield json.loads(line)

    def watch(
        self, path: str, *, name: str = "", version: str = "", timeout: float = 0
    ) -> Iterator[tuple[str, Object]]:
        """(type, object) of a watch; ends when the server ends it, at the latest after `timeout` seconds if not 0."""
        query = {"watch": "true", "resourceVersion": version}
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        if timeout:
            query["timeoutSeconds"] = str(max(1, int(timeout)))
        for row in self.lines("GET", path, query=query):
            if row["type"] == "ERROR":
                raise error_of(int(row["object"].get("code", 500)), json.dumps(row["object"]).encode())
            yield row["type"], row["object"]


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    pairs = {key: value for key, value in (query or {}).items() if value != ""}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def pods_path(namespace: str, name: str = "", *sub: str) -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"
    return "/".join([path, *(quote(part, safe="") for part in (name, *sub) if part)])


def node_path(node: str, rest: str) -> str:
    """An endpoint of a node's agent, through the API."""
    return f"/api/v1/nodes/{quote(node, safe='')}/proxy/{rest.lstrip('/')}"
