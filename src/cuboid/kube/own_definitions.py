"""Tenant and Token as CustomResourceDefinitions: on a real cluster, which does not have them built in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from cuboid.kube import tenants
from cuboid.kube.client import DEFINITIONS, Client
from cuboid.kube.own import DEFINITIONS as SCHEMAS
from cuboid.kube.own import Schema
from cuboid.lib.errors import AlreadyExistsError, CuboidError, DeadlineError, NotFoundError
from cuboid.lib.log import get_log

Object = dict[str, Any]
log = get_log(__name__)
SERVED_SECONDS = 30.0
AGAIN_SECONDS = 5.0
_LOOK_AGAIN = 0.2  # seconds
_LEAVES: dict[str, Schema] = {
    "ObjectMeta": {"type": "object"},
    "Time": {"type": "string", "format": "date-time"},
    "Quantity": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
    "LimitRangeItem": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
_DROPPED = ("x-kubernetes-patch-strategy", "x-kubernetes-group-version-kind")


def custom_resources() -> Iterator[Object]:
    """The definitions to create."""
    for kind, has_status in (("Tenant", True), ("Token", False)):
        plural = f"{kind.lower()}s"
        version: Object = {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": _structural(SCHEMAS[f"dev.cuboid.v1.{kind}"])},
        }
        names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{tenants.GROUP}"},
            "spec": {
                "group": tenants.GROUP,
                "scope": "Cluster",
                "names": names,
                "versions": [{**version, "subresources": {"status": {}}} if has_status else version],
            },
        }


def _structural(raw: Schema) -> Schema:
    """References put in place, and what only patches of built-in kinds know left out."""
    if "$ref" in raw:
        name = raw["$ref"].rpartition("/")[2]
        leaf = _LEAVES.get(name.rpartition(".")[2])
        return dict(leaf) if leaf is not None else _structural(SCHEMAS[name])
    made = {key: value for key, value in raw.items() if key not in _DROPPED}
    if "properties" in made:
        made["properties"] = {key: _structural(value) for key, value in made["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in made:
            made[key] = _structural(made[key])
    return made


async def ensure_served(client: Client) -> None:
    """Create them where nobody serves tenants. DeadlineError when they do not come to be served."""
    if await _served(client):
        return
    for definition in custom_resources():
        with suppress(AlreadyExistsError):
            await client.create(DEFINITIONS, definition)
    until = time.monotonic() + SERVED_SECONDS
    while not await _served(client):
        if time.monotonic() > until:
            raise DeadlineError("the cluster does not serve tenants.cuboid.dev", hint="kubectl describe crd")
        await asyncio.sleep(_LOOK_AGAIN)


async def until_served(client: Client) -> None:
    """As `ensure_served`, as often as it takes."""
    while True:
        try:
            return await ensure_served(client)
        except CuboidError as error:
            log.warning("tenants are not served yet", error=str(error))
        await asyncio.sleep(AGAIN_SECONDS)


async def _served(client: Client) -> bool:
    try:
        for resource in (tenants.TENANTS, tenants.TOKENS):
            await client.list(resource, limit=1)
    except NotFoundError:
        return False
    return True
