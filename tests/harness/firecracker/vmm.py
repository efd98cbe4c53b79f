"""A Firecracker that runs no guest: its API from the specification, its states, its files, and what it refuses.

Every request is validated against the specification, everything it names is really opened (disks, taps, sockets, log)
with the rights of the jail, and a script of faults makes it fail at any step. The guest is an echo on vsock port 1024
that also obeys `poweroff`, `panic`, `disks`, `count`, `number`, `memory` and `fill`; what
it knows is in its snapshots.

The script maps `METHOD /path` to: `slow:SECONDS`, a status (`400`), `malformed`, `list`, `oversized`, `chunked`,
`cut`, `silent`, `die`; `start` to `die` or `deaf`, `guest`
to `agent` for the scripted guest agent in place of the echo.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - nothing can be imported once the root is the jail
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cuboid.lib.linux import tap
from tests.harness.firecracker.specification import specification

VERSION = "1.17.0"
BEFORE, AFTER = (
    "The requested operation is not supported before starting the microVM.",
    "The requested operation is not supported after starting the microVM.",
)
PROBE_MARK = b"/kernel/reboot/type"
OPEN_LIMIT = 65536


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RefusedError(Exception):
    """Status 400 with this fault message."""


@dataclass
class Guest:
    """What the guest's memory holds. `number` counts up at `count`: a state that a snapshot keeps."""

    number: int = 0
    lines: list[str] = field(default_factory=list)


