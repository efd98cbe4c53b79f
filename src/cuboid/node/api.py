"""What the node agent asks of the Kubernetes API."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

Raw = dict[str, Any]


class Change(enum.StrEnum):
    SET = "set"  # added, modified, or part of a new list
    GONE = "gone"
    SYNCED = "synced"  # every pod of this node has been told; what has not been is not there


@dataclass(frozen=True)
class PodChange:
    change: Change
    pod: Raw | None = None


class Api(Protocol):
    """Errors are those of `cuboid.lib.errors`; a call that gets no answer raises UnavailableError or DeadlineError."""

    def pods(self, node: str) -> AsyncIterator[PodChange]:
        """The pods bound to this node and their changes, for ever, over any number of reconnections."""
        ...

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status: Raw) -> None:
        """Merge patch of `.status`. NotFoundError; ConflictError if it is another pod of that name by now."""
        ...

    async def annotate_pod(self, namespace: str, name: str, annotations: dict[str, str]) -> None: ...

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """With grace 0. NotFoundError, ConflictError as above."""
        ...

    async def put_node(self, node: Raw) -> None:
        """Create the Node object, or bring its labels, annotations and status up to date."""
        ...

    async def renew_lease(self, node: str, seconds: int) -> None: ...
