"""Starting a jailed Firecracker: the place that is made for it, the jailer, and what it is given before it is asked."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.errors import InvalidError, ProcessError, UnavailableError, UnsupportedError
from cuboid.lib.linux import netns, tap
from cuboid.lib.linux.cgroup import Hierarchy
from cuboid.vmm.base import Boot, VmSpec
from cuboid.vmm.firecracker import command, launcher, requests
from cuboid.vmm.firecracker.command import Groups, Programs
from cuboid.vmm.qemu import boot, console
from cuboid.vmm.qemu.jail import Jail, group_limits
from cuboid.vmm.settings import VmmSettings

ROOM_BYTES = 1 << 20  # of the jail's tmpfs beside the program: log, empty files
OLDEST = (1, 17)  # the version whose API the requests are written for
_VERSION = re.compile(r"Firecracker v(\d+)\.(\d+)\.(\d+\S*)")


@dataclass(frozen=True)
class Installed:
    programs: Programs
    version: str


@dataclass(frozen=True)
class Started:
    pid: int
    output: console.Console  # the guest's serial console and what the VMM prints


async def find(settings: VmmSettings) -> Installed:
    """UnsupportedError says in one sentence what is missing."""
    hint = "github.com/firecracker-microvm/firecracker/releases has both programs"
    try:
        programs = Programs(Path(proc.find(settings.jailer)), Path(proc.find(settings.firecracker)).resolve())
    except UnsupportedError as error:
        raise UnsupportedError(error.message, hint=hint) from error
    if "firecracker" not in programs.firecracker.name:
        raise UnsupportedError(f'the jailer runs only programs named "firecracker", not {programs.firecracker.name}')
    try:
        said = await proc.run([programs.firecracker, "--version"], timeout=settings.call_seconds)
    except ProcessError as error:
        raise UnsupportedError(f"{programs.firecracker} does not run: {error.message}") from error
    found = _VERSION.search(said.text)
    if found is None:
        raise UnsupportedError(f"{programs.firecracker} does not say which version it is")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise UnsupportedError(f"Firecracker {found[1]}.{found[2]} is too old", hint=f"{_dotted(OLDEST)} or later")
    return Installed(programs, f"{found[1]}.{found[2]}.{found[3]}")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def boot_files(files: Boot, cache: Path) -> Boot:
    """Firecracker enters an ELF kernel; a distribution's is unpacked into `cache` once. Errors as `qemu.boot`."""
    kernel = boot.unpacked(boot.kernel(files.kernel), cache)
    with kernel.open("rb") as file:
        if file.read(len(boot.ELF)) != boot.ELF:
            raise InvalidError(f"{files.kernel} holds no kernel that Firecracker can enter", hint="an ELF vmlinux")
    return Boot(kernel, boot.initramfs(files.initramfs, cache), files.cmdline)


async def start(
    spec: VmSpec, jail: Jail, uid: int, installed: Installed, hierarchy: Hierarchy, settings: VmmSettings
) -> Started:
    """Firecracker has been executed; whether it likes what it is told is seen when speaking to it."""
    programs = installed.programs
    root = command.jail_root(jail.root, programs, spec.id)
    groups = Groups.of(hierarchy, spec.id, group_limits(spec.limits))
    with ExitStack() as opened:
        output, stdout, stderr = console.make(settings.console_kib << 10)
        opened.callback(os.close, stdout)
        opened.callback(os.close, stderr)
        words = [
            "base", str(jail.root), "root", str(root), "uid", str(uid), "pid_file", str(jail.pid_file),
            "size", str(programs.firecracker.stat().st_size + ROOM_BYTES),
            "written", f"{root}/{programs.firecracker.name}.pid",
            "stdout", str(stdout), "stderr", str(stderr), "max_processes", str(spec.limits.pids),
        ]  # fmt: skip
        for inside in (requests.KERNEL, requests.INITRAMFS, requests.MEMORY, requests.STATE):
            words += ["file", inside]
        for disk in spec.disks:
            words += ["slot", requests.disk_path(disk.serial)]
        words += ["--", *command.jailer(programs, spec.id, uid, jail.root, spec.netns, groups)]
        try:
            pid = await _run(words, (stdout, stderr), settings.create_seconds)
        except ProcessError as error:
            said = output.vmm_log() or output.tail(console.KEPT_BYTES) or error.stderr
            output.close()
            raise UnavailableError(f"the VM's jail cannot be made: {console.last_words(said)[-300:]}") from error
        except BaseException:
            output.close()
            raise
    return Started(pid, output)


async def _run(words: list[str], fds: tuple[int, int], seconds: float) -> int:
    program = [sys.executable, "-I", "-S", "-c", launcher.START, *words]
    result = await proc.run(program, timeout=seconds, pass_fds=fds, output_limit=64)
    if not result.text.isdecimal():
        raise UnavailableError("the jailer left no VMM behind")
    return int(result.text)


async def own_taps(spec: VmSpec, pid: int, uid: int) -> None:
    """Let the VM's user open its taps; where the VM has no network namespace but an empty one, make them in it."""

    def work() -> None:
        for nic in spec.nics:
            tap.create_tap(nic.tap, owner=uid, mtu=nic.mtu)

    if spec.nics:
        try:
            await netns.run_in(Path(f"/proc/{pid}/ns/net"), work)
        except OSError as error:
            raise UnavailableError(f"the taps of VM {spec.id} cannot be handed over: {error.strerror}") from error
