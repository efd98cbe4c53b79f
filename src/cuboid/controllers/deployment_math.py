"""How many pods each ReplicaSet of a Deployment may have in the next step: whole numbers in, whole numbers out.

Source: kubernetes/pkg/controller/deployment, rolling.go and sync.go, util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.controllers.common import amount


@dataclass(frozen=True)
class Fence:
    """Bounds of a rolling update: pods above and below the number wanted."""

    surge: int
    unavailable: int


@dataclass(frozen=True)
class Size:
    """A ReplicaSet in numbers. `available` of those it is to have; `before` is what the Deployment might have at most
    when this one was last scaled, 0 when that is not known."""

    replicas: int
    available: int
    before: int = 0


def fence(surge: Any, unavailable: Any, replicas: int) -> Fence:
    """From the two fields, numbers or percentages; never both 0, or nothing would move."""
    above, below = amount(surge, replicas, up=True), amount(unavailable, replicas, up=False)
    if above == 0 and below == 0:
        below = 1
    return Fence(above, min(below, replicas))


def new_size(new: int, others: int, replicas: int, surge: int) -> int:
    """What the new ReplicaSet grows (or shrinks) to at once, beside `others` pods of old ones."""
    if new >= replicas:
        return replicas
    room = replicas + surge - new - others
    return new + max(min(room, replicas - new), 0)


def old_sizes(new: Size, old: Sequence[Size], replicas: int, unavailable: int) -> list[int]:
    """What the old ReplicaSets shrink to, oldest first: pods that do not work go first, then as many as the available
    ones allow."""
    sizes = [one.replicas for one in old]
    least = replicas - unavailable
    working = [min(one.available, one.replicas) for one in old]
    new_working = min(new.available, new.replicas)
    spare = sum(sizes) + new_working - least
    if spare <= 0:
        return sizes
    for index, one in enumerate(old):
        useless = min(one.replicas - working[index], spare)
        sizes[index] -= useless
        spare -= useless
    spare = sum(working) + new_working - least
    for index, working_here in enumerate(working):
        going = max(min(sizes[index], working_here, spare), 0)
        sizes[index] -= going
        spare -= going
    return sizes


def shared(active: Sequence[Size], replicas: int, surge: int) -> list[int]:
    """A change of size in the middle of a rollout, shared in proportion. The ones to be served first come first."""
    allowed = replicas + surge if replicas else 0
    missing = allowed - sum(one.replicas for one in active)
    sizes, given = [], 0
    for one in active:
        part = _part(one, replicas, surge, missing - given) if missing else 0
        sizes.append(one.replicas + part)
        given += part
    if sizes and missing:
        sizes[0] = max(sizes[0] + missing - given, 0)
    return sizes


def _part(one: Size, replicas: int, surge: int, left: int) -> int:
    if one.replicas == 0 or left == 0:
        return 0
    if replicas == 0:
        fraction = -one.replicas
    else:
        fraction = _rounded(one.replicas * (replicas + surge), one.before or replicas) - one.replicas
    return min(fraction, left) if left > 0 else max(fraction, left)


def _rounded(above: int, below: int) -> int:
    """Half up."""
    return (2 * above + below) // (2 * below)
