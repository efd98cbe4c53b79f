"""Who calls: the identity that a request carries through authorization, admission and audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MASTERS = "system:masters"
"""The group that may do everything."""


@dataclass(frozen=True)
class User:
    """`extra` is what an authenticator adds, values by key, as in `UserInfo`."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


SERVER = User("system:apiserver", (MASTERS, "system:authenticated"))
"""The server itself, when nobody asked it."""
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def service_account(namespace: str, name: str, uid: str = "") -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid)
