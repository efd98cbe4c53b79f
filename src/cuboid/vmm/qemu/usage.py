"""What a VMM uses of the host, by part."""

from __future__ import annotations

import os
from pathlib import Path

from cuboid.lib.errors import ConflictError
from cuboid.vmm.base import VmStats


def stats(pid: int, memory_mib: int) -> VmStats:
    """ConflictError if it has ended. Takes some milliseconds: the kernel looks at each page."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        private, guest, translation = parts(Path(f"/proc/{pid}/smaps").read_bytes(), memory_mib << 10)
    except (FileNotFoundError, ProcessLookupError, IndexError) as error:
        raise ConflictError("the VM has ended") from error
    ticks = int(fields[11]) + int(fields[12])
    return VmStats(ticks / os.sysconf("SC_CLK_TCK"), resident, private, guest, translation)


def parts(smaps: bytes, memory_kib: int) -> tuple[int, int, int]:
    """Private bytes of a process by its /proc/PID/smaps: all, those of the guest's memory, those of translated code.

    The guest's memory is the mapping that is large enough for it; translated code is what can be written and executed.
    """
    private = guest = translation = size = 0
    permissions = b""
    for line in smaps.splitlines():
        if line[:1] in b"0123456789abcdef":  # the first line of a mapping: from-to permissions …
            permissions = line.split()[1]
        elif line.startswith(b"Size:"):
            size = int(line.split()[1])
        elif line.startswith(b"Anonymous:"):
            count = int(line.split()[1]) << 10
            private += count
            if permissions[:3] == b"rwx":
                translation += count
            elif size >= memory_kib:
                guest += count
    return private, guest, translation
