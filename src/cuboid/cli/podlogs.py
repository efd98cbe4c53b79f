"""What several pods write, as they write it."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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
    """Prints each pod's log once, with the query's options; whole lines as `form(pod, line)` makes them, if given.

    A context manager: what is still read when it is left, is read no more.
    """

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
        self._out = threading.Lock()
        self._unread = False  # nobody reads what is printed any more
        self._open: set[int] = set()  # descriptors that are read
        self._left = False

    def see(self, pods: Sequence[Object], container: str = "") -> None:
        """Those that have started and are not printed yet. BrokenPipeError when nobody reads it any more."""
        if self._unread:
            raise BrokenPipeError
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
                descriptor = response.fileno()
                with self._lock:
                    if self._left:
                        return
                    self._open.add(descriptor)
                try:
                    while data := response.readline(_LINE) if self._form else response.read1(65536):
                        self._write(name, data)
                finally:
                    with self._lock:
                        self._open.discard(descriptor)
        except (CuboidError, OSError):  # the pod is gone meanwhile, and its log with it
            return

    def _write(self, name: str, data: bytes) -> None:
        if self._form:
            data = self._form(name, data if data.endswith(b"\n") else data + b"\n")
        try:
            with self._out:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            self._unread = True
            raise

    def finish(self) -> None:
        """Until all has been printed."""
        for printing in self._printing.values():
            printing.result()

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._left = True
            for descriptor in self._open:
                with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as wire:
                    wire.shutdown(socket.SHUT_RDWR)  # ends a read that waits in another thread
        self._threads.shutdown(cancel_futures=True)
