"""Logs of several pods: each once, whole lines, and an end when it is asked for."""

from __future__ import annotations

import io
import socket
import threading
import time
from typing import Any, Self, cast

import pytest

from cuboid.cli.api import Api
from cuboid.cli.podlogs import Logs, after_name
from cuboid.lib.errors import NotFoundError

Object = dict[str, Any]


class Response(io.BufferedReader):
    def __init__(self, wire: socket.socket) -> None:
        super().__init__(socket.SocketIO(wire, "r"))
        self._wire = wire

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()


class FakeApi:
    """Each pod's log is a socket that the test writes to."""

    def __init__(self, *pods: str) -> None:
        self.asked: list[str] = []
        self.pipes = {name: socket.socketpair() for name in pods}

    def stream(self, method: str, path: str, *, query: dict[str, str]) -> Response:
        name = path.split("/")[-2]
        self.asked.append(name)
        if name not in self.pipes:
            raise NotFoundError("gone")
        return Response(self.pipes[name][0])

    def write(self, name: str, text: bytes, *, end: bool = False) -> None:
        self.pipes[name][1].sendall(text)
        if end:
            self.pipes[name][1].close()

    def close(self) -> None:
        for pair in self.pipes.values():
            for wire in pair:
                wire.close()


class Output:
    """Stands in for stdout. `broken` has no reader."""

    def __init__(self, *, broken: bool = False) -> None:
        self.buffer = self
        self.text = b""
        self._broken = broken

    def write(self, data: bytes) -> None:
        if self._broken:
            raise BrokenPipeError
        self.text += data

    def flush(self) -> None:
        pass


def pod(name: str, *, started: bool = True) -> Object:
    state: Object = {"running": {}} if started else {"waiting": {}}
    rows = [{"name": "main", "state": state}]
    return {
        "metadata": {"name": name, "uid": name},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"containerStatuses": rows},
    }


def printing(monkeypatch: pytest.MonkeyPatch, *, broken: bool = False) -> Output:
    output = Output(broken=broken)
    monkeypatch.setattr("sys.stdout", output)
    return output


def test_lines_of_several_pods_are_whole_and_behind_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    output, api = printing(monkeypatch), FakeApi("a", "b")
    api.write("a", b"one\ntw", end=True)
    api.write("b", b"three\n", end=True)
    with Logs(cast("Api", api), "d", {}, after_name) as logs:
        logs.see([pod("a"), pod("b"), pod("c", started=False), pod("gone")])
        logs.see([pod("a")])
        logs.finish()
    api.close()
    assert sorted(output.text.splitlines()) == [b"a | one", b"a | tw", b"b | three"]
    assert sorted(api.asked) == ["a", "b", "gone"], "each once; not what has not started"


def test_who_leaves_does_not_wait_for_a_pod_that_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    printing(monkeypatch)
    api = FakeApi("silent")
    before = threading.active_count()
    with Logs(cast("Api", api), "d", {"follow": "true"}) as logs:
        logs.see([pod("silent")])
        while not api.asked:
            time.sleep(0.01)
    assert threading.active_count() == before
    api.close()


def test_when_nobody_reads_it_any_more_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    printing(monkeypatch, broken=True)
    api = FakeApi("a")
    api.write("a", b"x\n")
    with Logs(cast("Api", api), "d", {}) as logs:
        logs.see([pod("a")])
        logs.finish()
        with pytest.raises(BrokenPipeError):
            logs.see([pod("a")])
    api.close()
