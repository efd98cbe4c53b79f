"""What plug-ins have in common: which writes they are about, and refusals in Kubernetes' words."""

from __future__ import annotations

from typing import ClassVar

from cuboid.kube import status
from cuboid.kube.admission import Release, Request
from cuboid.kube.identity import MASTERS, User
from cuboid.kube.kind import Kind
from cuboid.lib.errors import ForbiddenError

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
PODS = ("", "pods")


class Plug:
    """`about` are (group, plural) of the kinds as they are stored, empty for all."""

    about: ClassVar[tuple[tuple[str, str], ...]] = ()
    operations: ClassVar[tuple[str, ...]] = (CREATE,)
    subs: ClassVar[tuple[str, ...]] = ("",)

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        return operation in self.operations and sub in self.subs and (not self.about or kind.stored_as in self.about)

    def admit(self, request: Request) -> None:
        """Nothing to say."""

    def reserve(self, request: Request) -> Release | None:
        return None


def refusal(request: Request, why: str) -> ForbiddenError:
    kind = request.kind
    name = request.name or (request.new or {}).get("metadata", {}).get("generateName", "")
    return status.forbidden(kind.plural, kind.group, name, why)


def is_master(user: User) -> bool:
    return MASTERS in user.groups
