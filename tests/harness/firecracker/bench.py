"""The Firecracker driver over the protocol-level stand-ins: a `Bench` of the contract suite, and a factory of its own.

The stand-ins are started as the programs `jailer` and `firecracker` of the settings, so everything about processes,
jails, sockets, users and groups is the driver's real work. Only what happens behind the API is played.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuboid.lib.linux import cgroup, processes
from cuboid.vmm.base import Boot, Driver, Vm, VmSpec
from cuboid.vmm.firecracker.driver import FirecrackerDriver
from cuboid.vmm.firecracker.vm import FirecrackerVm
from cuboid.vmm.qemu import boot
from cuboid.vmm.settings import VmmSettings
from tests.harness.firecracker.vmm import VERSION

ROOT = Path(__file__).resolve().parents[3]
UIDS = 100  # users per bench
ANSWER_SECONDS = 10.0
_numbers = itertools.count()


class FirecrackerBench:
    def __init__(self, **settings: Any) -> None:
        number = next(_numbers)
        self.folder = Path(tempfile.mkdtemp(prefix="cbf-"))
        self._faults = self.folder / "faults.json"
        self.faults()
        group = f"cuboid-fc-{os.getpid()}-{number}"
        first = 1_600_000_000 + (os.getpid() % 20_000) * 10_000 + number % 100 * UIDS
        self.settings = replace(
            VmmSettings(
                accel="kvm", jailer=str(self._jailer()), firecracker=str(self._firecracker()), firecracker_console=True,
                cgroup_parent=group, uid_base=first, uid_count=UIDS,
            ),
            **settings,
        )  # fmt: skip
        for name, content in (("vmlinux", elf_kernel()), ("initramfs", b"x" * boot.PAGE)):
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(0o644)
        self._drivers: list[FirecrackerDriver] = []
        self.driver: Driver = self.new_driver()

    def faults(self, **script: str) -> None:
        """What VMMs that are started from now on do wrong; keys as in the script, `PUT /x` given as `PUT_/x`."""
        self._faults.write_text(json.dumps({key.replace("_/", " /"): fault for key, fault in script.items()}))

    def _jailer(self) -> Path:
        lines = [
            f"#!{sys.executable}", "import sys", f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'src')!r}]",
            "from pathlib import Path", "from tests.harness.firecracker.jailer import main",
            f"main(sys.argv[1:], Path({str(self._faults)!r}))",
        ]  # fmt: skip
        return self._program("jailer", "\n".join(lines))

    def _firecracker(self) -> Path:
        return self._program("firecracker", f"#!/bin/sh\necho Firecracker v{VERSION}")

    def _program(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text + "\n")
        path.chmod(0o755)
        return path

    def new_driver(self) -> FirecrackerDriver:
        """Another driver over the same host state: what a restarted node agent has."""
        made = FirecrackerDriver(
            self.folder / "run", self.folder / "state", self.settings, kernel=self.folder / "vmlinux"
        )
        self._drivers.append(made)
        return made

    # -- Bench

    def spec(self, **changes: Any) -> VmSpec:
        values: dict[str, Any] = {
            "id": "vm-1", "boot": Boot(self.folder / "vmlinux", self.folder / "initramfs"),
            "vcpus": 1, "memory_mib": 128,
        }  # fmt: skip
        return VmSpec(**(values | changes))

    async def running(self, **changes: Any) -> Vm:
        vm = await self.driver.create(self.spec(**changes))
        await vm.start()
        return vm

    def met(self, vm: Vm) -> None:
        """Its guest answers whoever connects."""

    async def echo(self, vm: Vm, text: str) -> str:
        assert isinstance(vm, FirecrackerVm)
        connection = await vm.open_channel()
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        writer.write(text.encode() + b"\n")
        answer = await asyncio.wait_for(reader.readline(), ANSWER_SECONDS)
        writer.close()
        await writer.wait_closed()
        return answer.decode().strip()

    async def power_off(self, vm: Vm) -> None:
        assert await self.echo(vm, "poweroff") == ""

    async def panic(self, vm: Vm) -> None:
        assert await self.echo(vm, "panic") == ""

    async def kill_vmm(self, vm: Vm) -> None:
        os.kill(int(vm.handle()["pid"]), signal.SIGKILL)

    async def restart(self) -> None:
        await self.driver.close()
        self.driver = self.new_driver()

    async def close(self) -> None:
        """Ends every VM and asserts that nothing of them is left."""
        try:
            for vm_id in await self.driver.leftovers(set()):
                await self.driver.clean(vm_id)
            remains = self._remains()
        finally:
            for driver in self._drivers:
                await driver.close()
            for folder in cgroup.find(self.settings.cgroup_parent).folders(".").values():
                with suppress(OSError):
                    folder.rmdir()
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not remains, f"left on the host: {remains}"

    def _remains(self) -> list[str]:
        found = [str(path) for part in ("vmm", "vmm-users") for path in (self.folder / "run" / part).glob("*")]
        users = range(self.settings.uid_base, self.settings.uid_base + self.settings.uid_count)
        found += [f"process {pid}" for pid in processes.of_users(users)]
        found += [f"group {name}" for name in cgroup.find(self.settings.cgroup_parent).names()]
        found += [f"command {line}" for line in _commands() if str(self.folder) in line]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return found + [f"mount {line}" for line in mounts if str(self.folder) in line]


def _commands() -> Iterator[str]:
    """Command lines of all processes."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def elf_kernel() -> bytes:
    """As much of a kernel as is looked at: an ELF header, and a program header of one PVH note."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    note = struct.pack("<III", 4, 8, boot.PVH_NOTE) + b"Xen\0" + bytes(8)
    return header + struct.pack("<IIQQQQQQ", boot.PT_NOTE, 4, 120, 0, 0, len(note), len(note), 4) + note
