"""The agent is in every guest's memory and its code must be translated or faulted in: it stays small."""

from __future__ import annotations

import pytest

from tests.harness.guest_image import ROOT

AGENT = ROOT / "build/guest/cuboid-agent"
BUDGET = 3_500_000  # bytes


@pytest.mark.skipif(not AGENT.exists(), reason="the agent has not been built (tools/build_guest.sh)")
def test_the_agent_stays_within_its_budget() -> None:
    assert AGENT.stat().st_size <= BUDGET
