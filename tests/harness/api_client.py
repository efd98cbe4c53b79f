"""The smallest client of the Kubernetes API: one connection per call, closed with it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class ApiClient:
    server: str  # https://127.0.0.1:6443
    token: str
    authority: str  # PEM

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer; AssertionError for a refusal, OSError or HTTPException for none."""
        with closing(self._connection()) as connection:
            answer = self._send(connection, method, path, body)
            return json.loads(answer.read())

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def watch(self, path: str, version: str, *, seconds: int) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """(type, object) of each change since `version`, for so long."""
        query = f"watch=true&resourceVersion={version}&timeoutSeconds={seconds}"
        with closing(self._connection()) as connection:
            for line in self._send(connection, "GET", f"{path}?{query}", None):
                row = json.loads(line)
                yield row["type"], row["object"]

    def _connection(self) -> http.client.HTTPSConnection:
        parts = urlsplit(self.server)
        context = ssl.create_default_context(cadata=self.authority)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30, context=context)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        assert answer.status < 400, f"{method} {path}: {answer.status} {answer.read()!r:.500}"
        return answer
