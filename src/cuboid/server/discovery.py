"""Discovery: which groups, versions and resources are here, in the plain and in the aggregated form."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cuboid import __version__
from cuboid.kube import schema
from cuboid.kube.cache import encode
from cuboid.kube.kinds import Kind
from cuboid.lib.errors import InvalidError
from cuboid.server.context import Context
from cuboid.server.paths import unknown_path
from cuboid.server.render import answer, document_answer
from cuboid.server.virtual import VIRTUAL, Virtual

_AGGREGATED = "apidiscovery.k8s.io"


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_STABILITY = {"": 3, "beta": 2, "alpha": 1}


def precedence(version_: str) -> tuple[int, int, int, str]:
    """For sorting: newest stable version first, then beta, alpha, and other names in their order."""
    found = _VERSION.fullmatch(version_)
    if found is None:
        return (1, 0, 0, version_)
    major, stage, minor = found[1], found[2] or "", found[3] or "0"
    return (-_STABILITY[stage], -int(major[:9]), -int(minor[:9]), "")


async def version(request: Request, context: Context) -> Response:
    major, minor = schema.VERSION.split(".")
    return document_answer(
        {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{schema.VERSION}.0+cuboid.{__version__}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": platform.python_implementation(),
            "platform": f"linux/{'arm64' if platform.machine() == 'aarch64' else 'amd64'}",
        }
    )


def _groups(context: Context) -> dict[str, list[str]]:
    """Versions of each group, the preferred one first."""
    found: dict[str, list[str]] = {}
    places = [(row.group, row.version) for row in context.registry.kinds]
    for name, version_ in dict.fromkeys([*places, *((row.group, row.version) for row in VIRTUAL)]):
        found.setdefault(name, []).append(version_)
    return {name: sorted(versions, key=precedence) for name, versions in found.items()}


async def root(request: Request, context: Context) -> Response:
    """The paths that there are."""
    paths = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"]
    for name, versions in _groups(context).items():
        if name:
            paths += [f"/apis/{name}", *(f"/apis/{name}/{item}" for item in versions)]
    paths += ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
    return document_answer({"paths": sorted(set(paths))})


async def api(request: Request, context: Context) -> Response:
    if _AGGREGATED in request.headers.get("accept", ""):
        return _aggregated({"": ["v1"]}, request, context)
    host = request.headers.get("host", "")
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]
    return document_answer({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})


async def apis(request: Request, context: Context) -> Response:
    groups = {name: versions for name, versions in _groups(context).items() if name}
    if _AGGREGATED in request.headers.get("accept", ""):
        return _aggregated(groups, request, context)
    listed = [_group(name, versions) for name, versions in groups.items()]
    return document_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    rows = [{"groupVersion": f"{name}/{item}", "version": item} for item in versions]
    return {"name": name, "versions": rows, "preferredVersion": rows[0]}


async def group(request: Request, context: Context) -> Response:
    name = request.path_params["group"]
    versions = _groups(context).get(name)
    if not versions or not name:
        raise unknown_path()
    return document_answer({"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)})


async def core_version(request: Request, context: Context) -> Response:
    return _resource_list("", request.path_params["version"], context)


async def group_version(request: Request, context: Context) -> Response:
    return _resource_list(request.path_params["group"], request.path_params["version"], context)


def _resource_list(group_name: str, wanted: str, context: Context) -> Response:
    rows: list[dict[str, Any]] = []
    for kind in _kinds(group_name, wanted, context):
        rows += _plain(kind)
    rows += [_plain_virtual(row) for row in _virtual(group_name, wanted)]
    if not rows:
        raise unknown_path()
    group_version_ = f"{group_name}/{wanted}" if group_name else wanted
    document = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version_, "resources": rows}
    return document_answer(document)


def _kinds(group_name: str, wanted: str, context: Context) -> list[Kind]:
    return [kind for kind in context.registry.kinds if (kind.group, kind.version) == (group_name, wanted)]


def _virtual(group_name: str, wanted: str) -> list[Virtual]:
    return [row for row in VIRTUAL if (row.group, row.version) == (group_name, wanted)]


def _plain(kind: Kind) -> list[dict[str, Any]]:
    main: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    rows = [main]
    for sub in kind.subresources:
        row: dict[str, Any] = {
            "name": f"{kind.plural}/{sub.name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": sub.kind,
            "verbs": list(sub.verbs),
        }
        rows.append({**row, "group": sub.group, "version": sub.version} if sub.group else row)
    return rows


def _plain_virtual(row: Virtual) -> dict[str, Any]:
    return {
        "name": row.plural,
        "singularName": row.kind.lower(),
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": list(row.verbs),
    }


# --- aggregated ------------------------------------------------------------------------------------------------------


_FORM = re.compile(r"g=apidiscovery\.k8s\.io;v=(v2|v2beta1)(;|,|$)")


def _aggregated(groups: Mapping[str, list[str]], request: Request, context: Context) -> Response:
    """In the first version that the client names. 304 for a client that has it."""
    found = _FORM.search(request.headers["accept"].replace(" ", ""))
    if found is None:
        raise InvalidError("of aggregated discovery there are v2 and v2beta1", reason="NotAcceptable")
    wanted = found[1]
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
            "versions": [
                {"version": v, "resources": _entries(name, v, context), "freshness": "Current"} for v in versions
            ],
        }
        for name, versions in groups.items()
    ]
    document = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{_AGGREGATED}/{wanted}",
        "metadata": {},
        "items": items,
    }
    body = encode(document)
    tag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
    known = tag in request.headers.get("if-none-match", "")
    response = Response(status_code=304) if known else answer(body)
    response.headers["ETag"] = tag
    response.headers["Vary"] = "Accept"
    if not known:
        response.headers["Content-Type"] = f"application/json;g={_AGGREGATED};v={wanted};as=APIGroupDiscoveryList"
    return response


def _entries(group_name: str, wanted: str, context: Context) -> list[dict[str, Any]]:
    stored = [_entry(kind) for kind in _kinds(group_name, wanted, context)]
    return stored + [_virtual_entry(row) for row in _virtual(group_name, wanted)]


def _type(group_name: str, wanted: str, kind: str) -> dict[str, str]:
    return {"group": group_name, "version": wanted, "kind": kind}


def _entry(kind: Kind) -> dict[str, Any]:
    subresources = [
        {
            "subresource": sub.name,
            "responseKind": _type(sub.group or kind.group, sub.version or kind.version, sub.kind),
            "verbs": list(sub.verbs),
        }
        for sub in kind.subresources
    ]
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _type(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    optional = {
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
        "subresources": subresources,
    }
    return {**entry, **{key: value for key, value in optional.items() if value}}


def _virtual_entry(row: Virtual) -> dict[str, Any]:
    return {
        "resource": row.plural,
        "responseKind": _type(row.group, row.version, row.kind),
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.kind.lower(),
        "verbs": list(row.verbs),
    }
