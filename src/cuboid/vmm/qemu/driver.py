"""The QEMU driver: many VMs side by side, one jailed process each."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from cuboid.lib import proc
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError, DeadlineError, InvalidError, UnavailableError, UnsupportedError
from cuboid.lib.linux import cgroup
from cuboid.lib.log import get_log
from cuboid.lib.threads import in_thread
from cuboid.vmm import probe as probing
from cuboid.vmm import snapshots
from cuboid.vmm.base import Boot, Capabilities, EndCause, Probe, VmSpec
from cuboid.vmm.check import check, check_id
from cuboid.vmm.qemu import boot, command, console, tsc
from cuboid.vmm.qemu.command import Memory
from cuboid.vmm.qemu.jail import Jail, Jails, set_oom_score
from cuboid.vmm.qemu.launch import Launch, Order, Started, complaint, last_line
from cuboid.vmm.qemu.migration import Incoming
from cuboid.vmm.qemu.snapshotting import MEMORY, STATE, Made
from cuboid.vmm.qemu.vm import QemuVm, still_runs
from cuboid.vmm.settings import VmmSettings
from cuboid.vmm.snapshots import shape_of

log = get_log(__name__)

MIN_MEMORY_MIB = 64  # a guest may need more: Debian's cloud kernel with its initramfs does not boot in less than 96
VMM_MIB = 64  # what QEMU needs itself, above the guest's memory and the translation cache
STATE_REFUSED = ("load of migration failed", "error while loading state")  # QEMU's words


class QemuDriver:
    """`run` and `state` are the platform's folders (`cuboid.lib.paths`). Needs root. `kernel` is what probe() boots."""

    name = "qemu"

    def __init__(self, run: Path, state: Path, settings: VmmSettings, *, kernel: Path) -> None:
        self._settings = settings
        self._cache = state / "vmm"
        self._kernel = kernel
        self._qemu = proc.find(settings.qemu, package="qemu-system-x86")
        self._launch = Launch(settings, self._cache / "boot")
        self._jails = Jails(run, self._cache, settings, cgroup.find(settings.cgroup_parent))
        self._tasks = TaskSet("qemu")
        self._vms: dict[str, QemuVm] = {}
        self._probe: Probe | None = None
        self._probing = asyncio.Lock()
        self._facts: dict[str, str] = {}
        self._probe_ids = {f"probe-{accel}-{os.getpid()}" for accel in probing.ACCELERATORS}

    # -- what it can do

    async def probe(self) -> Probe:
        async with self._probing:
            if self._probe is None or not self._probe.usable:
                boot.kernel(self._kernel)
                key = probing.host_key(self._settings.accel, Path(self._qemu), self._kernel)
                cache = self._cache / "probe.json"
                self._probe = await probing.probe(self._settings.accel, self._boot_once, cache, key)
                self._facts = await self._find_facts(self._probe.accel) if self._probe.usable else {}
                say = log.info if self._probe.usable else log.warning
                say("VMs run here" if self._probe.usable else "no VM can run here", reason=self._probe.reason)
            return self._probe

    async def _find_facts(self, accel: str) -> dict[str, str]:
        said = await proc.run([self._qemu, "--version"], timeout=self._settings.create_seconds)
        facts = {
            "driver": self.name, "VMM": said.text.partition("\n")[0], "machine": command.LAYOUT, "accelerator": accel,
            "CPU": _cpu(accel), "kernel arguments": command.kernel_arguments(self._host(accel)),
        }  # fmt: skip
        return facts | ({"clock rate in kHz": str(self._host(accel).tsc_khz)} if accel == "tcg" else {})

    def capabilities(self) -> Capabilities:
        """Before probe() has answered, `accel` is "unknown"."""
        accel = self._probe.accel if self._probe and self._probe.usable else "unknown"
        overhead = VMM_MIB + (0 if accel == "kvm" else self._settings.translation_mib)
        return Capabilities(
            accel=accel, channel="virtio-serial", max_disks=command.MAX_DISKS,
            snapshot=True, late_disks=True, free_page_reporting=self._launch.library is not None,
            min_memory_mib=MIN_MEMORY_MIB, overhead_mib=overhead,
        )  # fmt: skip

    async def _boot_once(self, accel: str) -> float:
        """Boot the probe's guest until it turns itself off; the seconds from its start to its end."""
        seconds = self._settings.kvm_probe_seconds if accel == "kvm" else self._settings.tcg_probe_seconds
        if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise UnsupportedError("there is no /dev/kvm that can be opened")
        image = self._cache / "probe.initramfs"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(boot.padded(probing.initramfs()))
        image.chmod(0o644)
        spec = VmSpec(f"probe-{accel}-{os.getpid()}", Boot(self._kernel, image), vcpus=1, memory_mib=128)
        vm = await self._create(spec, accel)
        try:
            begin = time.monotonic()
            await vm.start()
            ended = await vm.wait_for(seconds)
        except DeadlineError as error:
            raise DeadlineError(f"the kernel did not reach user space within {seconds:g} s") from error
        finally:
            await vm.discard()
        if ended.cause != EndCause.POWEROFF:
            raise UnavailableError(last_line(ended.detail) or f"the VM ended: {ended.cause}")
        return time.monotonic() - begin

    # -- making VMs

    async def create(self, spec: VmSpec) -> QemuVm:
        return await self._create(spec, await self._usable())

    async def _usable(self) -> str:
        """The accelerator."""
        probe = await self.probe()
        if not probe.usable:
            raise UnsupportedError(probe.reason, hint="cuboid doctor says more")
        return probe.accel

    async def _create(self, spec: VmSpec, accel: str) -> QemuVm:
        check(spec, self.capabilities())
        memory = Memory.TEMPLATE if spec.template else Memory.SHARED if spec.shared_memory else Memory.OWN
        return await self._made(Order(spec, self._host(accel), memory))

    def _host(self, accel: str) -> command.Host:
        khz = tsc.settled(self._cache / "tsc-khz") if accel == "tcg" else 0
        return command.Host(self._qemu, accel, khz, self._settings.translation_mib, self._launch.library is not None)

    async def _made(self, order: Order) -> QemuVm:
        """A VM of this order, connected to; or nothing is left."""
        jail = self._jails.jail(order.spec.id)
        try:
            uid = jail.make(order.spec.limits)
            if order.memory is Memory.TEMPLATE:
                jail.make_memory(order.spec.memory_mib << 20, uid)
                order = dataclasses.replace(order, memory_file=jail.memory)
        except OSError as error:
            await asyncio.to_thread(jail.remove)
            raise UnavailableError(f"the host has no place for VM {order.spec.id}: {error.strerror}") from error
        try:
            started = await self._launch.start(order, jail, uid)
            return await self._connected(jail, started, order)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(jail.remove))
            raise

    async def _connected(self, jail: Jail, launched: Started, order: Order) -> QemuVm:
        pid, output = launched.pid, launched.console
        started = proc.start_time(pid)
        if started is None:
            raise UnavailableError(f"the VMM ended at once: {complaint(output.vmm_log()) or 'without a word'}")
        vm = self._vm(jail, pid, started, output, order.made)
        try:
            set_oom_score(pid, order.spec.limits.oom_score)  # not the one that this process happens to have
            await vm.connect(order.incoming)
        except (CuboidError, OSError) as error:
            said = complaint(vm.vmm_log)
            await vm.discard()
            if said:
                raise UnavailableError(f"the VMM did not start: {said}") from error
            raise
        except BaseException:
            await asyncio.shield(vm.discard())
            raise
        return self._keep(vm)

    def _vm(self, jail: Jail, pid: int, started: int, output: console.Console, made: Made) -> QemuVm:
        return QemuVm(jail, pid, started, output, self._settings, self._tasks, made, self.snapshot_facts)

    def _keep(self, vm: QemuVm) -> QemuVm:
        self._vms[vm.id] = vm
        vm.when_ended(lambda: self._forget(vm))
        return vm

    def _forget(self, vm: QemuVm) -> None:
        if self._vms.get(vm.id) is vm:
            del self._vms[vm.id]

    # -- snapshots

    def snapshot_facts(self) -> dict[str, str]:
        return dict(self._facts)

    async def restore(self, spec: VmSpec, folder: Path) -> QemuVm:
        accel = await self._usable()
        check(spec, self.capabilities())
        if spec.template or spec.shared_memory:
            raise InvalidError("a restored VM is neither a template nor shares its memory")
        manifest = snapshots.load(folder)
        snapshots.check_facts(folder, manifest, self._facts)
        snapshots.check_shape(folder, manifest, shape_of(spec))
        if _is_template(manifest):
            snapshots.check_digest(folder, manifest, STATE)
        order = self._order(spec, accel, folder, manifest)
        try:
            vm = await self._made(order)
        except UnavailableError as error:
            if any(words in error.message for words in STATE_REFUSED):
                raise snapshots.incompatible(folder, error.message) from error
            raise
        try:
            await vm.tell_capacities(spec.disks)
        except BaseException:
            await asyncio.shield(vm.discard())
            raise
        return vm

    def _order(self, spec: VmSpec, accel: str, folder: Path, manifest: snapshots.Manifest) -> Order:
        """Memory is a private mapping: of a file of its own, of a part of the state's, or is read from that."""
        template = _is_template(manifest)
        memory = Memory.CLONE if manifest.shared_memory else Memory.OWN
        file = (folder / (MEMORY if template else STATE)) if manifest.shared_memory else None
        return Order(
            spec, self._host(accel), memory, memory_file=file, memory_offset=manifest.memory_offset,
            state_file=folder / STATE, incoming=Incoming(memory_stays=template),
        )  # fmt: skip

    async def verify(self, folder: Path) -> None:
        await self._usable()
        manifest = await in_thread(snapshots.load, folder)
        snapshots.check_facts(folder, manifest, self._facts)
        for name in manifest.files:
            await in_thread(snapshots.check_digest, folder, manifest, name)

    # -- after a restart of this process

    async def recover(self, handle: dict[str, Any]) -> QemuVm | None:
        try:
            vm_id, pid, started = str(handle["id"]), int(handle["pid"]), int(handle["started"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError(f"this is no handle of a VM: {handle!r:.200}") from error
        check_id(vm_id)
        if not still_runs(handle):
            await self.clean(vm_id)
            return None
        jail = self._jails.jail(vm_id)
        output = console.reopen(pid, self._settings.console_kib << 10)
        try:
            made = _on_record(jail)
            await asyncio.to_thread(jail.drop_draft)
            vm = self._vm(jail, pid, started, output, made)
        except (ProcessLookupError, UnavailableError) as error:  # it ended just now, or was never whole
            log.warning("a VMM cannot be taken over", vm=vm_id, error=error)
            output.close()
            await self.clean(vm_id)
            return None
        try:
            await vm.connect()
        except CuboidError as error:
            log.warning("a VMM cannot be reached and is ended", vm=vm_id, error=error)
            await vm.discard()
            return None
        return self._keep(vm)

    async def leftovers(self, known: set[str]) -> list[str]:
        found = await asyncio.to_thread(self._jails.ids) - known
        return sorted(vm_id for vm_id in found if vm_id not in self._probe_ids)

    async def clean(self, vm_id: str) -> None:
        check_id(vm_id)
        if (vm := self._vms.pop(vm_id, None)) is not None:
            await vm.discard()
        await asyncio.to_thread(self._jails.jail(vm_id).remove)

    async def close(self) -> None:
        for vm in self._vms.values():
            await vm.release()
        self._vms.clear()
        await self._tasks.cancel()


def _is_template(manifest: snapshots.Manifest) -> bool:
    return manifest.shared_memory and not manifest.memory_offset


def _cpu(accel: str) -> str:
    """What the guest's code may rely on: the emulated model, or the host's own with its features."""
    if accel == "tcg":
        return command.TCG_CPU
    return snapshots.host_cpu()


def _on_record(jail: Jail) -> Made:
    """As it was written down when the VM was made."""
    try:
        return msgspec.json.decode(jail.record.read_bytes(), type=Made)
    except (OSError, msgspec.MsgspecError) as error:
        raise UnavailableError(f"what VM {jail.id} consists of is not on record") from error
