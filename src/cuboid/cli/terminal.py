"""The caller's terminal: raw mode that is always undone, its size, and news of a change."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def size() -> tuple[int, int]:
    """(rows, columns); 24 × 80 where there is no terminal."""
    try:
        columns, rows = os.get_terminal_size(sys.stdin.fileno())
    except (OSError, ValueError):
        return 24, 80
    return rows or 24, columns or 80


@contextmanager
def raw() -> Iterator[None]:
    """Keys go to the container untouched; the old mode comes back whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def on_resize(call: Callable[[], None]) -> Iterator[None]:
    def handle(_: int, __: FrameType | None) -> None:
        call()

    before = signal.signal(signal.SIGWINCH, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
