"""OpenAPI v2 and v3 of what is served: enough for `kubectl explain`, completion and client-side checks.

Made from the schemas on each request and not kept: clients ask once and cache by the hash in the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cuboid import __version__
from cuboid.kube import kinds, schema
from cuboid.kube.cache import encode
from cuboid.kube.kinds import Kind
from cuboid.server.context import Context
from cuboid.server.paths import unknown_path
from cuboid.server.render import answer, document_answer

_V3 = "#/components/schemas/"
_V2 = "#/definitions/"
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def _places() -> dict[str, list[Kind]]:
    """`api/v1`, `apis/coordination.k8s.io/v1`: the kinds of each."""
    found: dict[str, list[Kind]] = {}
    for kind in kinds.KINDS:
        place = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
        found.setdefault(place, []).append(kind)
    return found


async def index(request: Request, context: Context) -> Response:
    version = hashlib.sha256(f"{schema.VERSION}/{__version__}".encode()).hexdigest()[:32]
    paths = {place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={version}"} for place in _places()}
    return document_answer({"paths": paths})


async def v3(request: Request, context: Context) -> Response:
    served = _places().get(request.path_params["path"])
    if served is None:
        raise unknown_path()
    document = {
        "openapi": "3.0.0",
        "info": _info(),
        "paths": {path: item for kind in served for path, item in _paths(kind, _V3).items()},
        "components": {"schemas": _definitions(served, _V3)},
    }
    return answer(encode(document))


async def v2(request: Request, context: Context) -> Response:
    """As JSON. kubectl asks for protobuf, and only for kinds that v3 does not have: it gets an empty document."""
    if _V2_PROTOBUF in request.headers.get("accept", ""):
        return Response(b"", media_type=_V2_PROTOBUF.replace("@", "."))
    document = {
        "swagger": "2.0",
        "info": _info(),
        "paths": {path: item for kind in kinds.KINDS for path, item in _paths(kind, _V2).items()},
        "definitions": _definitions(kinds.KINDS, _V2),
    }
    return answer(encode(document))


def _info() -> dict[str, str]:
    return {"title": "Cuboid", "version": f"v{schema.VERSION}.0"}


def _paths(kind: Kind, prefix: str) -> dict[str, Any]:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    base += ("/namespaces/{namespace}" if kind.namespaced else "") + f"/{kind.plural}"
    body = {"$ref": prefix + kind.definition}
    one, many = base + "/{name}", base
    return {
        many: {"get": _operation(kind, "list", body, prefix), "post": _operation(kind, "post", body, prefix)},
        one: {
            "get": _operation(kind, "get", body, prefix),
            "put": _operation(kind, "put", body, prefix),
            "patch": _operation(kind, "patch", body, prefix),
            "delete": _operation(kind, "delete", body, prefix),
        },
    }


def _operation(kind: Kind, action: str, body: dict[str, str], prefix: str) -> dict[str, Any]:
    answer_ = {"schema": body} if prefix == _V2 else {"content": {"application/json": {"schema": body}}}
    parameters = [
        {"name": name, "in": "query", **({"type": "string"} if prefix == _V2 else {"schema": {"type": "string"}})}
        for name in ("dryRun", "fieldManager", "fieldValidation", "pretty")
    ]
    return {
        "operationId": f"{action}{kind.group.split('.')[0].title() or 'Core'}{kind.version.title()}{kind.kind}",
        "parameters": parameters if action in ("post", "put", "patch") else [],
        "responses": {"200": {"description": "OK", **answer_}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    }


def _definitions(served: Iterable[Kind], prefix: str) -> dict[str, Any]:
    """Everything that these kinds reach, in OpenAPI's form."""
    raw = schema.definitions()
    found: dict[str, Any] = {}
    waiting = [kind.definition for kind in served]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _converted(raw[name], prefix, waiting)
    return found


def _converted(value: Any, prefix: str, names: list[str]) -> Any:
    """References renamed, `null` taken out of types."""
    if isinstance(value, list):
        return [_converted(item, prefix, names) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if key == "$ref" and isinstance(item, str):
            names.append(item.rpartition("/")[2])
            result[key] = prefix + names[-1]
        elif key == "type" and isinstance(item, list):
            result[key] = next((kind for kind in item if kind != "null"), "object")
        elif key == "oneOf" and prefix == _V2:
            result["type"] = "string"
        else:
            result[key] = _converted(item, prefix, names)
    return result
