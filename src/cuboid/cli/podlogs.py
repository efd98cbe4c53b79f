"""What several pods write, as they write it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cuboid.cli import status
from cuboid.cli.api import Api, pods_path
from cuboid.lib.errors import CuboidError

Object = dict[str, Any]
_AT_ONCE = 64
_LINE = 1 << 20  # bytes of a line that are held back until its end


def after_name(name: str, line: bytes) -> bytes:
    """A line behind the name of its pod."""
    return f"{name} | ".encode() + line


class Logs:
    """Prints each pod's log once, with the query's options; whole lines as `form(pod, line)` makes them, if given."""

    def __init__(
        self, api: Api, namespace: str, query: dict[str, str], form: Callable[[str, bytes], bytes] | None = None
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._query = query
        self._form = form
        self._threads = ThreadPoolExecutor(_AT_ONCE)
        self._printing: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def see(self, pods: Sequence[Object], container: str = "") -> None:
        """Those that have started and are not printed yet."""
        for pod in pods:
            if status.started(pod) and pod["metadata"]["uid"] not in self._printing:
                which = container or status.main_container(pod)
                self._printing[pod["metadata"]["uid"]] = self._threads.submit(
                    self._print, pod["metadata"]["name"], which
                )

    def _print(self, name: str, container: str) -> None:
        query = self._query | {"container": container}
        try:
            with self._api.stream("GET", pods_path(self._namespace, name, "log"), query=query) as response:
                while data := response.readline(_LINE) if self._form else response.read1(65536):
                    self._write(name, data)
        except (CuboidError, OSError):  # the pod is gone meanwhile, and its log with it
            return

    def _write(self, name: str, data: bytes) -> None:
        if self._form:
            data = self._form(name, data if data.endswith(b"\n") else data + b"\n")
        with self._lock:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def finish(self) -> None:
        """Until all has been printed."""
        for printing in self._printing.values():
            printing.result()
        self._threads.shutdown()
