"""A user at a terminal."""

from __future__ import annotations

import os
import pty
import select
import struct
import termios
import time
from fcntl import ioctl

from tests.harness.platform import Platform


def typed(place: Platform, command: list[str], keys: list[tuple[str, bytes]], size: tuple[int, int]) -> tuple[str, int]:
    """Run it on a terminal; each time a text has shown, type its keys. Gives all that was shown and the exit code."""
    ours, theirs = pty.openpty()
    ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with place.started(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown, until = b"", time.monotonic() + 60
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    shown += os.read(ours, 65_536)
                except OSError:
                    break
            if keys and keys[0][0].encode() in shown:
                os.write(ours, keys.pop(0)[1])
        code = process.wait(timeout=20)
    os.close(ours)
    return shown.decode(errors="replace"), code
