"""Which accelerator works on this host: found by booting a real kernel, for an openable /dev/kvm proves nothing.

The guest is a 144-byte PID 1 that turns the machine off. Its kernel gets as far as user space or it does not. The
answer is kept on disk, by host boot, CPU, VMM and kernel.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cuboid.lib.errors import CuboidError, InvalidError
from cuboid.lib.paths import write_atomic
from cuboid.vmm.base import Probe

ACCELERATORS = ("kvm", "tcg")
NAMES = {"kvm": "KVM", "tcg": "software emulation (TCG)"}
TCG_ATTEMPTS = 2  # a loaded host can miss one deadline
_BASE = 0x400000  # where the guest program is loaded
CODE_ADDRESS = _BASE + 120  # of its first instruction: after the file's headers

Attempt = Callable[[str], Awaitable[float]]


@dataclass(frozen=True)
class Outcome:
    accel: str
    seconds: float = 0.0
    failure: str = ""


def candidates(accel: str) -> tuple[str, ...]:
    """Accelerators to try, for the setting `vmm.accel`."""
    if accel == "auto":
        return ACCELERATORS
    if accel in ACCELERATORS:
        return (accel,)
    raise InvalidError(f"vmm.accel is {accel!r}", hint="auto, kvm or tcg")


def conclude(outcomes: Sequence[Outcome]) -> Probe:
    """The answer from what was tried, in order; the last one decides. Pure."""
    last = outcomes[-1]
    failed = "; ".join(f"{NAMES[o.accel]}: {o.failure}" for o in outcomes if o.failure)
    if last.failure:
        return Probe(False, "", f"no kernel boots here ({failed})")
    reason = f"a kernel boots under {NAMES[last.accel]}" + (f", and not otherwise ({failed})" if failed else "")
    return Probe(True, last.accel, reason, round(last.seconds, 3))


async def probe(accel: str, attempt: Attempt, cache: Path, key: str) -> Probe:
    """Ask the cache, else boot: `attempt(accel)` returns the seconds it took or raises a CuboidError saying why not."""
    wanted = candidates(accel)
    if (known := _load(cache, key)) is not None:
        return known
    outcomes: list[Outcome] = []
    for name in wanted:
        outcomes.append(await _try(name, attempt))
        if not outcomes[-1].failure:
            break
    answer = conclude(outcomes)
    if answer.usable:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps({"key": key, "probe": asdict(answer)}).encode(), durable=False)
    return answer


async def _try(accel: str, attempt: Attempt) -> Outcome:
    failure = ""
    for _ in range(TCG_ATTEMPTS if accel == "tcg" else 1):
        try:
            return Outcome(accel, seconds=await attempt(accel))
        except CuboidError as error:
            failure = error.message
    return Outcome(accel, failure=failure)


def _load(cache: Path, key: str) -> Probe | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(cache.read_text())
        if content["key"] == key:
            return Probe(**content["probe"])
    return None


def host_key(accel: str, *files: Path) -> str:
    """Changes when the answer may: with the host's boot, its CPU, the setting, and the given files (VMM, kernel)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    parts = [accel, boot, model]
    for file in files:
        found = file.stat()
        parts.append(f"{file.resolve()} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def guest_program() -> bytes:
    """A static x86-64 program whose only act is reboot(LINUX_REBOOT_CMD_POWER_OFF)."""
    code = (
        b"\xbf" + struct.pack("<I", 0xFEE1DEAD)  # mov edi, LINUX_REBOOT_MAGIC1
        + b"\xbe" + struct.pack("<I", 0x28121969)  # mov esi, LINUX_REBOOT_MAGIC2
        + b"\xba" + struct.pack("<I", 0x4321FEDC)  # mov edx, LINUX_REBOOT_CMD_POWER_OFF
        + b"\xb8" + struct.pack("<I", 169)  # mov eax, SYS_reboot
        + b"\x0f\x05"  # syscall
        + b"\xeb\xfe"  # jmp to itself: PID 1 must not return
    )  # fmt: skip
    return static_program(code)


def static_program(code: bytes) -> bytes:
    """An x86-64 ELF executable that is nothing but this code, entered at its first byte; it is not writable."""
    size = 64 + 56 + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, CODE_ADDRESS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    return header + code


def initramfs(program: bytes = b"", folders: Sequence[str] = ()) -> bytes:
    """A cpio archive ("newc") that holds the guest program, or another, as /init; and empty folders."""
    made = b"".join(_member(folder, 0o040755, b"") for folder in folders)
    return made + _member("init", 0o100755, program or guest_program()) + _member("TRAILER!!!", 0, b"")


def _member(name: str, mode: int, data: bytes) -> bytes:
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
