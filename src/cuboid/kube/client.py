"""An asynchronous client of the Kubernetes API: ours or a real one.

Works on plain JSON objects. Errors are those of `cuboid.lib.errors`, made from the server's Status; every call has a
deadline. A resource is named by its collection: `PODS`, or `Resource("apps", "v1", "deployments")`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from cuboid.kube.status import from_status
from cuboid.kube.transport import Transport
from cuboid.lib.aio import deadline, within
from cuboid.lib.errors import CuboidError, GoneError, UnavailableError

Object = dict[str, Any]
SECONDS = 30.0
"""Deadline of a call that names none."""
MAX_LINE = 8 * 1024 * 1024
"""Longest event of a watch, bytes."""
_WATCH_SECONDS = 300
_IDLE_SECONDS = 330.0  # more than a watch lives: then the connection is dead
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
"""Server-side apply: the body is what this client wants to own, as its field manager."""


@dataclass(frozen=True)
class Resource:
    """A collection of the API; `cluster` for what is in no namespace."""

    group: str
    version: str
    plural: str
    cluster: bool = False

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """`namespace` "" is the collection over all namespaces."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and not self.cluster:
            parts += ["namespaces", namespace]
        return "/" + "/".join(part for part in (*parts, self.plural, name, sub) if part)


PODS = Resource("", "v1", "pods")
NODES = Resource("", "v1", "nodes", cluster=True)
NAMESPACES = Resource("", "v1", "namespaces", cluster=True)
SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
EVENTS = Resource("", "v1", "events")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
SERVICES = Resource("", "v1", "services")
ENDPOINTS = Resource("", "v1", "endpoints")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
VOLUMES = Resource("", "v1", "persistentvolumes", cluster=True)
VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims")
QUOTAS = Resource("", "v1", "resourcequotas")
LIMIT_RANGES = Resource("", "v1", "limitranges")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
REPLICA_SETS = Resource("apps", "v1", "replicasets")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets")
DAEMON_SETS = Resource("apps", "v1", "daemonsets")
REVISIONS = Resource("apps", "v1", "controllerrevisions")
JOBS = Resource("batch", "v1", "jobs")
CRON_JOBS = Resource("batch", "v1", "cronjobs")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets")
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", cluster=True)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", cluster=True)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", cluster=True)
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", cluster=True)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", cluster=True)
CLUSTER_ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", cluster=True)


@dataclass(frozen=True)
class Listed:
    items: list[Object]
    resource_version: str
    token: str = ""


class Client(Protocol):
    """What `KubeClient` and `cuboid.kube.local.LocalClient` have in common; see there."""

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, sub: str = "", seconds: float = SECONDS
    ) -> Object: ...

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = 0,
        token: str = "", seconds: float = SECONDS,
    ) -> Listed: ...  # fmt: skip

    async def create(
        self, resource: Resource, body: Object, namespace: str = "", *, name: str = "", sub: str = "",
        seconds: float = SECONDS,
    ) -> Object: ...  # fmt: skip

    async def update(self, resource: Resource, body: Object, *, sub: str = "", seconds: float = SECONDS) -> Object: ...

    async def patch(
        self, resource: Resource, name: str, body: Any, namespace: str = "", *, form: str = STRATEGIC, sub: str = "",
        force: bool = False, seconds: float = SECONDS,
    ) -> Object: ...  # fmt: skip

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None, uid: str = "",
        propagation: str = "", seconds: float = SECONDS,
    ) -> Object: ...  # fmt: skip

    def watch(
        self, resource: Resource, namespace: str = "", *, since: str, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]: ...


