"""What the trusted side makes of a converter's output, and of its end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.convert.run import _failure, _listen
from cuboid.images.convert.worker import Report, _explain
from cuboid.lib import proc
from cuboid.lib.errors import CuboidError, ExhaustedError, HostileError, ProcessError


async def listen(output: bytes) -> tuple[Report, list[int]]:
    reader, seen = asyncio.StreamReader(), list[int]()
    reader.feed_data(output)
    reader.feed_eof()
    process = cast("proc.Process", SimpleNamespace(stdout=reader))
    return await _listen(process, seen.append), seen


async def test_progress_is_passed_on_and_the_last_line_counts() -> None:
    last, seen = await listen(b'{"done":5}\n{"done":9}\n{"device_bytes":4096}\n')
    assert (last.device_bytes, seen) == (4096, [5, 9])


LONG = b'{"message":"' + b"x" * 9000 + b'"}\n'


@pytest.mark.parametrize("output", [b"garbage\n", b"[]\n", b'{"done":"x"}\n', b"{" * 100_000, LONG])
async def test_garbage_from_a_converter_is_hostile(output: bytes) -> None:
    with pytest.raises(HostileError):
        await listen(output)


@given(st.binary(max_size=300))
def test_any_output_is_read_or_hostile(output: bytes) -> None:
    try:
        asyncio.run(listen(output))
    except HostileError as error:
        assert error.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HostileError("a bomb"), HostileError),
        (OSError(28, "No space left on device"), ExhaustedError),
        (OSError(27, "File too large"), HostileError),
        (MemoryError(), HostileError),
        (ValueError("bug"), ProcessError),
    ],
)
def test_a_failure_in_the_converter_keeps_its_meaning(error: BaseException, kind: type[CuboidError]) -> None:
    told = _failure(_explain(error), 1, b"")
    assert type(told) is kind
    assert "\n" not in str(told)


def test_a_converter_that_was_killed_is_reported_with_its_signal() -> None:
    assert "SIGKILL" in _failure(Report(done=5), -9, b"").message
