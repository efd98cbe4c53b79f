"""What an object gets when it is created: its name, its uid, its age."""

from __future__ import annotations

import os
from typing import Any

from cuboid.kube import status
from cuboid.kube.kind import Kind

Object = dict[str, Any]
BY_UPDATE = frozenset((
    ("", "endpoints"), ("", "events"), ("", "limitranges"), ("", "services"), ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"), ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"), ("rbac.authorization.k8s.io", "roles"),
))  # fmt: skip
"""Kinds of which a PUT creates what is missing: those with `AllowCreateOnUpdate` in Kubernetes."""
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_LONGEST_PREFIX = 58
_entropy = bytearray()


def born(new: Object, now: str, kind: Kind) -> None:
    """Set what the server sets, and drop what only it does."""
    metadata = new["metadata"]
    if metadata.get("resourceVersion"):
        raise status.bad_request("resourceVersion should not be set on objects to be created")
    for key in (
        "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation", "managedFields",
    ):  # fmt: skip
        metadata.pop(key, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = now
    if kind.strategy.has_generation:
        metadata["generation"] = 1
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated(metadata["generateName"])


def new_uid() -> str:
    """A random UUID."""
    digits = _random(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _random(count: int) -> bytes:
    """Entropy is taken in pages: one system call per object costs more than the rest of its birth."""
    if len(_entropy) < count:
        _entropy[:] = os.urandom(4096)
    taken = bytes(_entropy[-count:])
    del _entropy[-count:]
    return taken


def generated(prefix: str) -> str:
    """A name with five random letters, of at most 63 characters."""
    number, letters = int.from_bytes(_random(8), "big"), ""
    for _ in range(5):
        number, index = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[index]
    return prefix[:_LONGEST_PREFIX] + letters
