"""HTTP verbs on resources: which method on which URL is which verb of the registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import selectors, status
from cuboid.kube.cache import Filter, encode
from cuboid.kube.registry import Result
from cuboid.kube.subwrites import WHOLE
from cuboid.server import subresources
from cuboid.server.context import (
    Context,
    delete_options,
    flag,
    number,
    read_patch,
    read_written,
)
from cuboid.server.paths import Target, parse
from cuboid.server.render import Renderer, answer, warned
from cuboid.server.watching import watch

Handler = Callable[[Request, Context, Target], Awaitable[Response]]


async def handle(request: Request, context: Context) -> Response:
    if bindings := subresources.BINDINGS.fullmatch(request.scope["path"]):
        return await subresources.bind(request, context, bindings[1])
    target = parse(request.scope["path"], context.registry.kinds)
    response = await _answered(request, context, target)
    return warned(response, target.kind.warning) if target.kind.warning else response


async def _answered(request: Request, context: Context, target: Target) -> Response:
    if target.sub and target.sub not in WHOLE:
        return await subresources.handle(request, context, target)
    table = _OBJECT if target.name else _COLLECTION
    handler = table.get(request.method)
    if handler is None or (target.sub and request.method not in ("GET", "PUT", "PATCH")):
        raise status.method_not_allowed()
    return await handler(request, context, target)


def renderer(request: Request, target: Target) -> Renderer:
    return Renderer(target.kind, request.headers.get("accept", ""), request.query_params.get("includeObject", ""))


def wanted(request: Request, target: Target) -> Filter:
    """The namespace of the URL with the selectors of the query."""
    query = request.query_params
    known = target.kind.strategy.selectable({"metadata": {}})
    labels = selectors.parse_labels(query.get("labelSelector", ""))
    fields = selectors.parse_fields(query.get("fieldSelector", ""), known)
    return Filter(target.namespace, labels, fields)


async def _get(request: Request, context: Context, target: Target) -> Response:
    context.registry.check_reached(request.query_params.get("resourceVersion", ""))
    entry = context.registry.entry(target.kind, target.namespace, target.name)
    return answer(renderer(request, target).entry(entry))


async def _list(request: Request, context: Context, target: Target) -> Response:
    query = request.query_params
    render, selection = renderer(request, target), wanted(request, target)
    if flag(query, "watch"):
        return watch(request, context, target.kind, selection, render)
    page = context.registry.list(
        target.kind,
        selection,
        limit=max(0, number(query.get("limit") or 0, "limit")),
        token=query.get("continue", ""),
        version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        initial="sendInitialEvents" in query,
    )
    return answer(render.page(page))


async def _create(request: Request, context: Context, target: Target) -> Response:
    if target.kind.namespaced and not target.namespace:
        raise status.bad_request("an object of this kind is created in a namespace")
    body, options = await read_written(request, context.settings)
    result = await context.registry.create(target.kind, target.namespace, body, options)
    return _written(request, target, result)


async def _update(request: Request, context: Context, target: Target) -> Response:
    body, options = await read_written(request, context.settings)
    result = await context.registry.update(target.kind, target.namespace, target.name, body, options, target.sub)
    return _written(request, target, result)


async def _patch(request: Request, context: Context, target: Target) -> Response:
    body, form, options = await read_patch(request, context.settings)
    result = await context.registry.patch(target.kind, target.namespace, target.name, body, form, options, target.sub)
    return _written(request, target, result)


def _written(request: Request, target: Target, result: Result) -> Response:
    code = 201 if result.created else 200
    request.scope["object"] = result.object["metadata"].get("name", "")  # for the audit log
    return answer(renderer(request, target).object(result.object), code, result.warnings)


async def _delete(request: Request, context: Context, target: Target) -> Response:
    options = await delete_options(request, context.settings)
    result = await context.registry.delete(target.kind, target.namespace, target.name, options)
    kind = target.kind
    if result.gone and kind.kind != "Pod":
        uid = result.object["metadata"]["uid"]
        return answer(encode(status.success(name=target.name, group=kind.group, kind=kind.plural, uid=uid)))
    return answer(renderer(request, target).object(result.object))


async def _delete_collection(request: Request, context: Context, target: Target) -> Response:
    if "deletecollection" not in target.kind.verbs or (target.kind.namespaced and not target.namespace):
        raise status.method_not_allowed()
    options = await delete_options(request, context.settings)
    page = await context.registry.delete_collection(target.kind, wanted(request, target), options)
    return answer(renderer(request, target).page(page))


_COLLECTION: dict[str, Handler] = {"GET": _list, "POST": _create, "DELETE": _delete_collection}
_OBJECT: dict[str, Handler] = {"GET": _get, "PUT": _update, "PATCH": _patch, "DELETE": _delete}
