"""The operations of OpenAPI documents: what may be asked of each kind, with which parameters, bodies and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.kinds import Kind, Subresource
from cuboid.server.openapi_schemas import META, V2, definition_of, list_of
from cuboid.server.virtual import Virtual

Object = dict[str, Any]
BODIES = (
    META + "DeleteOptions", META + "Patch", META + "Status", META + "WatchEvent",
    "io.k8s.api.autoscaling.v1.Scale", "io.k8s.api.core.v1.Binding", "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.authentication.v1.TokenRequest",
)  # fmt: skip
"""Definitions that operations use whatever kinds there are."""
_SUB_BODIES = {
    "scale": "io.k8s.api.autoscaling.v1.Scale",
    "binding": "io.k8s.api.core.v1.Binding",
    "eviction": "io.k8s.api.policy.v1.Eviction",
    "token": "io.k8s.api.authentication.v1.TokenRequest",
}
_STREAMS = ("attach", "exec", "log", "portforward", "proxy")
_PATCHES = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip
_QUERY: Mapping[str, tuple[str, str]] = {
    "pretty": ("string", "If 'true', then the output is pretty printed."),
    "dryRun": ("string", "When present, indicates that modifications should not be persisted: All."),
    "fieldManager": ("string", "A name associated with the actor or entity that is making these changes."),
    "fieldValidation": ("string", "What to do with unknown or duplicate fields: Ignore, Warn, Strict."),
    "force": ("boolean", "Take fields that other managers own. Of apply requests."),
    "gracePeriodSeconds": ("integer", "The duration in seconds before the object should be deleted."),
    "orphanDependents": ("boolean", "Deprecated: please use the PropagationPolicy."),
    "propagationPolicy": ("string", "What becomes of dependents: Orphan, Background, Foreground."),
    "allowWatchBookmarks": ("boolean", "Ask for watch events of type BOOKMARK."),
    "continue": ("string", "The token of the last page, for the next one."),
    "fieldSelector": ("string", "Restrict the list of returned objects by their fields."),
    "labelSelector": ("string", "Restrict the list of returned objects by their labels."),
    "limit": ("integer", "The maximum number of responses to return for a list call."),
    "resourceVersion": ("string", "How old what is shown may be."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant: Exact, NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with what exists."),
    "timeoutSeconds": ("integer", "Timeout for the list or watch call."),
    "watch": ("boolean", "Watch for changes instead of listing."),
    "container": ("string", "The container in the pod."),
    "command": ("string", "Command is the remote command to execute."),
    "stdin": ("boolean", "Redirect the standard input stream."),
    "stdout": ("boolean", "Redirect the standard output stream."),
    "stderr": ("boolean", "Redirect the standard error stream."),
    "tty": ("boolean", "Allocate a terminal."),
    "ports": ("integer", "List of ports to forward."),
    "path": ("string", "The URL path to use in the request."),
    "follow": ("boolean", "Follow the log stream of the pod."),
    "previous": ("boolean", "Return previous terminated container logs."),
    "sinceSeconds": ("integer", "A relative time in seconds before now from which to show logs."),
    "sinceTime": ("string", "An RFC3339 timestamp from which to show logs."),
    "tailLines": ("integer", "The number of lines from the end of the logs to show."),
    "limitBytes": ("integer", "The number of bytes to read before terminating the log output."),
    "timestamps": ("boolean", "Add a timestamp at the beginning of every line of log output."),
}
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_STREAM_QUERY = {
    "attach": ("container", "stderr", "stdin", "stdout", "tty"),
    "exec": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "portforward": ("ports",),
    "proxy": ("path",),
    "log": (
        "container", "follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps",
    ),
}  # fmt: skip


def base_of(kind: Kind) -> str:
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


def paths(kind: Kind, prefix: str) -> dict[str, Any]:
    """Every URL of a kind."""
    make = _Maker(kind, prefix)
    scoped = base_of(kind) + ("/namespaces/{namespace}" if kind.namespaced else "") + f"/{kind.plural}"
    one = scoped + "/{name}"
    found = {scoped: make.collection(), one: make.object()}
    if kind.namespaced:
        found[f"{base_of(kind)}/{kind.plural}"] = {"get": make.list("ForAllNamespaces")}
    for sub in kind.subresources:
        found[f"{one}/{sub.name}"] = make.sub(sub)
    return {path: item for path, item in found.items() if item}


def virtual_paths(row: Virtual, prefix: str) -> Object:
    """Of what is created and answered, and not stored."""
    scope = "/namespaces/{namespace}" if row.namespaced else ""
    body = {"$ref": prefix + row.definition}
    middle = "Namespaced" if row.namespaced else ""
    operation = {
        "operationId": f"create{_title(row.group)}{row.version.title()}{middle}{row.kind}",
        "tags": [f"{_title(row.group, join='_')}_{row.version}"],
        "x-kubernetes-action": "post",
        "x-kubernetes-group-version-kind": {"group": row.group, "version": row.version, "kind": row.kind},
        "parameters": [parameter(name, prefix) for name in (*_WRITE, "pretty")],
    }
    item: Object = {"post": _with_body(operation, body, ("application/json",), prefix)}
    item["post"]["responses"] = _responses({"201": "Created"}, body, prefix)
    if row.namespaced:
        item["parameters"] = [_in_path("namespace", prefix)]
    return {f"/apis/{row.group}/{row.version}{scope}/{row.plural}": item}


def _title(group: str, join: str = "") -> str:
    """`rbac.authorization.k8s.io` as `RbacAuthorization`."""
    parts = group.removesuffix(".k8s.io").split(".") if group else ["core"]
    return join.join(parts) if join else "".join(part.replace("-", "").capitalize() for part in parts)


def parameter(name: str, prefix: str) -> Object:
    type_, text = _QUERY[name]
    form = {"type": type_, "uniqueItems": True} if prefix == V2 else {"schema": {"type": type_, "uniqueItems": True}}
    return {"name": name, "in": "query", "description": text, **form}


def _in_path(name: str, prefix: str) -> Object:
    text = "name of the object" if name == "name" else "object name and auth scope, such as for teams and projects"
    form = {"type": "string"} if prefix == V2 else {"schema": {"type": "string"}}
    return {"name": name, "in": "path", "required": True, "description": text, **form}


def _with_body(operation: Object, body: Object, media: tuple[str, ...], prefix: str) -> Object:
    if prefix == V2:
        parameters = [*operation["parameters"], {"name": "body", "in": "body", "required": True, "schema": body}]
        return {**operation, "consumes": list(media), "parameters": parameters}
    content = {name: {"schema": body} for name in media}
    return {**operation, "requestBody": {"required": True, "content": content}}


def _responses(codes: Mapping[str, str], body: Object | None, prefix: str, media: str = "application/json") -> Object:
    answer: Object = {}
    if body is not None:
        answer = {"schema": body} if prefix == V2 else {"content": {media: {"schema": body}}}
    found: Object = {code: {"description": text, **answer} for code, text in codes.items()}
    return {**found, "401": {"description": "Unauthorized"}}


class _Maker:
    """Operations of one kind in one version of the document."""

    def __init__(self, kind: Kind, prefix: str) -> None:
        self._kind = kind
        self._prefix = prefix
        self._body = {"$ref": prefix + definition_of(kind)}
        self._many = {"$ref": prefix + list_of(kind)}
        self._removed = {"$ref": f"{prefix}{META}Status"}
        self._scope = "Namespaced" if kind.namespaced else ""

    def _operation(self, verb: str, action: str, middle: str, query: tuple[str, ...], after: str = "") -> Object:
        kind = self._kind
        return {
            "operationId": f"{verb}{_title(kind.group)}{kind.version.title()}{middle}{kind.kind}{after}",
            "tags": [f"{_title(kind.group, join='_')}_{kind.version}"],
            "parameters": [parameter(name, self._prefix) for name in sorted((*query, "pretty"))],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        }

    def _item(self, operations: Mapping[str, Object | None], *, named: bool) -> Object:
        names = (("namespace",) if self._kind.namespaced else ()) + (("name",) if named else ())
        found: Object = {method: operation for method, operation in operations.items() if operation is not None}
        if found and names:
            found["parameters"] = [_in_path(name, self._prefix) for name in names]
        return found

    def _may(self, verb: str) -> bool:
        return verb in self._kind.verbs

    def list(self, after: str = "") -> Object:
        operation = self._operation("list", "list", "" if after else self._scope, _LIST, after)
        operation["responses"] = _responses({"200": "OK"}, self._many, self._prefix)
        return operation

    def collection(self) -> Object:
        prefix = self._prefix
        create = delete = None
        if self._may("create"):
            create = _with_body(
                self._operation("create", "post", self._scope, _WRITE), self._body, ("application/json",), prefix
            )
            codes = {"200": "OK", "201": "Created", "202": "Accepted"}
            create["responses"] = _responses(codes, self._body, prefix)
        if self._may("deletecollection"):
            delete = self._delete("deletecollection", f"Collection{self._scope}", _LIST[:-1])
        listed = self.list() if self._may("list") else None
        return self._item({"get": listed, "post": create, "delete": delete}, named=False)

    def _delete(self, action: str, middle: str, query: tuple[str, ...] = ()) -> Object:
        operation = self._operation("delete", action, middle, tuple({*_DELETE, *query}))
        operation = _with_body(
            operation, {"$ref": f"{self._prefix}{META}DeleteOptions"}, ("application/json",), self._prefix
        )
        if self._prefix == V2:
            operation["parameters"][-1].pop("required")
        else:
            operation["requestBody"].pop("required")
        codes = {"200": "OK", "202": "Accepted"}
        return {**operation, "responses": _responses(codes, self._removed, self._prefix)}

    def object(self) -> Object:
        delete = self._delete("delete", self._scope) if self._may("delete") else None
        verbs = {"get": self._may("get"), "put": self._may("update"), "patch": self._may("patch")}
        return self._item({**self._reading(verbs, self._body, ""), "delete": delete}, named=True)

    def _reading(self, verbs: Mapping[str, bool], body: Object, after: str) -> dict[str, Object | None]:
        """Read, replace and patch, of the object or of a part."""
        prefix, codes = self._prefix, {"200": "OK", "201": "Created"}
        get = self._operation("read", "get", self._scope, (), after)
        get["responses"] = _responses({"200": "OK"}, body, prefix)
        put = self._operation("replace", "put", self._scope, _WRITE, after)
        put = _with_body(put, body, ("application/json",), prefix)
        put["responses"] = _responses(codes, body, prefix)
        patch = self._operation("patch", "patch", self._scope, (*_WRITE, "force"), after)
        # kubectl takes from here whether it may send a strategic merge patch, which a custom resource knows not
        forms = tuple(form for form in _PATCHES if self._kind.custom_schema is None or "strategic" not in form)
        patch = _with_body(patch, {"$ref": f"{prefix}{META}Patch"}, forms, prefix)
        patch["responses"] = _responses(codes, body, prefix)
        made = {"get": get, "put": put, "patch": patch}
        return {method: made[method] if verbs.get(method) else None for method in made}

    def sub(self, sub: Subresource) -> Object:
        after = sub.name.title()
        if sub.name in _STREAMS:
            return self._item(self._streams(sub, after), named=True)
        known = _SUB_BODIES.get(sub.name)
        body = {"$ref": self._prefix + known} if known else self._body
        verbs = {"get": "get" in sub.verbs, "put": "update" in sub.verbs, "patch": "patch" in sub.verbs}
        create = None
        if "create" in sub.verbs:
            create = self._operation("create", "post", self._scope, _WRITE, after)
            create = _with_body(create, body, ("application/json",), self._prefix)
            create["responses"] = _responses({"200": "OK", "201": "Created"}, body, self._prefix)
        return self._item({**self._reading(verbs, body, after), "post": create}, named=True)

    def _streams(self, sub: Subresource, after: str) -> dict[str, Object | None]:
        found: dict[str, Object | None] = {}
        for verb, method, action in (("get", "get", "get"), ("create", "post", "connect")):
            if verb in sub.verbs:
                name = "connectPost" if method == "post" else "read" if sub.name == "log" else "connectGet"
                operation = self._operation(name, action, self._scope, _STREAM_QUERY.get(sub.name, ()), after)
                plain = {"type": "string"}
                operation["responses"] = _responses({"200": "OK"}, plain, self._prefix, "text/plain")
                found[method] = operation
        return found
