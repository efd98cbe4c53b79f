"""What every handler needs of the server, and how a request is read within its limits."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request

from cuboid.kube import status
from cuboid.kube.registry import DeleteOptions, Registry, WriteOptions
from cuboid.lib.aio import deadline
from cuboid.server import protobuf
from cuboid.server.security import Security
from cuboid.server.settings import ServerSettings

_VALIDATION = ("Ignore", "Strict", "Warn")


@dataclass
class Context:
    """`kubelet` is the TLS context with which nodes are called; `stopping` ends watches."""

    registry: Registry
    settings: ServerSettings
    security: Security
    kubelet: ssl.SSLContext | None = None
    stopping: bool = False
    node_socket: Callable[[int], Path] | None = None  # by port, of a node agent on this machine
    boot_id: str = ""  # of this machine


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """The body, limited in size and time."""
    limit = settings.body_limit
    if int(request.headers.get("content-length") or 0) > limit:
        raise status.too_large(limit)
    chunks, size = [], 0
    async with deadline(settings.body_seconds, "sending the request body"):
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise status.too_large(limit)
            chunks.append(chunk)
    return b"".join(chunks)


def parse_json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise status.bad_request(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise status.bad_request("the body is nested too deeply") from error


async def read_object(request: Request, settings: ServerSettings) -> Any:
    """The body, decoded from JSON or, for the few kinds that come so, from protobuf."""
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if media not in ("application/json", protobuf.MEDIA):
        raise status.unsupported_media(
            f"the body of the request was in an unknown format ({media[:80]}): send application/json"
        )
    data = await read_body(request, settings)
    return protobuf.decode(data) if media == protobuf.MEDIA else parse_json(data)


def write_options(request: Request) -> WriteOptions:
    query = request.query_params
    validation = query.get("fieldValidation") or "Warn"
    if validation not in _VALIDATION:
        raise status.bad_request(f'fieldValidation: Unsupported value: "{validation[:50]}"')
    return WriteOptions(
        dry_run=dry_run(query.get("dryRun", "")),
        validation=validation,
        user=request.scope["user"],
        manager=query.get("fieldManager", "") or _manager(request),
        force=flag(query, "force"),
    )


def _manager(request: Request) -> str:
    """Who names no field manager is known by the beginning of its User-Agent, as in Kubernetes."""
    return request.headers.get("user-agent", "").partition("/")[0][:128]


def dry_run(value: str) -> bool:
    if value not in ("", "All"):
        raise status.bad_request(f'dryRun: Unsupported value: "{value[:50]}": supported values: "All"')
    return value == "All"


async def delete_options(request: Request, settings: ServerSettings) -> DeleteOptions:
    """From the body, if there is one, else from the query."""
    query = request.query_params
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = await read_object(request, settings) if has_body else {}
    if not isinstance(body, dict):
        raise status.bad_request("DeleteOptions must be an object")
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    preconditions = body.get("preconditions") or {}
    dry = body.get("dryRun") or ([query["dryRun"]] if "dryRun" in query else [])
    if not isinstance(preconditions, dict) or not isinstance(dry, list):
        raise status.bad_request("DeleteOptions are malformed")
    propagation = body.get("propagationPolicy", query.get("propagationPolicy")) or ""
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise status.bad_request(f'propagationPolicy: Unsupported value: "{str(propagation)[:50]}"')
    return DeleteOptions(
        grace=None if grace is None else number(grace, "gracePeriodSeconds"),
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
        dry_run=dry_run(str(dry[0]) if dry else ""),
        propagation=propagation,
        user=request.scope["user"],
    )


def number(value: Any, name: str) -> int:
    """A whole number from a query or a body."""
    try:
        if isinstance(value, bool):
            raise ValueError("a bool")
        found = int(value)
    except (TypeError, ValueError) as error:
        raise status.bad_request(f"{name}: Invalid value: {str(value)[:50]!r}: must be an integer") from error
    if not -(2**63) <= found < 2**63:
        raise status.bad_request(f"{name}: Invalid value: out of range")
    return found


def flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true", "t")
