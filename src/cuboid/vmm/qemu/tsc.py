"""The rate of the host's time stamp counter, which a guest under software emulation counts with."""

from __future__ import annotations

import ctypes
import functools
import mmap
import re
import time
from collections.abc import Callable
from pathlib import Path

from cuboid.lib.errors import UnsupportedError

MEASURE_SECONDS = 0.05
READINGS = 50
# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")


@functools.cache
def khz() -> int:
    """Measured once per process, in 50 ms; where executable memory is forbidden, what /proc/cpuinfo says."""
    try:
        return _measured()
    except OSError:
        return cpuinfo_khz(Path("/proc/cpuinfo").read_text())


def _measured() -> int:
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_RDTSC)
        start = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
        first = _reading(read)
        time.sleep(MEASURE_SECONDS)
        last = _reading(read)
        del start, read  # or the page cannot be unmapped
    return round((last[1] - first[1]) * 1e6 / (last[0] - first[0]))


def _reading(read: Callable[[], int]) -> tuple[int, int]:
    """Nanoseconds and ticks of one moment: of several readings the one least torn apart (about 20 ppm over 50 ms)."""
    best, moment = 1 << 62, (0, 0)
    for _ in range(READINGS):
        before, ticks, after = _clock(), read(), _clock()
        if after - before < best:
            best, moment = after - before, ((before + after) // 2, ticks)
    return moment


def _clock() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def cpuinfo_khz(text: str) -> int:
    """The nominal rate in a `model name … @ 2.10GHz`, else the present `cpu MHz`."""
    if found := re.search(r"^model name.*@\s*([\d.]+)GHz", text, re.MULTILINE):
        return round(float(found[1]) * 1e6)
    if found := re.search(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE):
        return round(float(found[1]) * 1e3)
    raise UnsupportedError("the rate of this host's time stamp counter cannot be found", hint="x86-64 only")
