"""A detached process outlives the event loop that has started it, on every Python."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import pytest

from cuboid.lib import proc
from cuboid.lib.errors import UnsupportedError


def test_a_detached_process_outlives_the_loop_that_has_started_it() -> None:
    async def begin() -> int:
        return proc.start_detached(["sleep", "60"])

    pid = asyncio.run(begin())
    try:
        gc.collect()
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(UnsupportedError, match="no-such-program"):
        proc.start_detached(["no-such-program"])
