"""The rate of the host's time stamp counter, which a guest under software emulation counts with."""

from __future__ import annotations

import ctypes
import functools
import mmap
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cuboid.lib.errors import UnsupportedError
from cuboid.lib.paths import write_atomic

MEASURE_SECONDS = 0.05
READINGS = 50
READINGS_DIFFER = 200e-6  # share of the rate; a clone of a template made under it keeps time as well as a cheap clock
# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")


@functools.cache
def khz() -> int:
    """Measured once per process, in 50 ms; where executable memory is forbidden, what /proc/cpuinfo says."""
    try:
        return _measured()
    except OSError:
        return cpuinfo_khz(Path("/proc/cpuinfo").read_text())


def settled(cache: Path) -> int:
    """The rate as it was measured on this host first: readings differ by some ppm, and a snapshot fits one rate only.

    kHz. Measured anew when the host is another, that is when the rate has changed by more than readings differ.
    """
    now = khz()
    with suppress(OSError, ValueError):
        before = int(cache.read_text())
        if abs(now - before) <= before * READINGS_DIFFER:
            return before
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(cache, str(now).encode(), durable=False)
    return now


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
