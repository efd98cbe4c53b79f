"""Times as Kubernetes writes them, against the standard library's own formatting."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.clock import parse_rfc3339, rfc3339, rfc3339_micro


@given(st.integers(0, 4_102_444_800), st.integers(0, 999_999))
def test_both_forms_say_the_instant(second: int, micro: int) -> None:
    moment = datetime.fromtimestamp(second, UTC).replace(microsecond=micro)
    assert rfc3339(second + 0.5) == moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    written = rfc3339_micro(second + micro / 1e6)
    assert abs(parse_rfc3339(written) - (second + micro / 1e6)) <= 2e-6
    assert len(written) == len("2026-01-02T03:04:05.000006Z")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1.9999999, "1970-01-01T00:00:02.000000Z"),
        (1_700_000_000.000001, "2023-11-14T22:13:20.000001Z"),
    ],
)
def test_microseconds_round_into_the_next_second(seconds: float, written: str) -> None:
    assert rfc3339_micro(seconds) == written
