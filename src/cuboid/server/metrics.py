"""`metrics.k8s.io/v1beta1` for `kubectl top`, made from each node's `/stats/summary`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import quantity, selectors, status
from cuboid.kube.cache import Entry, Filter
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.server import nodes
from cuboid.server.context import Context
from cuboid.server.paths import unknown_path
from cuboid.server.render import document_answer

log = get_log(__name__)

SECONDS = 5.0
"""Time for a node to answer."""
WINDOW = "10s"
_API = "metrics.k8s.io/v1beta1"
Raw = Mapping[str, Any]


async def handle(request: Request, context: Context) -> Response:
    parts = [part for part in request.path_params["path"].split("/") if part]
    labels = selectors.parse_labels(request.query_params.get("labelSelector", ""))
    if parts[:1] == ["nodes"] and len(parts) <= 2:
        return await _nodes(context, labels, "".join(parts[1:]))
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) >= 3:
        namespace, parts = parts[1], parts[2:]
    if parts[:1] == ["pods"] and len(parts) <= 2:
        return await _pods(context, Filter(namespace, labels), "".join(parts[1:]))
    raise unknown_path()


async def _nodes(context: Context, labels: selectors.Selector, name: str) -> Response:
    summaries = await _summaries(context)
    entries = context.registry.of(nodes.NODE).select(Filter("", labels))
    items = [_node(entry, summaries[entry.key.name]) for entry in entries if entry.key.name in summaries]
    return _answer("NodeMetrics", items, name, "nodes")


async def _pods(context: Context, wanted: Filter, name: str) -> Response:
    measured = {
        (pod["podRef"]["namespace"], pod["podRef"]["name"]): pod
        for summary in (await _summaries(context)).values()
        for pod in summary.get("pods", [])
        if isinstance(pod, dict) and isinstance(pod.get("podRef"), dict)
    }
    entries = context.registry.of(nodes.POD).select(wanted)
    places = ((entry, measured.get((entry.key.namespace, entry.key.name))) for entry in entries)
    return _answer("PodMetrics", [_pod(entry, pod) for entry, pod in places if pod], name, "pods")


def _answer(kind: str, items: list[dict[str, Any]], name: str, resource: str) -> Response:
    if not name:
        document = {"kind": f"{kind}List", "apiVersion": _API, "metadata": {}, "items": items}
        return document_answer(document)
    found = next((item for item in items if item["metadata"]["name"] == name), None)
    if found is None:
        raise status.not_found(f"{resource}.metrics.k8s.io", "", name)
    return document_answer({"kind": kind, "apiVersion": _API, **found})


def _node(entry: Entry, summary: Raw) -> dict[str, Any]:
    return {"metadata": _metadata(entry), **_moment(), "usage": _usage(summary.get("node", {}))}


def _pod(entry: Entry, pod: Raw) -> dict[str, Any]:
    containers = [
        {"name": item.get("name", ""), "usage": _usage(item)}
        for item in pod.get("containers", [])
        if isinstance(item, dict)
    ]
    return {"metadata": _metadata(entry), **_moment(), "containers": containers}


def _metadata(entry: Entry) -> dict[str, Any]:
    metadata = {"name": entry.key.name, "creationTimestamp": rfc3339(time.time()), "labels": entry.labels}
    return {**metadata, "namespace": entry.key.namespace} if entry.key.namespace else metadata


def _moment() -> dict[str, str]:
    return {"timestamp": rfc3339(time.time()), "window": WINDOW}


def _usage(item: Raw) -> dict[str, str]:
    nanos = _count(item.get("cpu"), "usageNanoCores")
    return {
        "cpu": quantity.canonical(f"{nanos}n"),
        "memory": f"{_count(item.get('memory'), 'workingSetBytes') // 1024}Ki",
    }


def _count(holder: Any, key: str) -> int:
    value = holder.get(key, 0) if isinstance(holder, dict) else 0
    return value if isinstance(value, int) and value >= 0 else 0


async def _summaries(context: Context) -> dict[str, Raw]:
    """By node; a node that does not answer is left out."""
    entries = context.registry.of(nodes.NODE).select(Filter())
    async with httpx.AsyncClient(verify=context.kubelet or True, timeout=SECONDS) as client:
        found = await asyncio.gather(*(_summary(client, entry) for entry in entries))
    return {entry.key.name: summary for entry, summary in zip(entries, found, strict=True) if summary is not None}


async def _summary(client: httpx.AsyncClient, entry: Entry) -> Raw | None:
    try:
        answer = await client.get(f"{nodes.endpoint(entry.object()).base}/stats/summary")
        answer.raise_for_status()
        summary = answer.json()
    except (CuboidError, httpx.HTTPError, ValueError) as error:
        log.info("a node gave no metrics", node=entry.key.name, error=str(error))
        return None
    return summary if isinstance(summary, dict) else None
