"""Lower limits for a process that is to be confined."""

from __future__ import annotations

import resource

PR_SET_NO_NEW_PRIVS = 38


def lower_limit(kind: int, value: int) -> None:
    """Set both limits of a resource to `value`, or to the present hard limit where that is lower."""
    _, hard = resource.getrlimit(kind)
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (wanted, wanted))
