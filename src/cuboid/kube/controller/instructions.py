"""What a controller asks to be done. Plans are made purely; the runtime carries them out, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube.client import MERGE, Resource
from cuboid.lib.errors import CuboidError

Object = dict[str, Any]


@dataclass(frozen=True)
class Tell:
    """An Event about `about`; `type` is Normal or Warning. The same within ten minutes is counted, not repeated."""

    about: Object
    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Create:
    """`tell` is told when it was done; `{name}` in its message becomes the new object's name."""

    resource: Resource
    body: Object
    namespace: str = ""
    exists_is_fine: bool = False
    tell: Tell | None = None


@dataclass(frozen=True)
class Update:
    """Replace it at the resourceVersion that `body` has; a conflict ends the plan, which is made anew."""

    resource: Resource
    body: Object
    sub: str = ""


@dataclass(frozen=True)
class Patch:
    """`body` should carry `metadata.uid` (and `resourceVersion` where the decision depends on it)."""

    resource: Resource
    name: str
    body: Any
    namespace: str = ""
    form: str = MERGE
    sub: str = ""


@dataclass(frozen=True)
class Delete:
    """With `uid` only that object. Gone already is fine."""

    resource: Resource
    name: str
    namespace: str = ""
    uid: str = ""
    grace: int | None = None
    propagation: str = ""
    sub: str = ""
    """"eviction" asks instead of deleting: TooManyRequests when a disruption budget does not allow it."""
    tell: Tell | None = None
    """Told when it was done."""


@dataclass(frozen=True)
class Absent:
    """The plan goes on only if this object is gone. The server is asked, since a view may lag behind."""

    resource: Resource
    name: str
    namespace: str
    uid: str


@dataclass(frozen=True)
class Together:
    """Done at the same time, first one, then two, four, ...; the rest is left out when one fails (slow start)."""

    instructions: tuple[Create | Delete | Patch | Update, ...]


Instruction = Create | Update | Patch | Delete | Absent | Tell | Together


@dataclass(frozen=True)
class Plan:
    """`again` is the number of seconds after which the key is looked at once more even if nothing changes.

    `failed` says what is done when an instruction was refused (not for a mere conflict), before the key is tried again:
    a condition of the status, an event.
    """

    instructions: tuple[Instruction, ...] = ()
    again: float | None = None
    failed: Callable[[CuboidError], tuple[Instruction, ...]] | None = None


NOTHING = Plan()


@dataclass
class Draft:
    """A plan in the making."""

    instructions: list[Instruction] = field(default_factory=list)
    again: float | None = None
    failed: Callable[[CuboidError], tuple[Instruction, ...]] | None = None

    def add(self, *instructions: Instruction) -> None:
        self.instructions.extend(instructions)

    def look_again(self, seconds: float) -> None:
        """The soonest wins."""
        soon = max(seconds, 0.0)
        self.again = soon if self.again is None else min(self.again, soon)

    def plan(self) -> Plan:
        return Plan(tuple(self.instructions), self.again, self.failed)
