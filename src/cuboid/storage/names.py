"""Names that become file names: checked here once."""

from __future__ import annotations

import re

from cuboid.lib.errors import InvalidError

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label, as in Kubernetes
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")  # as in Docker, no longer than a label
_UID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


def check_volume(namespace: str, name: str) -> None:
    """InvalidError unless both are names of their kinds."""
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidError(f"{namespace!r} is not a namespace's name", hint="small letters, digits and -")
    if not _VOLUME.fullmatch(name):
        raise InvalidError(
            f"{name!r} is not a volume's name",
            hint="1 to 63 of letters, digits, _ . and -, starting with a letter or digit",
        )


def check_uid(uid: str) -> str:
    """The uid itself; InvalidError if it cannot name a file."""
    if not _UID.fullmatch(uid):
        raise InvalidError(f"{uid!r} is not a pod uid")
    return uid
