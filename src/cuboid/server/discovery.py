"""Discovery: which groups, versions and resources are here, in the plain and in the aggregated form."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
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

_AGGREGATED = "apidiscovery.k8s.io"


@dataclass(frozen=True)
class Virtual:
    """A resource that is answered and not stored."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...]


VIRTUAL = (
    Virtual("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, ("create",)),
    Virtual("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False, ("create",)),
    Virtual("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", True, ("create",)),
    Virtual("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False, ("create",)),
    Virtual("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, ("create",)),
    Virtual("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False, ("create",)),
    Virtual("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, ("get", "list")),
    Virtual("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True, ("get", "list")),
)


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


def _groups() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    places = [(row.group, row.version) for row in kinds.KINDS] + [(row.group, row.version) for row in VIRTUAL]
    for name, version_ in dict.fromkeys(places):
        found.setdefault(name, []).append(version_)
    return found


async def api(request: Request, context: Context) -> Response:
    if _AGGREGATED in request.headers.get("accept", ""):
        return _aggregated({"": ["v1"]}, request)
    return document_answer({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})


async def apis(request: Request, context: Context) -> Response:
    groups = {name: versions for name, versions in _groups().items() if name}
    if _AGGREGATED in request.headers.get("accept", ""):
        return _aggregated(groups, request)
    listed = [_group(name, versions) for name, versions in groups.items()]
    return document_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    rows = [{"groupVersion": f"{name}/{item}", "version": item} for item in versions]
    return {"name": name, "versions": rows, "preferredVersion": rows[0]}


async def group(request: Request, context: Context) -> Response:
    name = request.path_params["group"]
    versions = _groups().get(name)
    if not versions:
        raise unknown_path()
    return document_answer({"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)})


async def core_version(request: Request, context: Context) -> Response:
    return _resource_list("", request.path_params["version"])


async def group_version(request: Request, context: Context) -> Response:
    return _resource_list(request.path_params["group"], request.path_params["version"])


def _resource_list(group_name: str, wanted: str) -> Response:
    rows: list[dict[str, Any]] = []
    for kind in _kinds(group_name, wanted):
        rows += _plain(kind)
    rows += [_plain_virtual(row) for row in _virtual(group_name, wanted)]
    if not rows:
        raise unknown_path()
    group_version_ = f"{group_name}/{wanted}" if group_name else wanted
    document = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version_, "resources": rows}
    return document_answer(document)


def _kinds(group_name: str, wanted: str) -> list[Kind]:
    return [kind for kind in kinds.KINDS if (kind.group, kind.version) == (group_name, wanted)]


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
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": list(row.verbs),
    }


# --- aggregated ------------------------------------------------------------------------------------------------------


def _aggregated(groups: Mapping[str, list[str]], request: Request) -> Response:
    wanted = "v2" if ";v=v2;" in request.headers["accept"].replace(" ", "") + ";" else "v2beta1"
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
            "versions": [{"version": v, "resources": _entries(name, v), "freshness": "Current"} for v in versions],
        }
        for name, versions in groups.items()
    ]
    document = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{_AGGREGATED}/{wanted}",
        "metadata": {},
        "items": items,
    }
    response = answer(encode(document))
    response.headers["Content-Type"] = f"application/json;g={_AGGREGATED};v={wanted};as=APIGroupDiscoveryList"
    return response


def _entries(group_name: str, wanted: str) -> list[dict[str, Any]]:
    stored = [_entry(kind) for kind in _kinds(group_name, wanted)]
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
        "singularResource": "",
        "verbs": list(row.verbs),
    }
