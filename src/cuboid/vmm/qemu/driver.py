"""The QEMU driver: many VMs side by side, one jailed process each."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuboid.lib import proc
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import (
    ConflictError,
    CuboidError,
    DeadlineError,
    InvalidError,
    NotFoundError,
    ProcessError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.lib.linux import cgroup
from cuboid.lib.log import get_log
from cuboid.vmm import probe as probing
from cuboid.vmm.base import Boot, Capabilities, EndCause, Probe, VmSpec
from cuboid.vmm.check import check, check_id
from cuboid.vmm.qemu import boot, command, console, launcher, tsc
from cuboid.vmm.qemu.jail import Jail, Jails
from cuboid.vmm.qemu.plan import Plan
from cuboid.vmm.qemu.vm import QemuVm, still_runs
from cuboid.vmm.settings import VmmSettings

log = get_log(__name__)

MIN_MEMORY_MIB = 96  # Debian's cloud kernel, its initramfs and a small agent; found by trying (docs/design/0007)
VMM_MIB = 64  # what QEMU needs itself, above the guest's memory and the translation cache
ROOT_BYTES = 1 << 20  # the jail's root: folders and empty mount points
READ_ONLY_BINDS = ("/usr", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
LINKS = (("usr/lib", "/lib"), ("usr/lib64", "/lib64"))
MAX_FILES = 512


class QemuDriver:
    """`run` and `state` are the platform's folders (`cuboid.lib.paths`). Needs root. `kernel` is what probe() boots."""

    name = "qemu"

    def __init__(self, run: Path, state: Path, settings: VmmSettings, *, kernel: Path) -> None:
        self._settings = settings
        self._cache = state / "vmm"
        self._kernel = kernel
        self._qemu = proc.find(settings.qemu, package="qemu-system-x86")
        self._jails = Jails(run, settings, cgroup.find(settings.cgroup_parent))
        self._tasks = TaskSet("qemu")
        self._vms: dict[str, QemuVm] = {}
        self._probe: Probe | None = None
        self._probing = asyncio.Lock()
        self._probe_ids = {f"probe-{accel}-{os.getpid()}" for accel in probing.ACCELERATORS}

    # -- what it can do

    async def probe(self) -> Probe:
        async with self._probing:
            if self._probe is None or not self._probe.usable:
                boot.kernel(self._kernel)
                key = probing.host_key(self._settings.accel, Path(self._qemu), self._kernel)
                cache = self._cache / "probe.json"
                self._probe = await probing.probe(self._settings.accel, self._boot_once, cache, key)
                say = log.info if self._probe.usable else log.warning
                say("VMs run here" if self._probe.usable else "no VM can run here", reason=self._probe.reason)
            return self._probe

    def capabilities(self) -> Capabilities:
        """Before probe() has answered, `accel` is "unknown"."""
        accel = self._probe.accel if self._probe and self._probe.usable else "unknown"
        overhead = VMM_MIB + (0 if accel == "kvm" else self._settings.translation_mib)
        return Capabilities(
            accel=accel, channel="virtio-serial", max_disks=command.MAX_DISKS,
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
            raise UnavailableError(_last_line(ended.detail) or f"the VM ended: {ended.cause}")
        return time.monotonic() - begin

    # -- making VMs

    async def create(self, spec: VmSpec) -> QemuVm:
        probe = await self.probe()
        if not probe.usable:
            raise UnsupportedError(probe.reason, hint="cuboid doctor says more")
        return await self._create(spec, probe.accel)

    async def _create(self, spec: VmSpec, accel: str) -> QemuVm:
        check(spec, self.capabilities())
        kernel = boot.kernel(spec.boot.kernel)
        if accel == "tcg":  # KVM unpacks in no time, and the kernel's own unpacking chooses its address at random
            kernel = await asyncio.to_thread(boot.unpacked, kernel, self._cache / "boot")
        initramfs = boot.initramfs(spec.boot.initramfs, self._cache / "boot")
        jail = self._jails.jail(spec.id)
        with ExitStack() as opened:
            disks = [
                opened.enter_context(_Descriptor.of_disk(disk.path, disk.read_only)) for disk in spec.disks if disk.path
            ]
            uid = _made(jail, spec)
            try:
                return await self._launch(spec, accel, jail, uid, kernel, initramfs, [int(disk) for disk in disks])
            except BaseException:
                await asyncio.shield(asyncio.to_thread(jail.remove))
                raise

    async def _launch(
        self, spec: VmSpec, accel: str, jail: Jail, uid: int, kernel: Path, initramfs: Path, disks: list[int]
    ) -> QemuVm:
        with ExitStack() as opened:
            listeners = [opened.enter_context(listener) for listener in jail.listen()]
            output, console_fd, log_fd = console.make(self._settings.console_kib << 10)
            opened.callback(os.close, console_fd)
            opened.callback(os.close, log_fd)
            fds = [*(listener.fileno() for listener in listeners), console_fd]
            if accel == "kvm":
                fds.append(int(opened.enter_context(_Descriptor(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)))))
            fds += disks
            plan = self._plan(spec, accel, jail, uid, kernel, initramfs, fds, log_fd, len(disks))
            try:
                pid = await self._run_launcher(plan, [*fds, log_fd])
            except BaseException:
                output.close()
                raise
        # Our copies of the listening sockets are closed by now: a VMM that dies cuts the connection to it.
        return await self._connected(jail, pid, output)

    def _plan(
        self, spec: VmSpec, accel: str, jail: Jail, uid: int, kernel: Path, initramfs: Path,
        fds: list[int], log_fd: int, disks: int,
    ) -> Plan:  # fmt: skip
        numbers = list(range(launcher.FIRST_FD, launcher.FIRST_FD + len(fds) + len(spec.nics)))
        first_disk = 3 + (accel == "kvm")
        descriptors = command.Descriptors(
            qmp=numbers[0], channel=numbers[1], console=numbers[2],
            kvm=numbers[3] if accel == "kvm" else -1,
            disks=tuple(numbers[first_disk : first_disk + disks]), taps=tuple(numbers[first_disk + disks :]),
        )  # fmt: skip
        host = command.Host(self._qemu, accel, tsc.khz() if accel == "tcg" else 0, self._settings.translation_mib)
        files = [(path, path) for path in READ_ONLY_BINDS if Path(path).exists()]
        files += [(str(kernel), command.KERNEL_INSIDE), (str(initramfs), command.INITRAMFS_INSIDE)]
        return Plan(
            root=str(jail.root), root_size=ROOT_BYTES, binds=tuple(files), links=LINKS,
            netns=str(spec.netns or ""), taps=tuple(nic.tap for nic in spec.nics),
            cgroups=tuple(str(file) for file in jail.group.join_files), fds=tuple(fds), stderr=log_fd, uid=uid,
            max_processes=spec.limits.pids, max_files=MAX_FILES, pid_file=str(jail.pid_file),
            argv=tuple(command.build(spec, host, descriptors)),
        )  # fmt: skip

    async def _run_launcher(self, plan: Plan, fds: list[int]) -> int:
        program = [sys.executable, "-I", "-S", launcher.__file__, *plan.words()]
        try:
            result = await proc.run(program, timeout=self._settings.create_seconds, pass_fds=fds, output_limit=64)
        except ProcessError as error:
            raise UnavailableError(f"the VM's jail cannot be made: {_last_line(error.stderr)}") from error
        return int(result.text)

    async def _connected(self, jail: Jail, pid: int, output: console.Console) -> QemuVm:
        started = proc.start_time(pid)
        if started is None:
            raise UnavailableError(f"the VMM ended at once: {_complaint(output.vmm_log()) or 'without a word'}")
        vm = QemuVm(jail, pid, started, output, self._settings, self._tasks)
        try:
            await vm.connect()
        except CuboidError as error:
            said = _complaint(vm.vmm_log)
            await vm.discard()
            if said:
                raise UnavailableError(f"the VMM did not start: {said}") from error
            raise
        except BaseException:
            await asyncio.shield(vm.discard())
            raise
        return self._keep(vm)

    def _keep(self, vm: QemuVm) -> QemuVm:
        self._vms[vm.id] = vm
        vm.when_ended(lambda: self._forget(vm))
        return vm

    def _forget(self, vm: QemuVm) -> None:
        if self._vms.get(vm.id) is vm:
            del self._vms[vm.id]

    def snapshot_facts(self) -> dict[str, str]:
        return {"driver": self.name}

    async def restore(self, spec: VmSpec, folder: Path) -> QemuVm:
        raise UnsupportedError("this driver restores no snapshots")

    async def verify(self, folder: Path) -> None:
        raise UnsupportedError("this driver restores no snapshots")

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
        output = console.reopen(pid, self._settings.console_kib << 10)
        try:
            vm = QemuVm(self._jails.jail(vm_id), pid, started, output, self._settings, self._tasks)
        except ProcessLookupError:  # it ended just now
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


def _made(jail: Jail, spec: VmSpec) -> int:
    try:
        return jail.make(spec.limits)
    except OSError as error:
        raise UnavailableError(f"the host has no place for VM {spec.id}: {error.strerror}") from error


class _Descriptor:
    """A file descriptor that is closed at the end of a block."""

    def __init__(self, number: int) -> None:
        self._number = number

    @classmethod
    def of_disk(cls, path: Path, read_only: bool) -> _Descriptor:
        try:
            return cls(os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC))
        except FileNotFoundError as error:
            raise NotFoundError(f"the disk {path} does not exist") from error
        except OSError as error:
            raise ConflictError(f"the disk {path} cannot be opened: {error.strerror}") from error

    def __int__(self) -> int:
        return self._number

    def __enter__(self) -> _Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _complaint(text: str) -> str:
    """QEMU's error among what it said: its last line under its own name (a line of advice may follow)."""
    named = [line for line in text.splitlines() if line.startswith("qemu-system-")]
    return named[-1].partition(": ")[2].strip() if named else _last_line(text)