class KubeClient:
    """Use as an asynchronous context manager. Connections are kept and shared; safe for many tasks."""

    def __init__(
        self, base_url: str, token: str = "", ca_file: Path | None = None, *, context: ssl.SSLContext | None = None,
        manager: str = "cuboid",
    ) -> None:  # fmt: skip
        """`base_url` is `https://host:port`, or `unix:/path` on the server's own machine.

        `manager` is the field manager of what it writes.
        """
        if context is None and not base_url.startswith("unix:"):
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        headers = {"Accept": "application/json", "User-Agent": manager}
        self._manager = manager
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = Transport(base_url, context, headers)

    async def __aenter__(self) -> KubeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    # --- verbs -------------------------------------------------------------------------------------------------------

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, sub: str = "", seconds: float = SECONDS
    ) -> Object:
        return await self.request("GET", resource.path(namespace, name, sub), seconds=seconds)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        token: str = "",
        seconds: float = SECONDS,
    ) -> Listed:
        """One page with `limit`, everything without. The items have their kind and apiVersion."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit or ""), "continue": token}
        answer = await self.request("GET", resource.path(namespace), query=query, seconds=seconds)
        kind = str(answer.get("kind", "")).removesuffix("List")
        type_ = {"kind": kind, "apiVersion": answer.get("apiVersion", "")}
        metadata = answer.get("metadata", {})
        items = [{**type_, **item} for item in answer.get("items") or []]
        return Listed(items, metadata.get("resourceVersion", ""), metadata.get("continue", ""))

    async def create(
        self,
        resource: Resource,
        body: Object,
        namespace: str = "",
        *,
        name: str = "",
        sub: str = "",
        seconds: float = SECONDS,
    ) -> Object:
        """With `name` and `sub`: create a sub-resource (`binding`, `eviction`)."""
        return await self.request("POST", resource.path(namespace, name, sub), body=body, seconds=seconds)

    async def update(self, resource: Resource, body: Object, *, sub: str = "", seconds: float = SECONDS) -> Object:
        """Replace it; ConflictError when it is not at the resourceVersion that `body` has."""
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"], sub)
        return await self.request("PUT", path, body=body, seconds=seconds)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str = "",
        *,
        form: str = STRATEGIC,
        sub: str = "",
        force: bool = False,
        seconds: float = SECONDS,
    ) -> Object:
        """`form` is STRATEGIC, MERGE, JSON or APPLY; with `force`, an apply takes fields from their owners."""
        path = resource.path(namespace, name, sub)
        query = {"fieldManager": self._manager, "force": str(force).lower()} if form == APPLY else {}
        return await self.request("PATCH", path, body=body, query=query, media=form, seconds=seconds)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace: int | None = None,
        uid: str = "",
        propagation: str = "",
        seconds: float = SECONDS,
    ) -> Object:
        """`grace` in seconds, 0 at once. With `uid`, ConflictError when the name belongs to another object by now.

        `propagation` is Background, Foreground or Orphan: what becomes of the objects that it owns.
        """
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        return await self.request("DELETE", resource.path(namespace, name), body=options, seconds=seconds)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        media: str = "application/json",
        seconds: float = SECONDS,
    ) -> Object:
        """Any call that answers with one JSON object."""
        content = None if body is None else msgspec.json.encode(body)
        async with deadline(seconds, f"{method} {path}"):
            answer = await self._http.request(method, _target(path, query or {}), body=content, media=media)
        return _decoded(answer.status, answer.content)

    # --- watch -------------------------------------------------------------------------------------------------------

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        since: str,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """(type, object) from the version `since` on, bookmarks too, until the server ends the watch.

        One watch of the server, which ends after some minutes: see `cuboid.kube.informer` for one that goes on.
        GoneError when `since` is too old, UnavailableError when the connection breaks.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
            "resourceVersion": since,
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        async with self._http.stream("GET", _target(resource.path(namespace), query)) as (status, chunks):
            if status != 200:
                _decoded(status, b"".join([chunk async for chunk in chunks]))
            async for line in _lines(_alive(chunks)):
                yield _event(line)


def _target(path: str, query: Mapping[str, str]) -> str:
    given = {key: value for key, value in query.items() if value}
    return quote(path, safe="/:@") + (f"?{urlencode(given)}" if given else "")


async def _alive(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch on which not even a bookmark comes is dead."""
    while True:
        try:
            yield await within(_IDLE_SECONDS, anext(chunks), "the next event of a watch")
        except StopAsyncIteration:
            return


def _decoded(code: int, content: bytes) -> Object:
    try:
        body = msgspec.json.decode(content)
    except msgspec.DecodeError:
        body = {"message": content[:500].decode("utf-8", "replace")}
    if not isinstance(body, dict):
        raise UnavailableError("the API server answered something that is no object")
    if code >= 400:
        raise from_status(code, body)
    return body


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        if b"\n" not in chunk:
            if len(buffer) > MAX_LINE:
                raise UnavailableError(f"an event of a watch is longer than {MAX_LINE} bytes")
            continue
        *complete, rest = bytes(buffer).split(b"\n")
        buffer = bytearray(rest)
        for line in complete:
            if line.strip():
                yield line


def _event(line: bytes) -> tuple[str, Object]:
    try:
        event = msgspec.json.decode(line)
        kind, document = event["type"], event["object"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise UnavailableError("the API server sent an event that can not be read") from error
    if kind == "ERROR":
        error_ = from_status(int(document.get("code", 500)), document)
        raise error_ if isinstance(error_, GoneError) else _ended(error_)
    return str(kind), document


def _ended(error: CuboidError) -> UnavailableError:
    return UnavailableError(f"the watch was ended by the server: {error.message}")
