"""The guest with which a host is tried: a PID 1 that ends the machine in the orderly way and does nothing else.

Firecracker has no power switch. Its guests end by a reset of the keyboard controller, which the kernel makes where
/sys/kernel/reboot/type says so; the command line's `reboot=t` is left for a kernel that gives up.
"""

from __future__ import annotations

import struct

from cuboid.vmm import probe

FOLDER = "sys"
_MOUNT, _OPEN, _WRITE, _REBOOT = 165, 2, 1, 169
_MAGIC = (0xFEE1DEAD, 0x28121969, 0x01234567)  # reboot(2): LINUX_REBOOT_CMD_RESTART
_FILE = b"/sys/kernel/reboot/type"
_STRINGS = (b"sysfs", b"/" + FOLDER.encode(), _FILE, b"kbd")
_LOADS = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba", b"\x41\xb8")  # mov edi, esi, edx, r10d, r8d


def _call(number: int, *arguments: int) -> bytes:
    loads = b"".join(load + struct.pack("<I", value) for load, value in zip(_LOADS, arguments, strict=False))
    return loads + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax, number; syscall


def _code(strings: int) -> bytes:
    """`strings` is the address of _STRINGS, each with its NUL."""
    addresses = []
    for text in _STRINGS:
        addresses.append(strings)
        strings += len(text) + 1
    kind, folder, file, word = addresses
    write_to_opened = b"\x89\xc7" + (  # mov edi, eax
        b"\xbe" + struct.pack("<I", word) + b"\xba" + struct.pack("<I", 3)
        + b"\xb8" + struct.pack("<I", _WRITE) + b"\x0f\x05"
    )  # fmt: skip
    return (
        _call(_MOUNT, kind, folder, kind, 0, 0) + _call(_OPEN, file, 1) + write_to_opened
        + _call(_REBOOT, *_MAGIC) + b"\xeb\xfe"  # jmp to itself: PID 1 must not return
    )  # fmt: skip


def program() -> bytes:
    code = _code(probe.CODE_ADDRESS + len(_code(0)))
    return probe.static_program(code + b"".join(text + b"\0" for text in _STRINGS))


def initramfs() -> bytes:
    return probe.initramfs(program(), [FOLDER])
