"""The Firecracker driver: many VMs side by side, one jailed process each."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cuboid.lib import proc
from cuboid.lib.aio import TaskSet, gather_all
from cuboid.lib.errors import CuboidError, DeadlineError, InvalidError, UnavailableError, UnsupportedError
from cuboid.lib.linux import cgroup
from cuboid.lib.log import get_log
from cuboid.lib.threads import in_thread
from cuboid.vmm import probe as probing
from cuboid.vmm import snapshots
from cuboid.vmm.base import Boot, Capabilities, EndCause, Probe, VmSpec
from cuboid.vmm.check import check, check_id
from cuboid.vmm.firecracker import command, guest, launch, requests
from cuboid.vmm.firecracker.http import ApiRefusedError
from cuboid.vmm.firecracker.mounts import Binding
from cuboid.vmm.firecracker.record import Record
from cuboid.vmm.firecracker.saving import MEMORY, STATE
from cuboid.vmm.firecracker.vm import FirecrackerVm, still_runs
from cuboid.vmm.qemu import console
from cuboid.vmm.qemu.jail import Jail, Jails, set_oom_score
from cuboid.vmm.settings import VmmSettings

log = get_log(__name__)

_Prepare = Callable[[FirecrackerVm], Awaitable[None]]

ACCEL = "kvm"
MAX_DISKS = 16
MIN_MEMORY_MIB = 64
OVERHEAD_MIB = 16  # the VMM and its jail, above the guest's memory
LAYOUT = "1"  # of devices and paths; raised when a snapshot of older ones would not fit


class FirecrackerDriver:
    """`run` and `state` are the platform's folders (`cuboid.lib.paths`). Needs root. `kernel` is what probe() boots."""

    name = "firecracker"

    def __init__(self, run: Path, state: Path, settings: VmmSettings, *, kernel: Path) -> None:
        self._settings = settings
        self._cache = state / "vmm"
        self._kernel = kernel
        self._hierarchy = cgroup.find(settings.cgroup_parent)
        self._jails = Jails(run, self._cache, settings, self._hierarchy)
        self._tasks = TaskSet("firecracker")
        self._vms: dict[str, FirecrackerVm] = {}
        self._installed: launch.Installed | None = None
        self._probe: Probe | None = None
        self._probing = asyncio.Lock()
        self._probe_id = f"probe-firecracker-{os.getpid()}"

    # -- what it can do

    async def probe(self) -> Probe:
        async with self._probing:
            if self._probe is None or not self._probe.usable:
                self._probe = await self._try()
                say = log.info if self._probe.usable else log.warning
                say("VMs run here" if self._probe.usable else "Firecracker runs none here", reason=self._probe.reason)
            return self._probe

    async def _try(self) -> Probe:
        if self._settings.accel not in ("auto", ACCEL):
            return Probe(False, "", f"Firecracker needs KVM, and vmm.accel is {self._settings.accel}")
        try:
            self._installed = await launch.find(self._settings)
        except UnsupportedError as error:
            return Probe(False, "", error.message)
        key = probing.host_key(ACCEL, self._installed.programs.firecracker, self._kernel)
        return await probing.probe(ACCEL, self._boot_once, self._cache / "probe-firecracker.json", key)

    def capabilities(self) -> Capabilities:
        """Before probe() has answered, `accel` is "unknown"."""
        return Capabilities(
            accel=ACCEL if self._probe and self._probe.usable else "unknown", channel="vsock",
            snapshot=True, late_disks=True, free_page_reporting=True, max_disks=MAX_DISKS,
            min_memory_mib=MIN_MEMORY_MIB, overhead_mib=OVERHEAD_MIB,
        )  # fmt: skip

    def snapshot_facts(self) -> dict[str, str]:
        if self._installed is None:
            return {"driver": self.name}
        return {
            "driver": self.name, "VMM": f"Firecracker {self._installed.version}", "machine": LAYOUT,
            "accelerator": ACCEL, "host kernel": platform.release(), "CPU": snapshots.host_cpu(),
        }  # fmt: skip

    async def _boot_once(self, _: str) -> float:
        """Boot the probe's guest until it resets the machine; the seconds from its start to its end."""
        image = self._cache / "probe-reset.initramfs"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(guest.initramfs())
        image.chmod(0o644)
        spec = VmSpec(self._probe_id, Boot(self._kernel, image), vcpus=1, memory_mib=128)
        try:
            vm = await self._create(spec)
        except CuboidError as error:
            raise _explained(error) from error
        try:
            begin = time.monotonic()
            await vm.start()
            ended = await vm.wait_for(self._settings.kvm_probe_seconds)
        except DeadlineError as error:
            seconds = self._settings.kvm_probe_seconds
            raise DeadlineError(f"the kernel did not reach user space within {seconds:g} s") from error
        except CuboidError as error:
            raise _explained(error) from error
        finally:
            await vm.discard()
        if ended.cause != EndCause.POWEROFF:
            raise UnavailableError(ended.detail or f"the VM ended: {ended.cause}")
        return time.monotonic() - begin

    # -- making VMs

    async def create(self, spec: VmSpec) -> FirecrackerVm:
        await self._usable()
        return await self._create(spec)

    async def _usable(self) -> None:
        probe = await self.probe()
        if not probe.usable:
            raise UnsupportedError(probe.reason, hint="cuboid doctor says more")

    async def _create(self, spec: VmSpec) -> FirecrackerVm:
        self._check(spec)
        files = await in_thread(launch.boot_files, spec.boot, self._cache / "boot")
        sockets = [disk.serial for disk in spec.disks if disk.path is not None and disk.path.is_socket()]
        if sockets and not spec.shared_memory:
            raise InvalidError(f"disk {sockets[0]} is a vhost-user socket, which needs a VM with shared memory")
        bindings = [
            Binding(files.kernel, requests.KERNEL, read_only=True),
            Binding(files.initramfs, requests.INITRAMFS, read_only=True),
        ]
        args = command.boot_args(spec, console=self._settings.firecracker_console)

        async def configure(vm: FirecrackerVm) -> None:
            await vm.call(*requests.configure(spec, args, sockets))

        return await self._made(spec, bindings, configure)

    def _check(self, spec: VmSpec) -> None:
        check(spec, self.capabilities())
        if spec.vcpus > requests.MAX_VCPUS:
            raise InvalidError(f"Firecracker gives a VM at most {requests.MAX_VCPUS} vCPUs, not {spec.vcpus}")

    async def _made(self, spec: VmSpec, bindings: Sequence[Binding], prepare: _Prepare) -> FirecrackerVm:
        """A VM that answers and has been told what it is; or nothing is left."""
        jail = self._jails.jail(spec.id)
        try:
            uid = jail.make(spec.limits)
        except OSError as error:
            raise UnavailableError(f"the host has no place for VM {spec.id}: {error.strerror}") from error
        try:
            vm = await self._started(spec, jail, uid)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(jail.remove))
            raise
        try:
            await self._equip(vm, jail, spec, bindings)
            await prepare(vm)
        except BaseException as error:
            said = vm.last_words()
            await asyncio.shield(vm.discard())
            await asyncio.shield(asyncio.to_thread(jail.remove))
            if said and isinstance(error, UnavailableError):
                raise UnavailableError(f"the VMM did not start: {said}") from error
            raise
        return self._keep(vm)

    async def _started(self, spec: VmSpec, jail: Jail, uid: int) -> FirecrackerVm:
        assert self._installed is not None
        record = Record.of(spec, uid)
        record.save(jail.folder)
        launched = await launch.start(spec, jail, uid, self._installed, self._hierarchy, self._settings)
        started = proc.start_time(launched.pid)
        try:
            if started is None:
                raise ProcessLookupError
            vm = self._vm(jail, launched.pid, started, launched.output, record)
        except ProcessLookupError as error:
            said = console.last_words(launched.output.vmm_log() or launched.output.tail(console.KEPT_BYTES))
            launched.output.close()
            raise UnavailableError(f"the VMM ended at once: {said or 'without a word'}") from error
        vm.watch()
        return vm

    async def _equip(self, vm: FirecrackerVm, jail: Jail, spec: VmSpec, bindings: Sequence[Binding]) -> None:
        try:
            set_oom_score(vm.pid, spec.limits.oom_score)  # not the one that this process happens to have
            # On v1 the jailer joins only controllers that it sets something of.
            await gather_all(vm.made_ready(), in_thread(jail.group.add, vm.pid))
        except OSError as error:
            raise UnavailableError(f"the VMM ended at once, or its group is gone: {error.strerror}") from error
        await launch.own_taps(spec, vm.pid, vm.user)
        disks = [
            Binding(disk.path, requests.disk_path(disk.serial), disk.read_only)
            for disk in spec.disks
            if disk.path is not None
        ]
        await vm.give(*bindings, *disks)

    def _vm(self, jail: Jail, pid: int, started: int, output: console.Console, record: Record) -> FirecrackerVm:
        """ProcessLookupError if the process is gone."""
        return FirecrackerVm(jail, pid, started, output, record, self.snapshot_facts, self._settings, self._tasks)

    def _keep(self, vm: FirecrackerVm) -> FirecrackerVm:
        self._vms[vm.id] = vm
        vm.when_ended(lambda: self._forget(vm))
        return vm

    def _forget(self, vm: FirecrackerVm) -> None:
        if self._vms.get(vm.id) is vm:
            del self._vms[vm.id]

    # -- snapshots

    async def restore(self, spec: VmSpec, folder: Path) -> FirecrackerVm:
        await self._usable()
        self._check(spec)
        if spec.template or spec.shared_memory:
            raise InvalidError("a restored VM is neither a template nor shares its memory")
        manifest = snapshots.load(folder)
        snapshots.check_facts(folder, manifest, self.snapshot_facts())
        snapshots.check_shape(folder, manifest, snapshots.shape_of(spec))
        snapshots.check_digest(folder, manifest, STATE)
        bindings = [
            Binding(folder / STATE, requests.STATE, read_only=True),
            Binding(folder / MEMORY, requests.MEMORY, read_only=True),
        ]

        async def load(vm: FirecrackerVm) -> None:
            await vm.call(*requests.observe())
            try:
                await vm.call(requests.load(spec.nics), seconds=self._settings.create_seconds)
            except ApiRefusedError as error:
                raise snapshots.incompatible(folder, error.message) from error
            vm.loaded()
            filled = [(number, disk) for number, disk in enumerate(spec.disks) if disk.path is not None]
            await vm.call(*(requests.swap_medium(number, disk) for number, disk in filled))

        return await self._made(spec, bindings, load)

    async def verify(self, folder: Path) -> None:
        await self._usable()
        manifest = await in_thread(snapshots.load, folder)
        snapshots.check_facts(folder, manifest, self.snapshot_facts())
        for name in manifest.files:
            await in_thread(snapshots.check_digest, folder, manifest, name)

    # -- after a restart of this process

    async def recover(self, handle: dict[str, Any]) -> FirecrackerVm | None:
        try:
            vm_id, pid, started = str(handle["id"]), int(handle["pid"]), int(handle["started"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError(f"this is no handle of a VM: {handle!r:.200}") from error
        check_id(vm_id)
        if not still_runs(handle):
            await self.clean(vm_id)
            return None
        if self._installed is None:
            with suppress(UnsupportedError):  # then it can be found and ended, but makes no snapshot
                self._installed = await launch.find(self._settings)
        jail = self._jails.jail(vm_id)
        output = console.reopen(pid, self._settings.console_kib << 10)
        try:
            record = Record.load(jail.folder)
            saves = jail.draft_link.is_symlink()  # until that is done, Firecracker answers nobody
            await asyncio.to_thread(jail.drop_draft)
            vm = self._vm(jail, pid, started, output, record)
        except (ProcessLookupError, UnavailableError) as error:  # it ended just now, or was never whole
            log.warning("a VMM cannot be taken over", vm=vm_id, error=error)
            output.close()
            await self.clean(vm_id)
            return None
        vm.watch()
        try:
            await vm.reached(self._settings.memory_seconds if saves else 0.0)
        except CuboidError as error:
            log.warning("a VMM cannot be reached and is ended", vm=vm_id, error=error)
            await vm.discard()
            return None
        return self._keep(vm)

    async def leftovers(self, known: set[str]) -> list[str]:
        found = await asyncio.to_thread(self._jails.ids) - known - {self._probe_id}
        return sorted(found)

    async def clean(self, vm_id: str) -> None:
        check_id(vm_id)
        if (vm := self._vms.pop(vm_id, None)) is not None:
            await vm.discard()
        await asyncio.to_thread(self._jails.jail(vm_id).remove)

    async def close(self) -> None:
        for vm in self._vms.values():
            vm.release()
        self._vms.clear()
        await self._tasks.cancel()


def _explained(error: CuboidError) -> CuboidError:
    """Firecracker's own words on a host without KVM help nobody."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return error
    return UnsupportedError("there is no /dev/kvm that can be opened")
