"""How the node agent's edges (HTTPS API, volume refresher, metrics) see its pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from cuboid.guest.base import Guest
from cuboid.kube.types import Pod
from cuboid.vmm.base import VmStats


class PodView(Protocol):
    """One pod of this node, as it is now."""

    @property
    def uid(self) -> str: ...

    @property
    def pod(self) -> Pod: ...

    @property
    def containers(self) -> list[str]:
        """Names, init containers first."""
        ...

    def guest(self) -> Guest:
        """UnavailableError while the pod's VM is not up."""
        ...

    def running(self, container: str) -> bool: ...

    def begun(self, container: str) -> bool:
        """It runs, or has run in the present life of the pod's machine."""
        ...

    def tty(self, container: str) -> bool: ...

    async def vmm_stats(self) -> VmStats | None:
        """What the pod's VMM takes of the host; None while there is none. CuboidError if it does not tell."""
        ...

    def log_folder(self, container: str) -> Path:
        """The folder of `0.log`; it exists once the container has started for the first time."""
        ...


class PodAccess(Protocol):
    def find(self, namespace: str, name: str) -> PodView | None: ...

    def pods(self) -> list[PodView]: ...

    def machines(self) -> list[dict[str, Any]]:
        """Machines made ahead that are no pod's yet."""
        ...

    async def news(self, namespace: str, name: str) -> None:
        """Returns when a pod of this name comes to this node, or its state changes."""
        ...
