"""Tokens of service accounts: JSON Web Tokens that this server signs, each bound to what it was made for.

A token ends with its account, and with the pod, secret or node that it is bound to: looked up in memory each time.
Source of the claims: kubernetes/pkg/serviceaccount.
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt

from cuboid.kube import kinds, objects
from cuboid.kube.births import new_uid
from cuboid.kube.identity import User, service_account
from cuboid.kube.registry import Registry
from cuboid.lib.errors import UnauthorizedError
from cuboid.server.authn.credential import Credential
from cuboid.server.authn.signing import SigningKeys
from cuboid.server.tokens import digest

Raw = Mapping[str, Any]
Object = dict[str, Any]
REMEMBERED = 4_096
"""Tokens whose signature is not checked again."""
_ACCOUNT = kinds.builtin("ServiceAccount")
_BOUND = {name: kinds.builtin(name) for name in ("Pod", "Secret", "Node")}


Holder = tuple[str, str, str, str]
"""Kind, namespace, name and uid."""


@dataclass(frozen=True)
class _Known:
    user: User
    expires: float  # 0 for one that ends with its secret alone
    audiences: tuple[str, ...]
    holders: tuple[Holder, ...]  # what it needs to exist
    seen: dict[Holder, int] = field(default_factory=dict)  # the version at which each was last found to be it


class AccountTokens:
    def __init__(self, registry: Registry, keys: SigningKeys, issuer: str) -> None:
        self._registry = registry
        self._keys = keys
        self._issuer = issuer
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def issue(
        self, account: Raw, audiences: Sequence[str], seconds: int, bound: Raw | None = None, node: Raw | None = None
    ) -> tuple[str, float]:
        """A token and when it ends (0: never). `bound` is the object it ends with, `node` where the bound pod runs.

        `seconds` 0 is for a token that is bound to a secret: it lives as long as that.
        """
        now = int(time.time())
        namespace = objects.namespace(account)
        private: Object = {"namespace": namespace, "serviceaccount": _named(account)}
        if bound is not None:
            private[str(bound["kind"]).lower()] = _named(bound)
        if node is not None:
            private["node"] = _named(node)
        claims: Object = {
            "iss": self._issuer,
            "sub": f"system:serviceaccount:{namespace}:{objects.name(account)}",
            "aud": list(audiences),
            "iat": now,
            "nbf": now,
            "jti": new_uid(),
            "kubernetes.io": private,
        }
        if seconds:
            claims["exp"] = now + seconds
        return self._keys.sign(claims), float(now + seconds if seconds else 0)

    def for_secret(self, account: Raw, secret: Raw) -> str:
        """A token of this account that is valid for as long as the secret exists."""
        return self.issue(account, (self._issuer,), 0, {**secret, "kind": "Secret"})[0]

    async def check(self, token: str) -> Credential | None:
        """None for what this server did not sign. UnauthorizedError."""
        known = self._known.get(key := digest(token))
        if known is None:
            if token.count(".") != 2 or issuer_in(token) != self._issuer:
                return None
            known = self._verified(token)
            self._known[key] = known
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if not self._holds(known):
            self._known.pop(key, None)
            raise UnauthorizedError("Unauthorized")
        found = known
        return Credential(found.user, lambda: self._holds(found), found.audiences)

    def _verified(self, token: str) -> _Known:
        try:
            return _read(self._keys.verified(token, self._issuer))
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UnauthorizedError("Unauthorized") from error

    def _holds(self, known: _Known) -> bool:
        if known.expires and known.expires <= time.time():
            return False
        return all(self._exists(holder, known.seen) for holder in known.holders)

    def _exists(self, holder: Holder, seen: dict[Holder, int]) -> bool:
        """A pod that has been asked to end keeps its token until it is gone."""
        kind, namespace, name, uid = holder
        row = _ACCOUNT if kind == "ServiceAccount" else _BOUND[kind]
        entry = self._registry.of(row).get(namespace, name)
        if entry is None:
            return False
        if seen.get(holder) != entry.rv:  # read again only when it was written
            if objects.uid(entry.object()) != uid:
                return False
            seen[holder] = entry.rv
        return True


def _named(document: Raw) -> Object:
    return {"name": objects.name(document), "uid": objects.uid(document)}


def issuer_in(token: str) -> str:
    """What a token says of itself, not believed yet: whoever sends it may have nested it as deeply as it is long."""
    try:
        middle = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return str(claims.get("iss", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _read(claims: Object) -> _Known:
    private = claims["kubernetes.io"]
    namespace, account = private["namespace"], private["serviceaccount"]
    holders = [("ServiceAccount", namespace, account["name"], account["uid"])]
    extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims['jti']}",)}
    for kind in _BOUND:
        if found := private.get(kind.lower()):
            holders.append((kind, "" if kind == "Node" else namespace, found["name"], found["uid"]))
            if kind != "Secret":
                prefix = f"authentication.kubernetes.io/{kind.lower()}"
                extra |= {f"{prefix}-name": (found["name"],), f"{prefix}-uid": (found["uid"],)}
    if "exp" not in claims and "secret" not in private:
        raise ValueError("a token without an end is bound to a secret")
    made = service_account(namespace, account["name"], account["uid"])
    user = User(made.name, made.groups, made.uid, extra)
    return _Known(user, float(claims.get("exp", 0)), tuple(claims["aud"]), tuple(holders))
