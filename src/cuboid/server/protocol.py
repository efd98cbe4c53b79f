"""HTTP/1.1 of uvicorn with what it lacks: a limit on the size of request headers, also of callers that nobody knows."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 64 * 1024
"""Bytes of a request before its body."""


class LimitedProtocol(HttpToolsProtocol):
    """Answers 400 and closes when the headers go on for too long, in many fields or in one."""

    _in_headers = False
    _header_bytes = 0

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_headers or self.transport.is_closing():
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADERS:
            self.send_400_response(f"Request headers of more than {MAX_HEADERS} bytes.")
