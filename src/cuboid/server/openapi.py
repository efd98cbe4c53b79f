"""OpenAPI of what is served, versions 2 and 3: for `kubectl explain`, completion, validation and generated clients.

A document is made when it is first asked for, in a thread, and kept as compressed bytes until the kinds change. Its
hash is that of what it is made from, so that the index is cheap and clients can keep documents for ever.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cuboid import __version__
from cuboid.kube import schema
from cuboid.kube.cache import encode
from cuboid.kube.kinds import Kind, Kinds
from cuboid.lib.threads import in_thread
from cuboid.server import openapi_paths, openapi_protobuf, openapi_schemas
from cuboid.server.context import Context
from cuboid.server.openapi_schemas import V2, V3
from cuboid.server.paths import unknown_path
from cuboid.server.render import document_answer
from cuboid.server.virtual import METRICS, VIRTUAL, Virtual

_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_FOR_EVER = "public, immutable, max-age=31536000"
_JSON = "application/json"
Place = tuple[str, str]  # group, version


@dataclass
class _Documents:
    """What was made for one server, of the kinds that it had at one time."""

    changes: int = -1
    hashes: dict[Place, str] = field(default_factory=dict)
    made: dict[tuple[str, ...], bytes] = field(default_factory=dict)  # compressed
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


_documents: WeakKeyDictionary[Kinds, _Documents] = WeakKeyDictionary()


def _current(context: Context) -> _Documents:
    kinds = context.registry.kinds
    found = _documents.setdefault(kinds, _Documents())
    if found.changes != kinds.changes:
        found.changes, found.hashes = kinds.changes, _hashes(kinds)
        found.made.clear()
    return found


def _hashes(kinds: Kinds) -> dict[Place, str]:
    rows: dict[Place, list[str]] = {}
    for kind in kinds:
        row = repr((kind.kind, kind.plural, kind.namespaced, kind.verbs, kind.subresources, kind.custom_schema))
        rows.setdefault((kind.group, kind.version), []).append(row)
    for virtual in VIRTUAL:
        rows.setdefault((virtual.group, virtual.version), []).append(repr(virtual))
    return {place: _hash(f"{schema.VERSION}/{__version__}/", *found) for place, found in rows.items()}


def _hash(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest().upper()


def _path(place: Place) -> str:
    return f"apis/{place[0]}/{place[1]}" if place[0] else f"api/{place[1]}"


async def index(request: Request, context: Context) -> Response:
    hashes = _current(context).hashes
    paths = {_path(place): {"serverRelativeURL": f"/openapi/v3/{_path(place)}?hash={h}"} for place, h in hashes.items()}
    return document_answer({"paths": paths})


async def v3(request: Request, context: Context) -> Response:
    documents, wanted = _current(context), request.path_params["path"]
    place = next((place for place in documents.hashes if _path(place) == wanted), None)
    if place is None:
        raise unknown_path()
    current, asked = documents.hashes[place], request.query_params.get("hash", "")
    if asked and asked != current:
        return RedirectResponse(f"/openapi/v3/{wanted}?hash={current}", 301)

    def make() -> bytes:
        return encode(document_v3(context.registry.kinds, place))

    headers = (
        {"Cache-Control": "public, immutable, max-age=31536000"} if asked else {"Cache-Control": "no-cache, private"}
    )
    return await _answer(request, documents, (*place, "v3"), make, current, _JSON, headers)


async def v2(request: Request, context: Context) -> Response:
    """As JSON, or as protobuf for a client that names it first."""
    documents = _current(context)
    tag = _hash(*documents.hashes.values())
    accept = request.headers.get("accept", "")
    if _V2_PROTOBUF in accept:

        def make() -> bytes:
            return openapi_protobuf.document(document_v2(context.registry.kinds))

        media = _V2_PROTOBUF.replace("@", ".")
    else:

        def make() -> bytes:
            return encode(document_v2(context.registry.kinds))

        media = _JSON
    return await _answer(request, documents, ("v2", media), make, f"{tag}{len(media)}", media, {})


async def _answer(
    request: Request, documents: _Documents, key: tuple[str, ...], make: Callable[[], bytes], tag: str, media: str,
    headers: dict[str, str],
) -> Response:  # fmt: skip
    headers = {**headers, "ETag": f'"{tag}"', "Vary": "Accept, Accept-Encoding"}
    if f'"{tag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    async with documents.lock:  # one at a time: making one takes memory
        packed = documents.made.get(key)
        if packed is None:
            packed = await in_thread(lambda: gzip.compress(make(), 5, mtime=0))
            documents.made[key] = packed
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type=media, headers={**headers, "Content-Encoding": "gzip"})
    return Response(gzip.decompress(packed), media_type=media, headers=headers)


def _info() -> dict[str, str]:
    return {"title": "Kubernetes", "version": f"v{schema.VERSION}.0"}


def document_v3(kinds: Kinds, place: Place) -> dict[str, object]:
    """Of one group and version."""
    served = [kind for kind in (*kinds, *METRICS) if (kind.group, kind.version) == place]
    virtual = [row for row in VIRTUAL if (row.group, row.version) == place and row.definition]
    names = (*openapi_paths.BODIES, *(row.definition for row in virtual))
    return {
        "openapi": "3.0.0",
        "info": _info(),
        "paths": _paths(served, virtual, V3),
        "components": {
            "schemas": openapi_schemas.definitions(served, names, V3),
            "securitySchemes": {"BearerToken": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"BearerToken": []}],
    }


def document_v2(kinds: Kinds) -> dict[str, object]:
    """Of everything."""
    served, virtual = [*kinds, *METRICS], [row for row in VIRTUAL if row.definition]
    names = (*openapi_paths.BODIES, *(row.definition for row in virtual))
    return {
        "swagger": "2.0",
        "info": _info(),
        "paths": _paths(served, virtual, V2),
        "definitions": openapi_schemas.definitions(served, names, V2),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    }


def _paths(served: list[Kind], virtual: list[Virtual], prefix: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for kind in served:
        found.update(openapi_paths.paths(kind, prefix))
    for row in virtual:
        found.update(openapi_paths.virtual_paths(row, prefix))
    return found
