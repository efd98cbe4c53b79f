"""Who allows a request: roles and bindings, and for node agents what their pods need."""

from __future__ import annotations

from typing import Protocol

from cuboid.kube.identity import User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.policy import Policy
from cuboid.lib.errors import ForbiddenError


class Rule(Protocol):
    def allows(self, user: User, wanted: Attributes) -> bool: ...


class Authorizer:
    """The first that allows it decides; if none does, it is refused."""

    def __init__(self, policy: Policy, *others: Rule) -> None:
        self.policy = policy
        self._others = others

    def allows(self, user: User, wanted: Attributes) -> bool:
        return self.policy.allows(user, wanted) or any(other.allows(user, wanted) for other in self._others)

    def check(self, user: User, wanted: Attributes) -> None:
        """ForbiddenError in Kubernetes' words, the same whether what is asked for exists or not."""
        if not self.allows(user, wanted):
            raise refused(user, wanted)


def refused(user: User, wanted: Attributes) -> ForbiddenError:
    error = ForbiddenError(wanted.denied(user.name))
    if not wanted.path:
        rows = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
        error.details = {key: value for key, value in rows.items() if value}
    return error
