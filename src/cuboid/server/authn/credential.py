"""What an authenticator says of a request: who it is, and whether that still holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cuboid.kube.identity import User


def always() -> bool:
    return True


@dataclass(frozen=True)
class Credential:
    """`valid` is asked again while a stream is open: false when it has expired or was taken back.

    `audiences` are those that a token was made for, empty for one that is for this server alone.
    """

    user: User
    valid: Callable[[], bool] = always
    audiences: tuple[str, ...] = ()
