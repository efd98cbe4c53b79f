"""Giving up privileges for good: capabilities, no_new_privs, ids, limits."""

from __future__ import annotations

import os
import resource

from cuboid.lib.linux import libc

PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def drop_bounding_set() -> None:
    """No program that this process executes can gain a capability again. Needs CAP_SETPCAP."""
    for capability in range(64):
        try:
            libc.call("prctl", PR_CAPBSET_READ, capability, 0, 0, 0)
        except OSError:
            return  # beyond the last capability that this kernel knows
        libc.call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)


def become(uid: int, gid: int) -> None:
    """Change to an unprivileged user without supplementary groups, capabilities or a way back."""
    if uid == 0 or gid == 0:
        raise ValueError("become() is for unprivileged users")
    libc.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    drop_bounding_set()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)  # leaving uid 0 clears the permitted and effective sets
    libc.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def lower_limit(kind: int, value: int) -> None:
    """Set both limits of a resource to `value`, or to the present hard limit where that is lower."""
    _, hard = resource.getrlimit(kind)
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (wanted, wanted))
