"""Templates on disk: asked for by shape, built in the background, verified before their first use, dropped when stale.

`<state>/templates/KEY` is a snapshot as its driver wrote it; the key names everything that it depends on, so a template
of another kernel, agent, VMM or CPU is never found, only swept.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuboid.guest.base import Guest
from cuboid.lib.aio import in_thread, within
from cuboid.lib.clock import Clock
from cuboid.lib.errors import CuboidError, DeadlineError, UnavailableError
from cuboid.lib.log import get_log
from cuboid.node.steps.gate import BootGate
from cuboid.node.warm.relay import GuestFactory, Relay
from cuboid.node.warm.shape import MTU, Shape, key
from cuboid.vmm.base import Driver, HostLimits, Nic, Vm, VmSpec

log = get_log(__name__)
TAP, MAC = "tap0", "02:00:00:00:00:01"  # in a namespace of the template's own, which nobody else is in
BUILD_SECONDS = 120.0
RETRY_SECONDS = 60.0  # after a failed build
PATIENCE_SECONDS = 5.0  # for starts to be over
VM_PREFIX = "template-"


class Stage(enum.Enum):
    WAITING = "waiting"  # for the builder to look at it
    READY = "ready"
    FAILED = "failed"


@dataclass
class _Entry:
    shape: Shape
    stage: Stage = Stage.WAITING
    retry_at: float = 0.0


class Templates:
    """`folder` must be on a disk: memory files are mapped from there. At most `keep` templates are kept."""

    def __init__(
        self, folder: Path, driver: Driver, guest: GuestFactory, gate: BootGate, clock: Clock, *,
        boot_seconds: float, keep: int,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._driver = driver
        self._guest = guest
        self._gate = gate
        self._clock = clock
        self._boot_seconds = boot_seconds
        self._keep = keep
        self._entries: OrderedDict[Shape, _Entry] = OrderedDict()  # least recently used first
        self._keys: dict[Shape, str] = {}
        self._digests: dict[tuple[Path, int, int], str] = {}
        self._queue: asyncio.Queue[Shape] = asyncio.Queue()
        self._favoured: Shape | None = None
        self.on_change: Callable[[], None] = lambda: None  # told when a template has become ready, or cannot be made
        self._numbers = 0

    @property
    def usable(self) -> bool:
        """Whether this driver restores anything, into slots that are filled later."""
        can = self._driver.capabilities()
        return self._keep > 0 and can.snapshot and can.late_disks

    def find(self, shape: Shape) -> Path | None:
        """The folder to restore from if it is ready; otherwise it is being made from now on."""
        if not self.usable:
            return None
        entry = self._entries.get(shape)
        if entry is None or (entry.stage is Stage.FAILED and self._clock.monotonic() >= entry.retry_at):
            self._entries[shape] = _Entry(shape)
            self._queue.put_nowait(shape)
            return None
        self._entries.move_to_end(shape)
        return self._folder / self._keys[shape] if entry.stage is Stage.READY else None

    def favour(self, shape: Shape) -> None:
        """Never given up for others."""
        self._favoured = shape

    def restore_failed(self, shape: Shape, error: BaseException) -> None:
        """If it may be the template's fault, it is verified again before the next restore, and built anew if broken."""
        entry = self._entries.get(shape)
        if entry is not None and entry.stage is Stage.READY and _blames_template(error):
            entry.stage = Stage.WAITING
            self._queue.put_nowait(shape)

    async def run(self) -> None:
        """Build what is asked for, one at a time, for ever."""
        if not self.usable:
            return
        await self._sweep()
        while True:
            shape = await self._queue.get()
            entry = self._entries.get(shape)
            if entry is None:
                continue
            try:
                with suppress(
                    TimeoutError
                ):  # a build takes a CPU from pods that start; a busy host still gets templates
                    await asyncio.wait_for(self._gate.quiet(), PATIENCE_SECONDS)
                await self._provide(shape)
                entry.stage = Stage.READY
            except (CuboidError, OSError) as error:
                log.warning("no template, pods of its shape boot", memory_mib=shape.memory_mib, error=str(error))
                entry.stage, entry.retry_at = Stage.FAILED, self._clock.monotonic() + RETRY_SECONDS
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self.on_change)
            self.on_change()
            await self._sweep()

    # --- making ------------------------------------------------------------------------------------------------------

    async def _provide(self, shape: Shape) -> None:
        name = await self._key(shape)
        folder = self._folder / name
        self._keys[shape] = name
        if folder.is_dir():
            try:
                await self._driver.verify(folder)
                os.utime(folder)
                return
            except CuboidError as error:
                log.warning("a template is given up and built anew", template=name, error=str(error))
                await in_thread(lambda: shutil.rmtree(folder, ignore_errors=True))
        await self._build(shape, folder)

    async def _key(self, shape: Shape) -> str:
        contents = {
            "kernel": await self._digest(shape.boot.kernel), "initramfs": await self._digest(shape.boot.initramfs)
        }  # fmt: skip
        return key(shape, self._driver.snapshot_facts(), contents)

    async def _digest(self, path: Path) -> str:
        """Of a file's content; read again when its size or time has changed."""
        found = path.stat()
        known = (path, found.st_size, found.st_mtime_ns)
        if known not in self._digests:
            self._digests[known] = await in_thread(lambda: _sha256(path))
        return self._digests[known]

    async def _build(self, shape: Shape, folder: Path) -> None:
        begin = self._clock.monotonic()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._numbers += 1
        overhead = self._driver.capabilities().overhead_mib
        spec = VmSpec(
            id=f"{VM_PREFIX}{os.getpid()}-{self._numbers}", boot=shape.boot, vcpus=shape.vcpus,
            memory_mib=shape.memory_mib, disks=shape.slots, nics=(Nic(TAP, MAC, MTU),), template=True,
            limits=HostLimits(cpu_millis=shape.vcpus * 1000, memory_mib=shape.memory_mib + overhead),
        )  # fmt: skip
        vm = await self._driver.create(spec)
        relay = Relay()
        guest = self._guest(vm, relay.event, on_final=relay.final)
        try:
            await within(BUILD_SECONDS, self._boot_and_keep(vm, guest, folder), "building a template")
        finally:
            await vm.kill()  # first: a channel that is closed writes to the guest's memory, which is the template's
            await guest.close()
        seconds = round(self._clock.monotonic() - begin, 2)
        log.info("template built", template=folder.name, memory_mib=shape.memory_mib, seconds=seconds)

    async def _boot_and_keep(self, vm: Vm, guest: Guest, folder: Path) -> None:
        """Paused with its host connected: a clone's agent waits on an open channel and hears its own host at once."""
        await vm.start()
        await guest.connect(timeout=self._boot_seconds)
        await guest.list()
        guest.hold(True)
        await vm.pause()
        await vm.snapshot(folder)

    async def _sweep(self) -> None:
        """Remove what no shape in use names: the least recently used beyond `keep`."""
        for shape in [shape for shape in self._entries if shape != self._favoured]:
            if len(self._entries) <= self._keep:
                break
            del self._entries[shape]
            self._keys.pop(shape, None)
        wanted = {self._keys[shape] for shape in self._entries if shape in self._keys}
        await in_thread(lambda: _remove_others(self._folder, wanted, keep=self._keep))


def _blames_template(error: BaseException) -> bool:
    """Not what the host or the pod lacks: an address, a user, a disk."""
    reason = getattr(error, "reason", "")
    return reason in ("SnapshotCorrupt", "SnapshotIncompatible") or isinstance(error, UnavailableError | DeadlineError)


def _remove_others(folder: Path, wanted: set[str], *, keep: int) -> None:
    """All that is half-made, and the oldest of what is not wanted."""
    if not folder.is_dir():
        return
    others = [path for path in folder.iterdir() if path.name not in wanted]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    whole = [path for path in others if not path.name.startswith(".")]
    for path in {*others} - {*whole[: max(keep - len(wanted), 0)]}:
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
