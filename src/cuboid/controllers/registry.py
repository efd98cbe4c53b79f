"""Which controllers there are, and which of them a real cluster lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cuboid.kube.controller.view import Controller


@dataclass(frozen=True)
class Row:
    """`make` gives a new one. `everywhere`: a real Kubernetes does not have it, so it is started there as well."""

    make: Callable[[], Controller]
    everywhere: bool = False


ALL: tuple[Row, ...] = ()


def chosen(*, embedded: bool) -> list[Controller]:
    """New controllers: all of them for the embedded API server, else only those that Kubernetes lacks."""
    return [row.make() for row in ALL if embedded or row.everywhere]
