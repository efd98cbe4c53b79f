"""Reviews: who am I, may I. There is one tenant so far, and whoever has a token may do everything."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import status
from cuboid.kube.identity import User
from cuboid.server.context import Context, read_object
from cuboid.server.render import document_answer

_AUTHENTICATION = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_AUTHORIZATION = "/apis/authorization.k8s.io/v1/"
PATHS = (
    _AUTHENTICATION,
    _AUTHORIZATION + "selfsubjectaccessreviews",
    _AUTHORIZATION + "selfsubjectrulesreviews",
)


async def handle(request: Request, context: Context) -> Response:
    body = await read_object(request, context.settings)
    if not isinstance(body, dict):
        raise status.bad_request("a review must be an object")
    user: User = request.scope["user"]
    return document_answer({**body, "metadata": {}, "status": _status(request.url.path, user)}, 201)


def _status(path: str, user: User) -> dict[str, Any]:
    if path == _AUTHENTICATION:
        return {"userInfo": {"username": user.name, "groups": list(user.groups)}}
    if path.endswith("selfsubjectrulesreviews"):
        every = ["*"]
        return {
            "resourceRules": [{"verbs": every, "apiGroups": every, "resources": every}],
            "nonResourceRules": [{"verbs": every, "nonResourceURLs": every}],
            "incomplete": False,
        }
    return {"allowed": True, "reason": "a token of this server may do everything"}
