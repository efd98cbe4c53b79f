"""Reviews: who is this, who am I, may I, may they, what may I do here. Answered and never stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import schema, status
from cuboid.kube.identity import User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.rules import Rule
from cuboid.lib.errors import UnauthorizedError
from cuboid.server.context import Context, read_object
from cuboid.server.render import document_answer

Raw = Mapping[str, Any]
_AUTHENTICATION, _AUTHORIZATION = "/apis/authentication.k8s.io/v1/", "/apis/authorization.k8s.io/v1/"
_LOCAL = "/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"
PATHS = (
    _AUTHENTICATION + "selfsubjectreviews",
    _AUTHENTICATION + "tokenreviews",
    _AUTHORIZATION + "selfsubjectaccessreviews",
    _AUTHORIZATION + "selfsubjectrulesreviews",
    _AUTHORIZATION + "subjectaccessreviews",
    _LOCAL,
)
_KINDS = {
    "selfsubjectreviews": "SelfSubjectReview",
    "tokenreviews": "TokenReview",
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "selfsubjectrulesreviews": "SelfSubjectRulesReview",
    "subjectaccessreviews": "SubjectAccessReview",
    "localsubjectaccessreviews": "LocalSubjectAccessReview",
}


async def handle(request: Request, context: Context) -> Response:
    path: str = request.scope["path"]
    plural = path.strip("/").rpartition("/")[2]
    body = await _read(request, context, _KINDS[plural])
    user: User = request.scope["user"]
    spec = body.get("spec") or {}
    if plural == "tokenreviews":
        found = await _token(context, spec)
    elif plural == "selfsubjectreviews":
        found = {"userInfo": user_info(user)}
    elif plural == "selfsubjectrulesreviews":
        found = _rules(context, user, spec)
    elif plural == "selfsubjectaccessreviews":
        found = _access(context, user, spec, "spec")
    else:
        found = _of_other(context, spec, request.path_params.get("namespace", ""))
    metadata = {"creationTimestamp": None, **body.get("metadata", {})}
    return document_answer({**body, "metadata": metadata, "status": found}, 201)


async def _read(request: Request, context: Context, kind: str) -> dict[str, Any]:
    body = await read_object(request, context.settings)
    if not isinstance(body, dict):
        raise status.bad_request("a review must be an object")
    if body.get("kind", kind) != kind:
        raise status.bad_request(
            f"the kind in the data ({str(body['kind'])[:80]}) does not match the expected ({kind})"
        )
    group = "authentication" if kind in ("TokenReview", "SelfSubjectReview") else "authorization"
    clean: dict[str, Any] = schema.decode(schema.node(f"io.k8s.api.{group}.v1.{kind}"), body, [])
    return {**clean, "kind": kind, "apiVersion": f"{group}.k8s.io/v1"}


def user_info(user: User) -> dict[str, Any]:
    rows: dict[str, Any] = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    rows["extra"] = {key: list(values) for key, values in user.extra.items()}
    return {key: value for key, value in rows.items() if value}


async def _token(context: Context, spec: Raw) -> dict[str, Any]:
    """Who a token is of, for an audience that the asker is; no reason for a refusal is told."""
    own = context.security.audiences
    asked = spec.get("audiences") or []
    try:
        if not spec.get("token"):
            raise status.bad_request("token is required for TokenReview in authentication")
        found = await context.security.authenticator.token(spec["token"])
    except UnauthorizedError:
        return {"authenticated": False, "error": "invalid bearer token"}
    made_for = found.audiences or own
    fitting = [audience for audience in asked or own if audience in made_for]
    if not fitting:
        return {"authenticated": False, "error": "token audiences do not fit"}
    answer: dict[str, Any] = {"authenticated": True, "user": user_info(found.user)}
    return {**answer, "audiences": fitting} if asked else answer


def _wanted(spec: Raw, path: str) -> Attributes:
    if ("resourceAttributes" in spec) == ("nonResourceAttributes" in spec):
        raise _invalid(path, "exactly one of nonResourceAttributes or resourceAttributes must be specified")
    if other := spec.get("nonResourceAttributes"):
        return Attributes(other.get("verb", ""), path=other.get("path") or "/")
    resource: Raw = spec.get("resourceAttributes") or {}
    given = {key: resource.get(key) or "" for key in ("verb", "group", "version", "resource", "namespace", "name")}
    selector = ",".join(_requirement(row) for row in _requirements(resource))
    return Attributes(**given, sub=resource.get("subresource") or "", selector=selector)


def _requirements(resource: Raw) -> list[Raw]:
    return list((resource.get("fieldSelector") or {}).get("requirements") or [])


def _requirement(row: Raw) -> str:
    values = row.get("values") or [""]
    return f"{row.get('key', '')}={values[0]}" if row.get("operator") == "In" and len(values) == 1 else ""


def _invalid(path: str, why: str) -> Exception:
    return status.bad_request(f'{path}: Invalid value: "": {why}')


def _access(context: Context, user: User, spec: Raw, path: str) -> dict[str, Any]:
    wanted = _wanted(spec, path)
    authorizer = context.security.authorizer
    allowed = authorizer.allows(user, wanted)
    reason = authorizer.policy.reason(user, wanted) if allowed else ""
    return {"allowed": allowed, **({"reason": reason} if reason else {})}


def _of_other(context: Context, spec: Raw, namespace: str) -> dict[str, Any]:
    """Of the user that is named; in a namespace's own review only about that namespace."""
    if not spec.get("user") and not spec.get("groups"):
        raise _invalid("spec.user", "at least one of user or group must be specified")
    if namespace and (spec.get("resourceAttributes") or {}).get("namespace") != namespace:
        raise _invalid("spec.resourceAttributes.namespace", f"must match metadata.namespace: {namespace}")
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    user = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
    return _access(context, user, spec, "spec")


def _rules(context: Context, user: User, spec: Raw) -> dict[str, Any]:
    namespace = spec.get("namespace") or ""
    if not namespace:
        raise status.bad_request("no namespace on request")
    rules = [rule for table in context.security.authorizer.policy.tables(user, namespace) for rule in table.rules]
    return {
        "resourceRules": _documents(rules, lambda rule: bool(rule.resources)),
        "nonResourceRules": _documents(rules, lambda rule: bool(rule.urls)),
        "incomplete": False,
    }


def _documents(rules: list[Rule], wanted: Callable[[Rule], bool]) -> list[dict[str, Any]]:
    return [rule.document() for rule in dict.fromkeys(rules) if wanted(rule)]
