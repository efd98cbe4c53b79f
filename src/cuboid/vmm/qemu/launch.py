"""Starting a jailed VMM: what it is given, and the launcher that becomes it."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cuboid.lib import proc
from cuboid.lib.errors import ProcessError, UnavailableError, UnsupportedError
from cuboid.vmm.base import Boot, VmSpec
from cuboid.vmm.qemu import boot, command, console, descriptors
from cuboid.vmm.qemu.command import Memory
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.qemu.migration import Incoming
from cuboid.vmm.qemu.plan import FIRST_FD, Plan
from cuboid.vmm.qemu.snapshotting import Made
from cuboid.vmm.settings import VmmSettings
from cuboid.vmm.snapshots import shape_of

ROOT_BYTES = 1 << 20  # the jail's root: folders and empty mount points
READ_ONLY_BINDS = ("/usr", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
LINKS = (("usr/lib", "/lib"), ("usr/lib64", "/lib64"))
MAX_FILES = 512
TREE = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Order:
    """A VMM to start."""

    spec: VmSpec
    host: command.Host
    memory: Memory
    memory_file: Path | None = None  # for a template (writable) and a clone (only read)
    memory_offset: int = 0  # where in that file it begins, in bytes
    state_file: Path | None = None  # of the devices, for a VM that goes on from a snapshot
    incoming: Incoming | None = None  # given together with it

    @property
    def made(self) -> Made:
        return Made(shape_of(self.spec), self.memory)


@dataclass(frozen=True)
class Started:
    pid: int
    console: console.Console


class Launch:
    def __init__(self, settings: VmmSettings, cache: Path) -> None:
        self._settings = settings
        self._cache = cache
        self.library = _built("cuboid-memory.so")  # memory.c

    async def start(self, order: Order, jail: Jail, uid: int) -> Started:
        """The VMM has been executed; whether it likes its arguments is seen when connecting to it."""
        spec, host = order.spec, order.host
        binds = [(path, path) for path in READ_ONLY_BINDS if Path(path).exists()]
        if order.state_file is None:
            binds += await self._boot_files(spec.boot, host)
        memory = [(str(order.memory_file), command.MEMORY_INSIDE)] if order.memory_file else []
        writable = memory if order.memory is Memory.TEMPLATE else []
        library = self.library if order.memory is Memory.CLONE else None
        if order.memory is Memory.CLONE:
            binds += memory
        if library is not None:
            binds.append((str(library), command.LIBRARY_INSIDE))
        for disk in spec.disks:
            jail.note_disk(disk.serial, disk.path)
        jail.record.write_bytes(msgspec.json.encode(order.made))
        with ExitStack() as opened:
            listeners = [opened.enter_context(listener) for listener in jail.listen()]
            output, console_fd, log_fd = console.make(self._settings.console_kib << 10)
            opened.callback(os.close, console_fd)
            opened.callback(os.close, log_fd)
            given = _Given([*(listener.fileno() for listener in listeners), console_fd])
            try:
                fds = self._descriptors(order, given, opened)
                plan = Plan(
                    root=str(jail.root), root_size=ROOT_BYTES, links=LINKS,
                    binds=tuple(binds), writable=tuple(writable),
                    netns=str(spec.netns or ""), taps=tuple(nic.tap for nic in spec.nics),
                    cgroups=tuple(str(file) for file in jail.group.join_files), fds=tuple(given.numbers),
                    stderr=log_fd, uid=uid, max_processes=spec.limits.pids, max_files=MAX_FILES,
                    pid_file=str(jail.pid_file), preload=command.LIBRARY_INSIDE if library else "",
                    argv=tuple(command.build(spec, host, fds, order.memory, order.memory_offset)),
                )  # fmt: skip
                pid = await self._run(plan, [*given.numbers, log_fd])
            except BaseException:
                output.close()
                raise
        # Our copies of the listening sockets are closed by now: a VMM that dies cuts the connection to it.
        return Started(pid, output)

    async def _boot_files(self, files: Boot, host: command.Host) -> list[tuple[str, str]]:
        kernel = boot.kernel(files.kernel)
        if host.accel == "tcg":  # KVM unpacks in no time, and the kernel's own unpacking chooses its address at random
            kernel = await asyncio.to_thread(boot.unpacked, kernel, self._cache)
        initramfs = boot.initramfs(files.initramfs, self._cache)
        return [(str(kernel), command.KERNEL_INSIDE), (str(initramfs), command.INITRAMFS_INSIDE)]

    def _descriptors(self, order: Order, given: _Given, opened: ExitStack) -> command.Descriptors:
        """Open what the VMM needs; the taps are opened by the launcher and come last."""
        kvm = state = -1
        if order.host.accel == "kvm":
            kvm = given.add(opened.enter_context(descriptors.opened(Path("/dev/kvm"), os.O_RDWR, "the device")))
        if order.state_file is not None:
            source = descriptors.opened(order.state_file, os.O_RDONLY, "the device state")
            state = given.add(opened.enter_context(source))
        gauge = given.add(opened.enter_context(descriptors.memory("gauge"))) if order.spec.disks else -1
        disks = []
        for disk in order.spec.disks:
            number = opened.enter_context(descriptors.disk(disk.path, read_only=disk.read_only))
            disks.append(given.add(number) if number >= 0 else -1)
        after = FIRST_FD + len(given.numbers)
        return command.Descriptors(
            qmp=FIRST_FD, channel=FIRST_FD + 1, console=FIRST_FD + 2, kvm=kvm,
            state=state, gauge=gauge, disks=tuple(disks), taps=tuple(range(after, after + len(order.spec.nics))),
        )  # fmt: skip

    async def _run(self, plan: Plan, fds: list[int]) -> int:
        program: list[str | Path] = [launcher(), *plan.words()]
        try:
            result = await proc.run(program, timeout=self._settings.create_seconds, pass_fds=fds, output_limit=64)
        except ProcessError as error:
            raise UnavailableError(f"the VM's jail cannot be made: {last_line(error.stderr)}") from error
        return int(result.text)


def launcher() -> Path:
    """launcher.rs, compiled. UnsupportedError if it is not."""
    if (found := _built("cuboid-launcher")) is None:
        raise UnsupportedError("what starts VMs under QEMU has not been built", hint="tools/build_guest.sh")
    return found


def _built(name: str) -> Path | None:
    """A program or library of ours, in the development tree or installed."""
    places = (TREE / "build/guest", Path("/usr/lib/cuboid"))
    return next((found for place in places if (found := place / name).exists()), None)


class _Given:
    """Descriptors in the order in which the VMM finds them, from FIRST_FD on."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def add(self, number: int) -> int:
        """Returns the number under which the VMM finds it."""
        self.numbers.append(number)
        return FIRST_FD + len(self.numbers) - 1


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def complaint(text: str) -> str:
    """QEMU's error among what it said: its last line under its own name (a line of advice may follow)."""
    named = [line for line in text.splitlines() if line.startswith("qemu-system-") and ": warning: " not in line]
    return named[-1].partition(": ")[2].strip() if named else last_line(text)
