"""Answers in the form a client asked for: the object, a Table, or its metadata alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from cuboid.kube.cache import Change, Entry, encode
from cuboid.kube.kinds import Kind
from cuboid.kube.pages import Page
from cuboid.kube.status import to_status
from cuboid.kube.tables import META, partial, table
from cuboid.lib.errors import CuboidError, InvalidError

JSON = "application/json"
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
        self._verbatim = not self.form and not kind.storage[1]

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

    def page(self, page: Page) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
        if page.token:
            metadata["continue"] = page.token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        if self.form == "Table":
            documents = (self._document(entry) for entry in page.entries)
            return encode(table(self.kind, documents, metadata, self._include, time.time()))
        name, version = f"{self.kind.kind}List", self.kind.api_version
        if self.form:
            name, version = "PartialObjectMetadataList", META
        head = encode({"kind": name, "apiVersion": version, "metadata": metadata})
        items = b",".join(self.entry(entry) for entry in page.entries)
        return head[:-1] + b',"items":[' + items + b"]}"

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


def answer(body: bytes, code: int = 200, warnings: tuple[str, ...] = ()) -> Response:
    response = Response(body, code, media_type=JSON)
    for warning in warnings:
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
