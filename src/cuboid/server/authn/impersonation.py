"""`kubectl --as`: acting as somebody else, for those who may `impersonate` them.

Source: apiserver/pkg/endpoints/filters/impersonation.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from cuboid.kube.identity import ANONYMOUS, User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.status import bad_request

_USER, _GROUP, _UID, _EXTRA = b"impersonate-user", b"impersonate-group", b"impersonate-uid", b"impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
AUTHENTICATED = "system:authenticated"
Headers = Iterable[tuple[bytes, bytes]]


def impersonated(headers: Headers) -> tuple[User, list[Attributes]] | None:
    """Who is meant, and what the caller must be allowed; None if nobody is. bad_request for half of a name."""
    given = [(key, value.decode("utf-8", "replace")) for key, value in headers if key.startswith(b"impersonate-")]
    if not given:
        return None
    name = next((value for key, value in given if key == _USER), "")
    groups = [value for key, value in given if key == _GROUP]
    uid = next((value for key, value in given if key == _UID), "")
    extra: dict[str, tuple[str, ...]] = {}
    for key, value in given:
        if key.startswith(_EXTRA):
            word = unquote(key.removeprefix(_EXTRA).decode("latin-1"))
            extra[word] = (*extra.get(word, ()), value)
    if not name:
        raise bad_request("requested groups, uid or extra without impersonating a user")
    asked = [_who(name), *(_asked("groups", group) for group in groups)]
    asked += [_asked("uids", uid, "authentication.k8s.io")] if uid else []
    for word, values in extra.items():
        asked += [Attributes("impersonate", "authentication.k8s.io", "v1", "userextras", word, "", v) for v in values]
    return User(name, _groups(name, groups), uid, extra), asked


def _who(name: str) -> Attributes:
    if name.startswith(_ACCOUNT):
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        return Attributes("impersonate", "", "v1", "serviceaccounts", "", namespace, account)
    return _asked("users", name)


def _asked(resource: str, name: str, group: str = "") -> Attributes:
    return Attributes("impersonate", group, "v1", resource, "", "", name)


def _groups(name: str, given: list[str]) -> tuple[str, ...]:
    groups = list(given)
    if name.startswith(_ACCOUNT) and not groups:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{name.removeprefix(_ACCOUNT).partition(':')[0]}"]
    general = ANONYMOUS.groups[0] if name == ANONYMOUS.name else AUTHENTICATED
    return (*groups, general) if general not in groups else tuple(groups)
