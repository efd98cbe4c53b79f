"""Answers in the form a client asked for: the object, a Table, or its metadata alone."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cuboid.kube.cache import Change, Entry, encode
from cuboid.kube.kinds import Kind
from cuboid.kube.pages import Page
from cuboid.kube.status import to_status
from cuboid.kube.tables import META, partial, row, table
from cuboid.lib.errors import CuboidError, InvalidError

JSON = "application/json"
LAST = {"Connection": "close"}
"""Headers of an answer that refuses a WebSocket: nothing follows it on its connection."""
PIECE = 128 * 1024
"""Bytes of a long answer that are made and sent at once."""
_AS = re.compile(r";\s*as=(\w+)")
_KNOWN = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


def accepted(header: str) -> str:
    """The first form in an Accept header that we have: "" for the object, Table, PartialObjectMetadata."""
    for part in (header or JSON).split(","):
        media = part.partition(";")[0].strip()
        if media not in (JSON, "application/*", "*/*"):
            continue
        form = _AS.search(part)
        if form is None:
            return ""
        if form[1] in _KNOWN and ("v=v1" in part and "v=v1beta1" not in part):
            return form[1].removesuffix("List")
    raise InvalidError(
        "only application/json is served, also as Table or PartialObjectMetadata", reason="NotAcceptable"
    )


class Renderer:
    """`include` is the query parameter `includeObject` of tables."""

    def __init__(self, kind: Kind, accept: str, include: str) -> None:
        self.kind = kind
        self.form = accepted(accept)
        self._include = include or "Metadata"
        self._verbatim = not self.form and kind.verbatim

    def _document(self, entry: Entry) -> dict[str, Any]:
        return self.kind.from_storage(entry.object())

    def _shaped(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.form == "Table":
            version = {"resourceVersion": document["metadata"].get("resourceVersion", "")}
            return table(self.kind, [document], version, self._include, time.time())
        return partial(document) if self.form else document

    def entry(self, entry: Entry) -> bytes:
        return entry.raw if self._verbatim else encode(self._shaped(self._document(entry)))

    def object(self, document: Mapping[str, Any]) -> bytes:
        return encode(self._shaped(document))

    def page(self, page: Page) -> Iterator[bytes]:
        """A list, item by item: a long one is never whole in memory."""
        metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
        if page.token:
            metadata["continue"] = page.token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        if self.form == "Table":
            yield from self._rows(page, metadata)
            return
        name, version = self.kind.list_kind, self.kind.api_version
        if self.form:
            name, version = "PartialObjectMetadataList", META
        head = encode({"kind": name, "apiVersion": version, "metadata": metadata})
        yield head[:-1] + b',"items":['
        yield from _listed(self.entry(entry) for entry in page.entries)
        yield b"]}"

    def _rows(self, page: Page, metadata: Mapping[str, Any]) -> Iterator[bytes]:
        now = time.time()
        head = encode(table(self.kind, (), metadata, self._include, now))  # ends with an empty list of rows
        yield head[:-2]
        yield from _listed(encode(row(self.kind, self._document(entry), self._include, now)) for entry in page.entries)
        yield b"]}"

    @property
    def same(self) -> tuple[str, str, str]:
        """Equal for those that answer in the same form."""
        return self.kind.api_version, self.form, self._include

    def events(self, changes: Iterable[tuple[str, Change]]) -> bytes:
        """The lines of a watch."""
        if self._verbatim:
            return b"".join(change.line(kind) for kind, change in changes)
        return b"".join(line(kind, self.entry(change.entry)) for kind, change in changes)

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        document: Mapping[str, Any] = {
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version,
            "metadata": metadata,
        }
        if self.form == "Table":
            document = table(self.kind, [], {"resourceVersion": str(revision)}, self._include, 0.0)
            row = {"cells": [None] * len(self.kind.columns), "object": partial({"metadata": metadata})}
            document = {**document, "rows": [row]}
        elif self.form:
            document = partial({"metadata": metadata})
        return line("BOOKMARK", encode(document))


def line(kind: str, document: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), document)


def _listed(items: Iterable[bytes]) -> Iterator[bytes]:
    first = True
    for item in items:
        yield item if first else b"," + item
        first = False


class _Long(Response):
    """An answer that is made while it is sent, with others' work in between."""

    def __init__(self, first: bytes, rest: Iterator[bytes]) -> None:
        super().__init__(media_type=JSON)
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        piece = self._first
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
            piece = _piece(self._rest)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def pieces(items: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, about `PIECE` at a time."""
    while piece := _piece(items):
        yield piece


def _piece(items: Iterator[bytes]) -> bytes:
    """About `PIECE` bytes, b"" at the end."""
    gathered, size = [], 0
    for item in items:
        gathered.append(item)
        size += len(item)
        if size >= PIECE:
            break
    return b"".join(gathered)


def answer(body: bytes | Iterator[bytes], code: int = 200, warnings: tuple[str, ...] = ()) -> Response:
    """`body` in pieces is sent as it is made, if it is long."""
    if not isinstance(body, bytes):
        first = _piece(body)
        if len(first) >= PIECE:
            return _Long(first, body)
        body = first
    response = Response(body, code, media_type=JSON)
    for warning in warnings:
        warned(response, warning)
    return response


def warned(response: Response, warning: str) -> Response:
    """With one more warning, which clients print."""
    quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
    response.headers.append("Warning", f'299 - "{_ascii(quoted)}"')
    return response


def _ascii(text: str) -> str:
    """A header carries one line of Latin-1; what is not printable ASCII is left out."""
    return "".join(letter for letter in text[:500] if " " <= letter <= "~")


def document_answer(document: Mapping[str, Any], code: int = 200) -> Response:
    return answer(encode(document), code)


def failure(error: CuboidError) -> Response:
    code, body = to_status(error)
    response = answer(encode(body), code)
    retry = error.details.get("retryAfterSeconds")
    if retry:
        response.headers["Retry-After"] = str(retry)
    if code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
