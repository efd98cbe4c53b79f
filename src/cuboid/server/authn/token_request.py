"""`serviceaccounts/NAME/token`, the key set that tells others how to check such tokens, and where they find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import kinds, objects, schema, status
from cuboid.kube.cache import encode
from cuboid.kube.fields import Fields
from cuboid.kube.identity import User
from cuboid.lib.clock import rfc3339
from cuboid.server.context import Context, dry_run, read_object
from cuboid.server.paths import Target
from cuboid.server.render import answer

Raw = Mapping[str, Any]
Object = dict[str, Any]
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
LEAST, MOST, USUAL = 600, 365 * 86400, 3600
"""Seconds that a token may be asked for."""
_NODE = kinds.builtin("Node")
_KINDS = {"Pod": kinds.builtin("Pod"), "Secret": kinds.builtin("Secret"), "Node": _NODE}


async def handle(request: Request, context: Context, target: Target) -> Response:
    """POST. A node gets tokens only for the accounts of its own pods, bound to them."""
    given = await read_object(request, context.settings)
    body: Object = schema.decode(schema.node("io.k8s.api.authentication.v1.TokenRequest"), given, [])
    account = context.registry.entry(target.kind, target.namespace, target.name).object()
    spec: Object = body.setdefault("spec", {})
    seconds = spec.setdefault("expirationSeconds", USUAL)
    spec["audiences"] = spec.get("audiences") or list(context.security.audiences)
    _check(spec, target.name)
    bound = _bound(context, target, spec.get("boundObjectRef") or {})
    _check_node(request.scope["user"], account, bound)
    node = _node_of(context, bound)
    body |= {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
    body["metadata"] = {"name": target.name, "namespace": target.namespace, "creationTimestamp": None}
    if dry_run(request.query_params.get("dryRun", "")):
        return answer(encode(body), 201)  # a token that is issued is good, whatever it was asked for
    token, expires = context.security.accounts.issue(account, spec["audiences"], min(seconds, MOST), bound, node)
    body["status"] = {"token": token, "expirationTimestamp": rfc3339(expires)}
    return answer(encode(body), 201)


def _check(spec: Raw, name: str) -> None:
    fields = Fields()
    seconds = spec["expirationSeconds"]
    if seconds < LEAST:
        fields.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    if seconds > 2**32:
        fields.invalid("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
    if fields.errors:
        raise status.invalid("TokenRequest", "authentication.k8s.io", name, fields.errors)


def _bound(context: Context, target: Target, ref: Raw) -> Object | None:
    if not ref:
        return None
    kind = _KINDS.get(ref.get("kind", ""))
    if kind is None or ref.get("apiVersion", "v1") != "v1":
        raise status.bad_request(f"cannot bind token for serviceaccount to object of type {str(ref.get('kind'))[:80]}")
    found = context.registry.entry(kind, target.namespace if kind.namespaced else "", ref.get("name", "")).object()
    uid = ref.get("uid") or objects.uid(found)
    if uid != objects.uid(found):
        why = f"the UID in the bound object reference ({uid}) does not match the UID in record ({objects.uid(found)})"
        raise status.conflict(kind.plural, kind.group, objects.name(found), why)
    if kind.kind == "Pod" and found["spec"].get("serviceAccountName") != target.name:
        raise status.bad_request("cannot bind token to a Pod running with different service account name.")
    return found


def _check_node(user: User, account: Raw, bound: Raw | None) -> None:
    if "system:nodes" not in user.groups:
        return
    node = user.name.removeprefix("system:node:")
    if bound is None or bound["kind"] != "Pod" or bound["spec"].get("nodeName") != node:
        why = "node requested token not bound to a pod that is scheduled on it"
        raise status.forbidden("serviceaccounts", "", objects.name(account), why)


def _node_of(context: Context, bound: Raw | None) -> Object | None:
    name = (bound or {}).get("spec", {}).get("nodeName", "") if bound and bound["kind"] == "Pod" else ""
    entry = context.registry.of(_NODE).get("", name) if name else None
    return None if entry is None else entry.object()


async def discovery(request: Request, context: Context) -> Response:
    issuer = context.security.audiences[0]
    document = {
        "issuer": issuer,
        "jwks_uri": f"https://{request.headers.get('host') or 'localhost'}{KEYS}",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }
    return answer(encode(document))


async def keys(request: Request, context: Context) -> Response:
    response = answer(encode(context.security.keys.published()))
    response.headers["Content-Type"] = "application/jwk-set+json"
    return response