class Vmm:
    def __init__(self, vm_id: str, faults: dict[str, str]) -> None:
        self.id = vm_id
        self.faults = faults
        self.state = "Not started"
        self.config: dict[str, Any] = {}
        self.drives: dict[str, dict[str, Any]] = {}
        self.nics: dict[str, dict[str, Any]] = {}
        self.opened: dict[str, int] = {}
        self.log = 1
        self.guest = Guest()
        self.memory: mmap.mmap | None = None
        self.running = asyncio.Event()
        self.servers: list[asyncio.Server] = []
        self.agent: Serve | None = None

    def say(self, level: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        os.write(self.log, f"{stamp} [{self.id}:main:{level}] {text}\n".encode())

    def end(self, code: int) -> NoReturn:
        if code:
            self.say("ERROR", f"Firecracker exiting with error. exit_code={code}")
        else:
            self.say("INFO", "Firecracker exiting successfully. exit_code=0")
        os._exit(code)

    # -- requests

    async def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        errors = specification().request_errors(method, path, body)
        if errors:
            return 400, {"fault_message": f"Invalid request: {errors[0]}"}
        try:
            found = await self._act(method, path, body)
        except RefusedError as error:
            self.say("ERROR", f"Received Error. Status code: 400 Bad Request. Message: {error}")
            return 400, {"fault_message": str(error)}
        except OSError as error:
            return 400, {"fault_message": f"{error.strerror} (os error {error.errno}) {error.filename or ''}"}
        status = 204 if found is None else 200
        assert specification().answer_errors(method, path, status, found) == [], (method, path, found)
        return status, found

    async def _act(self, method: str, path: str, body: Any) -> Any:
        if method == "GET":
            return self._describe(path)
        fresh = self.state == "Not started"
        late = path in ("/vm", "/snapshot/create") or (method == "PATCH" and path.startswith("/drives"))
        if late and fresh:
            raise RefusedError(BEFORE)
        if not late and not fresh and path != "/actions":
            raise RefusedError(AFTER)
        match method, path:
            case "PUT", "/actions":
                await self._action(body["action_type"])
            case "PATCH", "/vm":
                self.state = "Paused" if body["state"] == "Paused" else "Running"
                self.running.set() if self.state == "Running" else self.running.clear()
            case "PUT", "/snapshot/create":
                self._save(body)
            case "PUT", "/snapshot/load":
                await self._load(body)
            case "PATCH", _ if path.startswith("/drives/"):
                self._patch_drive(body)
            case _:
                await self._configure(path, body)
        return None

    def _describe(self, path: str) -> Any:
        if path == "/":
            return {"app_name": "Firecracker", "id": self.id, "state": self.state, "vmm_version": VERSION}
        if path == "/version":
            return {"firecracker_version": VERSION}
        if path == "/machine-config":
            return self.config.get("machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
        if path == "/vm/config":
            return {"drives": list(self.drives.values()), "network-interfaces": list(self.nics.values()), **self.config}
        raise RefusedError(f"Invalid request method and/or path: GET {path}.")

    async def _configure(self, path: str, body: dict[str, Any]) -> None:
        kind, _, name = path.removeprefix("/").partition("/")
        if kind == "logger":
            self.log = os.open(body["log_path"], os.O_WRONLY | os.O_APPEND)
        elif kind == "metrics":
            os.open(body["metrics_path"], os.O_RDWR | os.O_NONBLOCK)
        elif kind == "drives":
            if body["drive_id"] != name:
                raise RefusedError("The id from the path does not match the id from the body!")
            await self._open_drive(body)
            self.drives[name] = body
        elif kind == "network-interfaces":
            self._open_tap(name, body["host_dev_name"])
            self.nics[name] = body
        elif kind == "vsock":
            await self._listen(body["uds_path"])
        elif kind == "boot-source":
            for file in ("kernel_image_path", "initrd_path"):
                os.close(os.open(body[file], os.O_RDONLY))
        if kind not in ("logger", "metrics", "drives", "network-interfaces"):
            self.config[kind] = body

    async def _open_drive(self, drive: dict[str, Any]) -> None:
        if (old := self.opened.pop(drive["drive_id"], None)) is not None:
            os.close(old)
        if "socket" in drive:
            _, writer = await asyncio.open_unix_connection(drive["socket"])
            self.opened[drive["drive_id"]] = writer.get_extra_info("socket").fileno()
            return
        flags = os.O_RDONLY if drive["is_read_only"] else os.O_RDWR
        self.opened[drive["drive_id"]] = os.open(drive["path_on_host"], flags)

    def _patch_drive(self, body: dict[str, Any]) -> None:
        drive = self.drives.get(body["drive_id"])
        if drive is None or "socket" in drive:
            raise RefusedError("Invalid block device ID!")
        flags = os.O_RDONLY if drive["is_read_only"] else os.O_RDWR
        fresh = os.open(body["path_on_host"], flags)
        os.close(self.opened[body["drive_id"]])
        self.opened[body["drive_id"]] = fresh
        drive.update(body)

    def _open_tap(self, name: str, device: str) -> None:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        tap.bind_tap(descriptor, device)
        self.opened[name] = descriptor

    async def _action(self, action: str) -> None:
        if action != "InstanceStart":
            return
        if self.state != "Not started":
            raise RefusedError(AFTER)
        source = self.config.get("boot-source")
        if source is None:
            raise RefusedError("Cannot start microvm without kernel configuration.")
        with Path(source["kernel_image_path"]).open("rb") as kernel:
            if kernel.read(4) != b"\x7fELF":
                raise RefusedError("Cannot load kernel due to invalid memory configuration or invalid kernel image")
        self._map(None)
        self.state = "Running"
        self.running.set()
        with Path(source["initrd_path"]).open("rb") as initrd:
            if PROBE_MARK in initrd.read(OPEN_LIMIT):
                asyncio.get_running_loop().call_later(0.02, self.end, 0)

    def _map(self, file: int | None) -> None:
        size = int(self.config["machine-config"]["mem_size_mib"]) << 20
        if file is None:
            self.memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.memory[:OPEN_LIMIT] = b"\1" * OPEN_LIMIT
        else:
            self.memory = mmap.mmap(file, size, mmap.MAP_PRIVATE)

    # -- snapshots

    def _save(self, body: dict[str, Any]) -> None:
        if self.state != "Paused":
            raise RefusedError("Cannot save while running: the microVM is not paused")
        if any("socket" in drive for drive in self.drives.values()):
            raise RefusedError("Vhost-user devices cannot be saved")
        assert self.memory is not None
        with Path(body["mem_file_path"]).open("wb") as file:
            file.write(self.memory)
        state = {
            "version": VERSION, "config": self.config, "drives": self.drives, "nics": self.nics,
            "guest": [self.guest.number, self.guest.lines],
        }  # fmt: skip
        with Path(body["snapshot_path"]).open("w") as file:
            json.dump(state, file)

    async def _load(self, body: dict[str, Any]) -> None:
        if self.config or self.drives or self.nics:
            raise RefusedError("Loading a microVM snapshot not allowed after configuring boot-specific resources.")
        try:
            with Path(body["snapshot_path"]).open() as file:
                state = json.load(file)
            await self._restore(body, state)
        except (OSError, ValueError, KeyError, RefusedError) as error:
            asyncio.get_running_loop().call_later(0.01, self.end, 1)  # "it might be in an invalid state"
            raise RefusedError(f"Load snapshot error: {error}") from error

    async def _restore(self, body: dict[str, Any], state: dict[str, Any]) -> None:
        self.config = state["config"]
        self.guest = Guest(*state["guest"])
        memory = os.open(body["mem_backend"]["backend_path"], os.O_RDONLY)
        if os.fstat(memory).st_size != int(self.config["machine-config"]["mem_size_mib"]) << 20:
            raise RefusedError("the memory file has another size")
        self._map(memory)
        os.close(memory)
        for drive in state["drives"].values():
            await self._open_drive(drive)
        self.drives = state["drives"]
        overrides = {row["iface_id"]: row["host_dev_name"] for row in body.get("network_overrides", ())}
        for name, nic in state["nics"].items():
            self._open_tap(name, overrides.get(name, nic["host_dev_name"]))
        self.nics = state["nics"]
        await self._listen(body.get("vsock_override", self.config["vsock"])["uds_path"])
        self.state = "Paused"
        if body.get("resume_vm"):
            self.state = "Running"
            self.running.set()

    # -- the guest

    async def _listen(self, path: str) -> None:
        self.servers.append(await asyncio.start_unix_server(self._vsock, path))

    async def _vsock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            line = await reader.readline()
            if self.faults.get("vsock") == "garbage":
                writer.write(b"HELLO THERE, STRANGER\n")
            elif self.state != "Not started" and line == b"CONNECT 1024\n":
                await self.running.wait()
                writer.write(b"OK 1073741824\n")
                if self.agent is not None:
                    await self.agent(reader, writer)
                while line := await reader.readline():
                    await self.running.wait()
                    writer.write(self._obey(line.decode().strip()).encode() + b"\n")
        writer.close()

    def _obey(self, line: str) -> str:
        self.guest.lines = [*self.guest.lines[-9:], line]
        if line == "poweroff":
            self.end(0)
        if line == "panic":
            if "console=ttyS0" in self.config["boot-source"]["boot_args"]:
                os.write(1, b"Kernel panic - not syncing: on request\n")
            self.say("ERROR", "Unexpected exit reason on vcpu run: Shutdown")
            self.end(1)
        if line == "count":
            self.guest.number += 1
        if line in ("count", "number"):
            return str(self.guest.number)
        if line == "disks":
            return " ".join(self._disk(drive) for drive in self.drives.values()) or "none"
        if line == "fill":
            assert self.memory is not None
            self.memory[:] = b"\3" * len(self.memory)
        if line == "memory":
            assert self.memory is not None
            self.memory[:OPEN_LIMIT] = b"\2" * OPEN_LIMIT  # a copy of its own, wherever it came from
        return line

    def _disk(self, drive: dict[str, Any]) -> str:
        """Its content's first bytes, as the guest would read them."""
        head = os.pread(self.opened[drive["drive_id"]], 8, 0).rstrip(b"\0").decode(errors="replace")
        return f"{drive['drive_id']}={head or '-'}"


class Server:
    """HTTP/1.1 on the API socket, and the script of faults."""

    def __init__(self, vmm: Vmm, faults: dict[str, str]) -> None:
        self.vmm = vmm
        self.faults = faults

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {key.lower(): value for key, _, value in (row.partition(": ") for row in head[1:-2])}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                data = await self._reply(method, path, json.loads(content) if content else None)
                writer.write(data)
                await writer.drain()
                if self.faults.get(f"{method} {path}") == "cut":
                    break
        writer.close()

    async def _reply(self, method: str, path: str, body: Any) -> bytes:
        fault = self.faults.get(f"{method} {path}", "")
        if fault == "die":
            os._exit(137)
        if fault == "silent":
            await asyncio.Event().wait()
        if fault.startswith("slow:"):
            await asyncio.sleep(float(fault.removeprefix("slow:")))
        if fault.isdecimal():
            return encode(int(fault), {"fault_message": "on request"})
        status, found = await self.vmm.answer(method, path, body)
        data = encode(status, found)
        return {
            "malformed": b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{not json",
            "list": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n[]",
            "garbage": b"\x00\xffgarbage\r\n\r\n",
            "oversized": b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n" + b"x" * 65536,
            "chunked": b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "cut": data[: len(data) // 2],
        }.get(fault, data)


def encode(status: int, body: Any) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
    if content:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


async def serve(vm_id: str, socket: str, faults: dict[str, str]) -> None:
    vmm = Vmm(vm_id, faults)
    vmm.say("INFO", f"Running Firecracker v{VERSION}")
    if faults.get("guest") == "agent":
        from tests.harness.firecracker.agent import started

        vmm.agent = await started(vmm.end)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, vmm.end, 0)
    await asyncio.start_unix_server(Server(vmm, faults).serve, socket)
    await asyncio.Event().wait()


def run(vm_id: str, words: list[str], faults: dict[str, str]) -> NoReturn:
    """Never returns: its process is a fork that must run nothing of whatever made it."""
    try:
        if words[0] != "--api-sock" or len(words) != 2:
            raise SystemExit(f"Arguments parsing error: {words}")
        if faults.get("start") == "die":
            print("Error: RunWithApi(on request)", file=sys.stderr, flush=True)
            os._exit(1)
        if faults.get("start") == "deaf":
            signal.pause()
        asyncio.run(serve(vm_id, words[1], faults))
    except BaseException as error:
        print(f"Error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)
