"""The floor of a restored start: a bare QEMU clone of a paused template, until its PID 1 (`echo.c`) answers on a port.

No agent, no disks, no network, no jail. Machine, CPU and kernel command line are the product's.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.floor import Bare

SOURCE = Path(__file__).resolve().parent / "echo.c"
DEADLINE = 30.0  # seconds for any one answer
LOOK = 0.0005  # seconds between two looks at what QEMU does not tell by itself
IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}


class Clones:
    """Makes the template at once; each call of `clone` restores it in a new process."""

    def __init__(self, bare: Bare) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cuboid-clones-", dir="/dev/shm")
        self._bare = bare
        self._initramfs = bare.initramfs(SOURCE, Path(self._folder.name))
        with self._machine(shared=True) as (port, monitor):
            _await(port, b"up\n")
            monitor.call("migrate-set-capabilities", **IGNORE_SHARED)
            monitor.call("stop")
            monitor.call("migrate", uri=f"file:{self._folder.name}/state")
            monitor.migrated()

    def clone(self) -> float:
        """Seconds from the start of the process to the guest's answer."""
        started = time.monotonic()
        with self._machine("-incoming", "defer", shared=False) as (port, monitor):
            monitor.call("migrate-set-capabilities", **IGNORE_SHARED)
            monitor.call("migrate-incoming", uri=f"file:{self._folder.name}/state")
            monitor.migrated()
            monitor.call("cont")
            port.sendall(b"there?\n")
            _await(port, b"there?\n")
            return time.monotonic() - started

    @contextmanager
    def _machine(self, *more: str, shared: bool) -> Iterator[tuple[socket.socket, Monitor]]:
        folder = Path(self._folder.name)
        backend = f"memory-backend-file,id=ram,size={self._bare.memory_mib}M,mem-path={folder}/ram"
        command = [
            *self._bare.command(memory_backend="ram"), "-kernel", str(self._bare.entered), "-initrd", self._initramfs,
            "-global", "virtio-mmio.force-legacy=false", "-object", f"{backend},share={'on' if shared else 'off'}",
            "-qmp", f"unix:{folder}/monitor,server=on,wait=off",
            "-chardev", f"socket,id=port,path={folder}/port,server=on,wait=off",
            "-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=port,nr=1", *more,
        ]  # fmt: skip
        for name in ("monitor", "port"):
            (folder / name).unlink(missing_ok=True)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            with _connected(folder / "port") as port, _connected(folder / "monitor") as monitor:
                yield port, Monitor(monitor)
        finally:
            process.kill()
            process.wait(DEADLINE)

    def close(self) -> None:
        self._folder.cleanup()


class Monitor:
    """As much of QMP as this needs."""

    def __init__(self, wire: socket.socket) -> None:
        self._file = wire.makefile("rw")
        self._file.readline()  # the greeting
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: Any) -> Any:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}))
        self._file.flush()
        for line in self._file:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            assert "error" not in answer, f"{command}: {answer}"
        raise AssertionError("QEMU ended")

    def migrated(self) -> None:
        until = time.monotonic() + DEADLINE
        while (state := self.call("query-migrate").get("status")) != "completed":
            assert state != "failed" and time.monotonic() < until, f"migration: {state}"
            time.sleep(LOOK)


def _connected(path: Path) -> socket.socket:
    until = time.monotonic() + DEADLINE
    while True:
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(DEADLINE)
        try:
            wire.connect(str(path))
            return wire
        except OSError:
            wire.close()
            assert time.monotonic() < until, f"{path} does not answer"
        time.sleep(LOOK)


def _await(port: socket.socket, wanted: bytes) -> None:
    got = b""
    while wanted not in got:
        piece = port.recv(4096)
        assert piece, "the guest ended"
        got += piece
