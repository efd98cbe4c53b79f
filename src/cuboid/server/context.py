"""What every handler needs of the server, and how a request is read within its limits."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.requests import Request

from cuboid.kube import status
from cuboid.kube.deletion import POLICIES
from cuboid.kube.fields import FieldError
from cuboid.kube.registry import APPLY, DeleteOptions, Registry, WriteOptions
from cuboid.server import bodies
from cuboid.server.bodies import JSON
from cuboid.server.security import Security
from cuboid.server.settings import ServerSettings

_VALIDATION = ("Ignore", "Strict", "Warn")
MAX_MANAGER = 128
"""Bytes of the name of a field manager."""


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
    """The body, limited in size; `Edge` limits its time."""
    limit = settings.body_limit
    if int(request.headers.get("content-length") or 0) > limit:
        raise status.too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise status.too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def media_of(request: Request) -> str:
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower() or JSON


async def read_object(request: Request, settings: ServerSettings) -> Any:
    """The body, decoded from JSON, YAML or, for the few kinds that come so, from protobuf."""
    return bodies.parse(await read_body(request, settings), media_of(request)).value


async def read_written(request: Request, settings: ServerSettings) -> tuple[Any, WriteOptions]:
    """An object that is to be written, and how."""
    options = write_options(request)
    body = bodies.parse(await read_body(request, settings), media_of(request))
    return body.value, replace(options, duplicates=body.duplicates)


async def read_patch(request: Request, settings: ServerSettings) -> tuple[Any, str, WriteOptions]:
    """A patch, its form, and how it is to be written."""
    form = media_of(request)
    options = write_options(request)
    if form != APPLY and "force" in request.query_params:
        error = FieldError("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch")
        raise status.invalid("PatchOptions", "meta.k8s.io", "", [error])
    data = await read_body(request, settings)
    body = bodies.parse_apply(data) if form == APPLY else bodies.parse_json(data)
    if form == APPLY:
        options = replace(options, manager=request.query_params.get("fieldManager", ""))
    return body.value, form, replace(options, duplicates=body.duplicates)


def write_options(request: Request) -> WriteOptions:
    query = request.query_params
    validation = query.get("fieldValidation") or "Warn"
    if validation not in _VALIDATION:
        raise status.bad_request(f'fieldValidation: Unsupported value: "{validation[:50]}"')
    return WriteOptions(
        dry_run=dry_run(query.get("dryRun", "")),
        validation=validation,
        user=request.scope["user"],
        manager=_given_manager(query.get("fieldManager", "")) or _manager(request),
        force=flag(query, "force"),
    )


def _given_manager(name: str) -> str:
    error = None
    if len(name.encode()) > MAX_MANAGER:
        error = FieldError("FieldValueTooLong", "fieldManager", f"Too long: may not be more than {MAX_MANAGER} bytes")
    elif not name.isprintable():
        text = "Invalid value: should only contain printable characters"
        error = FieldError("FieldValueInvalid", "fieldManager", text)
    if error is not None:
        raise status.invalid("PatchOptions", "meta.k8s.io", "", [error])
    return name


def _manager(request: Request) -> str:
    """Who names no field manager is known by the beginning of its User-Agent, as in Kubernetes."""
    name = request.headers.get("user-agent", "").partition("/")[0]
    return "".join(letter for letter in name if letter.isprintable())[:MAX_MANAGER]


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
    propagation = _propagation(body, query)
    return DeleteOptions(
        grace=None if grace is None else number(grace, "gracePeriodSeconds"),
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
        dry_run=dry_run(str(dry[0]) if dry else ""),
        propagation=propagation,
        user=request.scope["user"],
    )


def _propagation(body: Mapping[str, Any], query: Mapping[str, str]) -> str:
    """`propagationPolicy`, or the older `orphanDependents`, not both."""
    policy = body.get("propagationPolicy", query.get("propagationPolicy")) or ""
    orphan = body.get("orphanDependents", query.get("orphanDependents"))
    if policy and orphan is not None:
        text = "Invalid value: OrphanDependents and DeletionPropagation cannot be both set"
        error = FieldError("FieldValueInvalid", "propagationPolicy", text)
        raise status.invalid("DeleteOptions", "meta.k8s.io", "", [error])
    if orphan is not None:
        return "Orphan" if str(orphan).lower() in ("1", "true", "t") else "Background"
    if not isinstance(policy, str) or (policy and policy not in POLICIES):
        raise status.unsupported_propagation(policy)
    return policy


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
