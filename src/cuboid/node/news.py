"""Who waits for a pod is told when it comes to this node and when it changes. What has changed, they look up."""

from __future__ import annotations

import asyncio

Place = tuple[str, str]  # namespace and name


class News:
    def __init__(self) -> None:
        self._waiting: dict[Place, set[asyncio.Future[None]]] = {}

    def tell(self, namespace: str, name: str) -> None:
        for future in self._waiting.pop((namespace, name), ()):
            if not future.done():
                future.set_result(None)

    async def about(self, namespace: str, name: str) -> None:
        """Returns at the next change. What changed before this was called is not told: look first, then wait."""
        place, future = (namespace, name), asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place, set()).add(future)
        try:
            await future
        finally:
            left = self._waiting.get(place)
            if left is not None:
                left.discard(future)
                if not left:
                    del self._waiting[place]

    def __len__(self) -> int:
        """Pods that are waited for."""
        return len(self._waiting)
