"""What the node agent asks of the Kubernetes API."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

Raw = dict[str, Any]


class Change(enum.StrEnum):
    SET = "set"  # added, modified, or part of a first list
    GONE = "gone"
    SYNCED = "synced"  # the first list is in: `uids` are all pods that there are


@dataclass(frozen=True)
class PodChange:
    change: Change
    pod: Raw = field(default_factory=dict)
    uids: frozenset[str] = frozenset()


class Api(Protocol):
    """Errors are those of `cuboid.lib.errors`; a call that gets no answer raises UnavailableError or DeadlineError."""

    async def watch_pods(self, node: str, on_change: Callable[[PodChange], None]) -> None:
        """Tell of the pods bound to this node and of every change, for ever, over any number of reconnections."""
        ...

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status: Raw) -> None:
        """Merge patch of `.status`. NotFoundError; ConflictError if it is another pod of that name by now."""
        ...

    async def annotate_pod(self, namespace: str, name: str, uid: str, annotations: dict[str, str]) -> None: ...

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """With grace 0. NotFoundError, ConflictError as above."""
        ...

    async def put_node(self, node: Raw) -> bool:
        """Create the Node object, or bring its labels, annotations and status up to date. True if the API had taken
        the node for lost: then it has said of this node's pods, too, that they are not ready."""
        ...

    async def renew_lease(self, node: str, seconds: int) -> None: ...
