"""Starts of pods as a client of the API sees them: one process, one connection for calls, one watch, no command.

A start is timed from the moment its `POST` is sent to the container's first output on a stream that was asked for at
once, and to the moment the watch shows the pod Ready.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.common import BUSYBOX, Result
from cuboid.cli import config, manifest, status, streams
from cuboid.cli.api import Api, Upgrade, pods_path
from cuboid.cli.http import Source, ready
from cuboid.cli.websocket import Socket
from cuboid.lib.errors import CuboidError, NotFoundError

NAMESPACE = "default"
RECEIPT_SECONDS = 5.0
DEADLINE = 300.0  # seconds for all starts that were asked for together
ECHO = ("echo", "hello")  # what it writes is waited for
STAY = ("sh", "-c", "echo hello; sleep 3600")  # the same for fake guests, which end before anybody can attach
SLEEP = ("sleep", "3600")  # its readiness is waited for, and the receipt
Object = dict[str, Any]


@dataclass
class Start:
    """Seconds from the request; 0 for what did not come, or was not asked for."""

    name: str
    command: tuple[str, ...] = SLEEP
    begun: float = 0.0  # monotonic
    output: float = 0.0
    ready: float = 0.0
    failed: str = ""
    receipt: Result = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return bool(self.failed or (self.ready and self.receipt if self.command == SLEEP else self.output))

    @property
    def how(self) -> str:
        """`warm`, `restored` or `cold`."""
        return str(self.receipt.get("start", "?"))

    def phase(self, *names: str) -> float:
        """Seconds of these phases of the receipt together."""
        return sum(float(row["seconds"]) for row in self.receipt.get("phases", []) if row["name"] in names)


class Client:
    """Of one platform on this machine."""

    def __init__(self, state: Path) -> None:
        row = json.loads((state / "client.json").read_text())
        token, authority = (Path(row[key]).read_text().strip() for key in ("token_file", "ca_file"))
        self._api = Api(config.Connection(row["server"], token, authority, socket=row["socket"]))

    def start(self, names: Sequence[str], *, memory: str = "", command: tuple[str, ...] = SLEEP) -> list[Start]:
        """Ask for all of these pods, one request after the other, and wait until each is ready or has failed."""
        run = _Run(self._api)
        try:
            for name in names:
                run.ask(name, memory, command)
                run.look(0.0)
            until = time.monotonic() + DEADLINE
            while not run.done and (left := until - time.monotonic()) > 0:
                run.look(left)
        finally:
            run.close()
        for start in run.starts.values():
            start.receipt = start.receipt or self._receipt(start.name)
            start.failed = start.failed or ("" if start.done else f"not ready within {DEADLINE:g} s")
        return list(run.starts.values())

    def _receipt(self, name: str) -> Result:
        """It is written after all that people wait for."""
        until = time.monotonic() + RECEIPT_SECONDS
        while time.monotonic() < until:
            if found := status.receipt(self._api.get(pods_path(NAMESPACE, name))):
                return found
            time.sleep(0.05)
        return {}

    def remove(self, names: Sequence[str]) -> None:
        """Gone when this returns."""
        for name in names:
            with suppress(NotFoundError):
                self._api.delete(pods_path(NAMESPACE, name), {"gracePeriodSeconds": 0})
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            left = {row["metadata"]["name"] for row in self._api.get(pods_path(NAMESPACE))["items"]}
            if not left & set(names):
                return
            time.sleep(0.05)
        raise AssertionError(f"not removed: {left}")


class _Run:
    def __init__(self, api: Api) -> None:
        self._api = api
        version = api.get(pods_path(NAMESPACE))["metadata"]["resourceVersion"]
        self._changes = api.changes(pods_path(NAMESPACE), version=version)
        self._asked: dict[Upgrade, Start] = {}
        self._streams: dict[Socket, Start] = {}
        self.starts: dict[str, Start] = {}

    @property
    def done(self) -> bool:
        return all(start.done for start in self.starts.values())

    def ask(self, name: str, memory: str, command: tuple[str, ...]) -> None:
        listens = command != SLEEP
        pod = manifest.pod(manifest.RunOptions(BUSYBOX, args=command, name=name, memory=memory, attach=listens))
        start = self.starts[name] = Start(name, command, time.monotonic())
        self._api.post(pods_path(NAMESPACE), pod)
        if not listens:
            return
        query = [("container", "main"), ("stdout", "true"), ("history", "true"), ("wait", "true")]
        self._asked[self._api.upgrade(pods_path(NAMESPACE, name, "attach"), query, streams.EXEC)] = start

    def look(self, seconds: float) -> None:
        sources: list[Source] = [self._changes, *self._asked, *self._streams]
        for source in ready(sources, seconds):
            now = time.monotonic()
            if isinstance(source, Upgrade):
                self._attached(source)
            elif isinstance(source, Socket):
                self._heard(source, now)
            else:
                for kind, pod in self._changes.take():
                    self._changed(kind, pod, now)

    def _attached(self, asked: Upgrade) -> None:
        start = self._asked.pop(asked)
        try:
            self._streams[asked.finish()] = start
        except CuboidError as error:
            start.failed = str(error)

    def _heard(self, stream: Socket, now: float) -> None:
        start = self._streams[stream]
        if any(message[:1] == bytes([streams.STDOUT]) and message[1:] for message in stream.receive()):
            start.output = start.output or now - start.begun
        if stream.over or start.output:
            stream.close()
            del self._streams[stream]
            start.failed = start.failed or ("" if start.output else "the stream ended without output")

    def _changed(self, kind: str, pod: Object, now: float) -> None:
        start = self.starts.get(pod["metadata"]["name"])
        if start is None:
            return
        start.receipt = status.receipt(pod) or start.receipt
        if pod.get("status", {}).get("phase") == "Failed" or kind == "DELETED":
            start.failed = str(status.problem(pod))
        elif _is_ready(pod):
            start.ready = start.ready or now - start.begun

    def close(self) -> None:
        self._changes.close()
        for asked in self._asked:
            asked.close()
        for stream in self._streams:
            stream.close()


def _is_ready(pod: Object) -> bool:
    rows = pod.get("status", {}).get("conditions", [])
    return any(row["type"] == "Ready" and row["status"] == "True" for row in rows)


def names(prefix: str, count: int) -> Iterator[str]:
    return (f"{prefix}-{number}" for number in range(count))
